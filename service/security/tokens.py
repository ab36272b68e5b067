"""Bearer tokens with scopes. A JSON file stores their hashes, never the tokens themselves.

A server reads the file again when it changes: a revoked token is refused within a second.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from whatwhere.indexer.errors import CredentialsUnreadable, InvalidRequest, UnknownName
from whatwhere.indexer.storage.bounded import open_bounded
from whatwhere.indexer.storage.files import FileVersion, sync, version_of

_PREFIX = "ww_"  # lets scanners recognize leaked tokens
_SECRET_BYTES = 32
_CHECK_INTERVAL_S = 1.0
_MAX_BYTES = 64 * 1024 * 1024  # of the file: more than 200,000 tokens
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("name", "scopes", "sha256", "created_at", "expires_at")
_REMEDY = "restore it from a backup, or create it again with `whatwhere token create`"

log = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a token allows. No scope includes another."""

    SEARCH = "search"
    ADMIN = "admin"


@dataclass(frozen=True)
class Token:
    """A stored token. `sha256` is the hash of its secret in hexadecimal. `expires_at` None means until revoked."""

    name: str
    scopes: frozenset[Scope]
    sha256: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None


def create_token(path: Path, name: str, scopes: Iterable[Scope], expires_at: datetime | None = None) -> str:
    """Add a token to the file, and return its secret, which is not stored. Creates the file if it is absent.

    Raises InvalidRequest if the name is invalid or taken, `scopes` is empty, or `expires_at` is not in the future or
    has no time zone; CredentialsUnreadable if the file is invalid; OSError if it cannot be written.
    """
    now = datetime.now(UTC)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a valid name: use 1 to 64 letters, digits, dots, dashes and underscores", field="name"
        )
    if not (granted := frozenset(scopes)):
        raise InvalidRequest(f"token {name} has no scope: give at least one of {_listed(Scope)}", field="scopes")
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise InvalidRequest(
            f"expires_at is {expires_at}: give a time in the future, with a time zone", field="expires_at"
        )
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with _writing(path) as target:
        tokens = read_tokens(target) if target.exists() else ()
        if any(token.name == name for token in tokens):
            raise InvalidRequest(
                f"{path}: token {name} exists already: revoke it first (`whatwhere token revoke {name}`), "
                "or use another name",
                field="name",
            )
        _write(target, (*tokens, Token(name, granted, _hash(secret), now.replace(microsecond=0), expires_at)))
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Remove a token from the file. Raises UnknownName if it does not exist."""
    with _writing(path) as target:
        tokens = read_tokens(target)
        kept = tuple(token for token in tokens if token.name != name)
        if len(kept) == len(tokens):
            existing = _listed(token.name for token in tokens) or "no token"
            raise UnknownName(f"{path}: no token {name!r}: the file has {existing}", field="name")
        _write(target, kept)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file in its order. Raises CredentialsUnreadable if the file is invalid."""
    return _read(path)[0]


class TokenFile:
    """The tokens of a file, reloaded when it changes. Thread-safe.

    `identify` checks the file at most once a second. While the file is absent or invalid, the tokens read last stay
    valid. Raises CredentialsUnreadable if the file is invalid at the start.
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._now = now
        self._lock = threading.Lock()
        self._checked_at = monotonic()
        self._tokens, self._version = _read(path)
        self._reported: str | None = None

    def identify(self, secret: str) -> Token | None:
        """Return the token of a secret; None if it is unknown, revoked or expired."""
        given = _hash(secret)
        found = None
        for token in self._current():  # all of them: the time taken must not depend on the token
            if hmac.compare_digest(token.sha256, given):
                found = token
        if found is None or (found.expires_at is not None and found.expires_at <= self._now()):
            return None
        return found

    def _current(self) -> tuple[Token, ...]:
        with self._lock:
            now = self._monotonic()
            if now - self._checked_at >= _CHECK_INTERVAL_S:
                self._checked_at = now
                self._reload()
            return self._tokens

    def _reload(self) -> None:
        """Reload the file if it has changed. Each reason for a failure is logged once."""
        try:
            if version_of(self._path.stat()) != self._version:
                self._tokens, self._version = _read(self._path)
                log.info("tokens=%d file=%s", len(self._tokens), self._path)
        except (CredentialsUnreadable, OSError) as error:
            if self._reported != str(error):
                log.error("still using the tokens read last: %s", error)  # noqa: TRY400 - a traceback adds nothing
            self._reported = str(error)
        else:
            self._reported = None


def _hash(secret: str) -> str:
    """Return the SHA-256 in hexadecimal. A secret of 256 random bits needs neither a slow hash nor a salt."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values)


