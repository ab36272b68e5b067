"""Bearer tokens: who may call, and for what. A JSON file keeps their hashes, never the tokens themselves.

A server reads the file once more whenever it has changed: what is revoked is refused a second later.
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
from whatwhere.indexer.storage.files import FileVersion, sync, version_of

_PREFIX = "ww_"  # by which a secret that lies about where it should not is known for one
_SECRET_BYTES = 32
_LOOK_AT_MOST_EVERY_S = 1.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("name", "scopes", "sha256", "created_at", "expires_at")
_REMEDY = "restore it from a copy, or make it again with `whatwhere token create`"

log = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a token may do; none includes another."""

    SEARCH = "search"
    ADMIN = "admin"


@dataclass(frozen=True)
class Token:
    """One token as it is kept: `sha256` is that of its secret in hex; without `expires_at` it is good until revoked."""

    name: str
    scopes: frozenset[Scope]
    sha256: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None


def create_token(path: Path, name: str, scopes: Iterable[Scope], expires_at: datetime | None = None) -> str:
    """Add a token to the file, which is made when absent, and return its secret, which is kept nowhere.

    Raises InvalidRequest for a name that is taken or cannot be one, for no scope and for a time that has passed;
    CredentialsUnreadable when the file is there but torn; OSError when it cannot be written.
    """
    now = datetime.now(UTC)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name: 1 to 64 letters, digits, dots, dashes and underscores", field="name"
        )
    if not (granted := frozenset(scopes)):
        raise InvalidRequest(f"token {name} would allow nothing: give a scope, {_listed(Scope)}", field="scopes")
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise InvalidRequest(f"expires at {expires_at}: must lie in the future, with a time zone", field="expires_at")
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with _writing(path) as target:
        tokens = read_tokens(target) if target.exists() else ()
        if any(token.name == name for token in tokens):
            raise InvalidRequest(
                f"{path}: there is a token {name} already: revoke it first (`whatwhere token revoke {name}`), "
                "or take another name",
                field="name",
            )
        _write(target, (*tokens, Token(name, granted, _hash(secret), now.replace(microsecond=0), expires_at)))
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Take a token out of the file; raises UnknownName where there is none of this name."""
    with _writing(path) as target:
        tokens = read_tokens(target)
        kept = tuple(token for token in tokens if token.name != name)
        if len(kept) == len(tokens):
            there = _listed(token.name for token in tokens) or "no token"
            raise UnknownName(f"{path}: no token {name!r}: the file holds {there}", field="name")
        _write(target, kept)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file in its order; raises CredentialsUnreadable for all that it should not hold."""
    return _read(path)[0]


class TokenFile:
    """The tokens of a file that is followed: looked at when a token is asked for, at most once a second.

    While the file is absent or torn, the tokens that were read last stay good. May be shared by threads.
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
        self._looked_at = monotonic()
        self._tokens, self._version = _read(path)
        self._complaint: str | None = None

    def identify(self, secret: str) -> Token | None:
        """Return the token that this is the secret of; None for one that is unknown, revoked or expired."""
        given = _hash(secret)
        found = None
        for token in self._current():  # to the end: how long it takes tells nothing of which one it was
            if hmac.compare_digest(token.sha256, given):
                found = token
        if found is None or (found.expires_at is not None and found.expires_at <= self._now()):
            return None
        return found

    def _current(self) -> tuple[Token, ...]:
        with self._lock:
            now = self._monotonic()
            if now - self._looked_at >= _LOOK_AT_MOST_EVERY_S:
                self._looked_at = now
                self._look()
            return self._tokens

    def _look(self) -> None:
        """Read the file when it is another than the one read last; what cannot be read is logged once a reason."""
        try:
            if version_of(self._path.stat()) != self._version:
                self._tokens, self._version = _read(self._path)
                log.info("tokens=%d file=%s", len(self._tokens), self._path)
        except (CredentialsUnreadable, OSError) as error:
            if self._complaint != str(error):
                log.error("the tokens read last stay good: %s", error)  # noqa: TRY400 - it says all there is to say
            self._complaint = str(error)
        else:
            self._complaint = None


def _hash(secret: str) -> str:
    """Return the SHA-256 in hex. A secret of 256 random bits cannot be guessed: it needs no slow hash and no salt."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values)


# --- reading ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[tuple[Token, ...], FileVersion]:
    """Return the tokens, and which version of the file they were read from."""
    try:
        with path.open("rb") as file:
            version = version_of(os.fstat(file.fileno()))  # before its bytes: a later change is then seen as one
            content = file.read()
    except FileNotFoundError:
        raise CredentialsUnreadable(f"{path}: not there; `whatwhere token create NAME --file FILE` makes one") from None
    except OSError as error:
        raise CredentialsUnreadable(f"{path}: {error.strerror}: it must be readable for this user") from error
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise CredentialsUnreadable(f"{path}: no JSON, or torn: {_REMEDY}") from None
    if not isinstance(parsed, dict) or parsed.keys() != {"tokens"} or not isinstance(parsed["tokens"], list):
        raise CredentialsUnreadable(f'{path}: must be {{"tokens": [...]}} and nothing else: {_REMEDY}')
    tokens = tuple(_parsed(entry, f"{path}: entry {number}") for number, entry in enumerate(parsed["tokens"], 1))
    _check_distinct(tokens, path)
    return tokens, version


def _check_distinct(tokens: Sequence[Token], path: Path) -> None:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if (first := names.setdefault(token.name, number)) != number:
            raise CredentialsUnreadable(f"{path}: entry {number}: the name of entry {first}: remove one of the two")
        if (first := hashes.setdefault(token.sha256, number)) != number:
            raise CredentialsUnreadable(f"{path}: entry {number}: the secret of entry {first}: remove one of the two")


def _parsed(entry: Any, place: str) -> Token:
    """Return one entry's token. The messages repeat no value: a secret may have been pasted in its place."""
    if not isinstance(entry, dict) or entry.keys() != set(_KEYS):
        raise CredentialsUnreadable(f"{place}: must have exactly {_listed(_KEYS)}: {_REMEDY}")
    name, scopes, sha256 = entry["name"], entry["scopes"], entry["sha256"]
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise CredentialsUnreadable(f"{place}: name must be 1 to 64 letters, digits, dots, dashes and underscores")
    if not (isinstance(scopes, list) and scopes and all(scope in [*Scope] for scope in scopes)):
        raise CredentialsUnreadable(f"{place}: scopes must be a list of {_listed(Scope)}, at least one")
    if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise CredentialsUnreadable(f"{place}: sha256 must be 64 digits of 0-9 and a-f: {_REMEDY}")
    created_at = _time(entry["created_at"], f"{place}: created_at")
    expires_at = None if entry["expires_at"] is None else _time(entry["expires_at"], f"{place}: expires_at")
    return Token(name, frozenset(map(Scope, scopes)), sha256, created_at, expires_at)


def _time(text: Any, place: str) -> datetime:
    try:
        given = datetime.fromisoformat(text)
        if given.tzinfo is not None:
            return given.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # the last: in UTC it would lie before the year 1
        pass
    raise CredentialsUnreadable(f"{place} must be a time with its zone, such as 2027-01-31T00:00:00+00:00")


# --- writing ----------------------------------------------------------------------------------------------------


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Hold the folder's lock, so that of two who write at once none is lost; give the file behind a symbolic link."""
    target = path.resolve()
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield target
    finally:
        os.close(descriptor)


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Write beside, then rename; unlike `storage.files.write_durably`, the file is never readable by others."""
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
    """Take over owner and mode: a server of another user that could not read on would let the revoked in for ever."""
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