# --- reading ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[tuple[Token, ...], FileVersion]:
    """Return the tokens and the version of the file that they were read from."""
    try:
        with open_bounded(path, _MAX_BYTES) as file:
            version = version_of(os.fstat(file.fileno()))  # before the bytes, so that a later change is noticed
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise CredentialsUnreadable(
            f"{path}: no such file: create it with `whatwhere token create NAME --file FILE`"
        ) from None
    except OSError as error:
        raise CredentialsUnreadable(f"{path}: {error.strerror}: give a file that this user can read") from error
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise CredentialsUnreadable(f"{path}: invalid or truncated JSON: {_REMEDY}") from None
    if not isinstance(parsed, dict) or parsed.keys() != {"tokens"} or not isinstance(parsed["tokens"], list):
        raise CredentialsUnreadable(f'{path}: must be {{"tokens": [...]}}: {_REMEDY}')
    tokens = tuple(_parsed(entry, f"{path}: entry {number}") for number, entry in enumerate(parsed["tokens"], 1))
    _check_distinct(tokens, path)
    return tokens, version


def _check_distinct(tokens: Sequence[Token], path: Path) -> None:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if (first := names.setdefault(token.name, number)) != number:
            raise CredentialsUnreadable(f"{path}: entry {number}: same name as entry {first}: remove one of them")
        if (first := hashes.setdefault(token.sha256, number)) != number:
            raise CredentialsUnreadable(f"{path}: entry {number}: same secret as entry {first}: remove one of them")


def _parsed(entry: Any, place: str) -> Token:
    """Parse one entry. Messages contain no value, since someone may have pasted a secret there."""
    if not isinstance(entry, dict) or entry.keys() != set(_KEYS):
        raise CredentialsUnreadable(f"{place}: must have exactly {_listed(_KEYS)}: {_REMEDY}")
    name, scopes, sha256 = entry["name"], entry["scopes"], entry["sha256"]
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise CredentialsUnreadable(f"{place}: name must be 1 to 64 letters, digits, dots, dashes and underscores")
    if not (isinstance(scopes, list) and scopes and all(scope in [*Scope] for scope in scopes)):
        raise CredentialsUnreadable(f"{place}: scopes must be a list with at least one of {_listed(Scope)}")
    if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise CredentialsUnreadable(f"{place}: sha256 must be 64 lowercase hexadecimal digits: {_REMEDY}")
    created_at = _time(entry["created_at"], f"{place}: created_at")
    expires_at = None if entry["expires_at"] is None else _time(entry["expires_at"], f"{place}: expires_at")
    return Token(name, frozenset(map(Scope, scopes)), sha256, created_at, expires_at)


def _time(text: Any, place: str) -> datetime:
    try:
        given = datetime.fromisoformat(text)
        if given.tzinfo is not None:
            return given.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # OverflowError: before the year 1 in UTC
        pass
    raise CredentialsUnreadable(f"{place} must be a time with a time zone, such as 2027-01-31T00:00:00+00:00")


# --- writing ----------------------------------------------------------------------------------------------------


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Lock the directory against concurrent writers, and yield the file behind a symbolic link."""
    target = path.resolve()
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield target
    finally:
        os.close(descriptor)


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Write a temporary file, then rename it. Unlike `write_durably`, others can never read it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _keep_owner(path, file.fileno())
            json.dump({"tokens": [_entry(token) for token in tokens]}, file, indent=2)
            file.write("\n")
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _keep_owner(path: Path, descriptor: int) -> None:
    """Copy owner and mode: a server of another user that lost access would accept revoked tokens forever."""
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    created = os.fstat(descriptor)
    if (before.st_uid, before.st_gid) != (created.st_uid, created.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, before.st_mode & 0o777)


def _entry(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "scopes": sorted(token.scopes),
        "sha256": token.sha256,
        "created_at": token.created_at.isoformat(),
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
    }
