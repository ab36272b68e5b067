"""The file of tokens: made, read strictly, followed by a server, written by several at once."""

import errno
import hashlib
import json
import logging
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from whatwhere.indexer.errors import CredentialsUnreadable, InvalidRequest, UnknownName
from whatwhere.service.security.tokens import Scope, Token, TokenFile, create_token, read_tokens, revoke_token

PASTED = "ww_what-nobody-may-read-in-a-message"
SEARCH = (Scope.SEARCH,)
NOW = datetime(2027, 1, 31, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test sets."""

    seconds: float = 0.0
    time: datetime = NOW

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file of tokens that is not there yet."""
    return tmp_path / "tokens.json"


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


def sha256_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def entry(**changes: Any) -> dict[str, Any]:
    """Return an entry as it may be, but for the changes."""
    kept = {
        "name": "web",
        "scopes": ["search"],
        "sha256": sha256_of("secret"),
        "created_at": "2026-01-31T00:00:00+00:00",
        "expires_at": None,
    }
    return kept | changes


def write(path: Path, *entries: Any) -> None:
    path.write_text(json.dumps({"tokens": entries}))


def follow(path: Path, clock: Clock) -> TokenFile:
    return TokenFile(path, monotonic=clock.monotonic, now=clock.now)


def name_of(token: Token | None) -> str | None:
    return None if token is None else token.name


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


# --- create, list, revoke -----------------------------------------------------------------------------------------


def test_a_token_is_kept_as_it_was_created(path: Path) -> None:
    """Name, scopes and times; the time of creation is now."""
    expires_at = datetime.now(UTC) + timedelta(days=1)
    before = datetime.now(UTC) - timedelta(seconds=1)

    create_token(path, "web", (Scope.ADMIN, Scope.SEARCH), expires_at)

    [token] = read_tokens(path)
    assert (token.name, token.scopes, token.expires_at) == ("web", {Scope.SEARCH, Scope.ADMIN}, expires_at)
    assert before < token.created_at <= datetime.now(UTC)


def test_the_hash_of_the_secret_is_kept_and_not_the_secret(path: Path, tmp_path: Path) -> None:
    """No file of the folder holds it; the file holds its SHA-256."""
    secret = create_token(path, "web", SEARCH)

    kept = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]

    assert len(kept) == 1
    assert secret not in kept[0]
    assert json.loads(kept[0])["tokens"][0]["sha256"] == sha256_of(secret)


def test_no_two_secrets_are_the_same(path: Path) -> None:
    """256 random bits each, behind the letters that they are known by."""
    secrets = {create_token(path, f"web-{number}", SEARCH) for number in range(5)}

    assert len(secrets) == 5
    assert all(re.fullmatch(r"ww_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_what_is_revoked_is_gone_and_its_name_free(path: Path) -> None:
    """The others stay, in their order; the name may be given again, with another secret."""
    old = create_token(path, "web", SEARCH)
    for name in ("batch", "desk"):
        create_token(path, name, SEARCH)

    revoke_token(path, "web")
    left = [token.name for token in read_tokens(path)]
    new = create_token(path, "web", SEARCH)

    assert left == ["batch", "desk"]
    assert [token.name for token in read_tokens(path)] == ["batch", "desk", "web"]
    assert new != old


def test_the_last_token_can_be_revoked(path: Path) -> None:
    """An empty file is one that lets nobody in."""
    secret = create_token(path, "web", SEARCH)

    revoke_token(path, "web")

    assert read_tokens(path) == ()
    assert TokenFile(path).identify(secret) is None


def test_a_name_that_is_not_there_cannot_be_revoked(path: Path) -> None:
    """The error says which names there are, and nothing is changed."""
    create_token(path, "web", SEARCH)
    before = path.read_bytes()

    with pytest.raises(UnknownName, match=r"tokens\.json: no token 'wbe': the file has web$") as caught:
        revoke_token(path, "wbe")

    assert caught.value.field == "name"
    assert path.read_bytes() == before


def test_nothing_is_revoked_in_a_file_that_is_not_there(path: Path) -> None:
    """The error names the file, and none is made."""
    with pytest.raises(CredentialsUnreadable, match=re.escape(f"{path}: no such file")):
        revoke_token(path, "web")

    assert not path.exists()


@pytest.mark.parametrize("name", ["", "two words", "a/b", "é", "line\n", "x" * 65])
def test_a_name_that_cannot_be_one_is_refused(path: Path, name: str) -> None:
    """Nothing is written."""
    with pytest.raises(InvalidRequest, match="is not a valid name") as caught:
        create_token(path, name, SEARCH)

    assert caught.value.field == "name"
    assert not path.exists()


@pytest.mark.parametrize("name", ["x", "x" * 64, "a.B-c_9"])
def test_a_name_may_be_long_and_have_marks(path: Path, name: str) -> None:
    """What can be created can be read."""
    create_token(path, name, SEARCH)

    assert [token.name for token in read_tokens(path)] == [name]


def test_a_name_is_given_once(path: Path) -> None:
    """The token of that name stays good."""
    secret = create_token(path, "web", SEARCH)

    with pytest.raises(InvalidRequest, match="token web exists already: revoke it first") as caught:
        create_token(path, "web", (Scope.ADMIN,))

    assert caught.value.field == "name"
    assert [token.sha256 for token in read_tokens(path)] == [sha256_of(secret)]


def test_a_token_allows_something(path: Path) -> None:
    """The error names the scopes there are."""
    with pytest.raises(InvalidRequest, match="give at least one of search, admin") as caught:
        create_token(path, "web", ())

    assert caught.value.field == "scopes"
    assert not path.exists()


@pytest.mark.parametrize(
    "expires_at",
    [
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2999, 1, 1),  # noqa: DTZ001, RUF100 - without a zone, which is what is refused
        datetime.now(timezone(timedelta(hours=14))),  # just now, by a clock that shows tomorrow
    ],
)
def test_a_token_expires_in_the_future(path: Path, expires_at: datetime) -> None:
    """A time that has passed, anywhere, and one that nobody can place are refused."""
    with pytest.raises(InvalidRequest, match="give a time in the future, with a time zone") as caught:
        create_token(path, "web", SEARCH, expires_at)

    assert caught.value.field == "expires_at"
    assert not path.exists()


def test_a_torn_file_is_not_written_over(path: Path) -> None:
    """Somebody may yet want to mend it."""
    path.write_text('{"tokens": [')

    for change in (lambda: create_token(path, "web", SEARCH), lambda: revoke_token(path, "web")):
        with pytest.raises(CredentialsUnreadable, match="invalid or truncated"):
            change()

    assert path.read_text() == '{"tokens": ['


def test_a_token_does_not_show_its_hash() -> None:
    """Neither in a log nor in a traceback."""
    token = Token("web", frozenset(SEARCH), sha256_of("secret"), NOW, None)

    assert "web" in repr(token)
    assert sha256_of("secret") not in repr(token)


# --- the file itself ----------------------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    """Whatever the umask would allow."""
    before = os.umask(0)

    try:
        create_token(path, "web", SEARCH)
    finally:
        os.umask(before)

    assert mode_of(path) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_mode_is_kept(path: Path, mode: int) -> None:
    """A server of another user that may read the file may do so after a change."""
    create_token(path, "web", SEARCH)
    path.chmod(mode)

    create_token(path, "desk", SEARCH)
    after_creation = mode_of(path)
    revoke_token(path, "web")

    assert (after_creation, mode_of(path)) == (mode, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(path: Path) -> None:
    """An administrator's change does not lock out the server's user."""
    create_token(path, "web", SEARCH)
    os.chown(path, 12345, 54321)

    create_token(path, "desk", SEARCH)

    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (12345, 54321, 0o600)


def test_a_symbolic_link_stays_one(path: Path, tmp_path: Path) -> None:
    """The file behind it is changed."""
    (tmp_path / "elsewhere").mkdir()
    behind = tmp_path / "elsewhere" / "kept.json"
    path.symlink_to(behind)

    create_token(path, "web", SEARCH)

    assert path.is_symlink()
    assert [token.name for token in read_tokens(behind)] == ["web"]


def test_on_a_full_disk_the_file_stays_as_it_was(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left beside it either."""
    create_token(path, "web", SEARCH)
    before = path.read_bytes()

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("whatwhere.service.security.tokens.sync", full)
    with pytest.raises(OSError, match="No space left"):
        create_token(path, "desk", SEARCH)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_create_at_once_lose_no_token(path: Path) -> None:
    """Three processes with fifteen tokens each: all of them are there."""
    program = (
        "import sys; from pathlib import Path; from whatwhere.service.security.tokens import Scope, create_token\n"
        "for number in range(15): create_token(Path(sys.argv[1]), f'{sys.argv[2]}-{number}', [Scope.SEARCH])"
    )
    commands = [[sys.executable, "-c", program, str(path), name] for name in "abc"]

    processes = [subprocess.Popen(command) for command in commands]
    codes = [process.wait() for process in processes]

    assert codes == [0, 0, 0]
    assert {token.name for token in read_tokens(path)} == {f"{name}-{number}" for name in "abc" for number in range(15)}


def test_threads_that_create_and_revoke_at_once_lose_nothing(path: Path) -> None:
    """Every other token is revoked by the thread that made it; the rest is there."""

    def work(number: int) -> None:
        create_token(path, f"web-{number}", SEARCH)
        if number % 2:
            revoke_token(path, f"web-{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(20)))

    assert {token.name for token in read_tokens(path)} == {f"web-{number}" for number in range(0, 20, 2)}


# --- what it must not hold ----------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_says_what_makes_one(path: Path) -> None:
    """At the start of a server too."""
    for read in (read_tokens, TokenFile):
        with pytest.raises(
            CredentialsUnreadable, match=re.escape(f"{path}: no such file: create it with `whatwhere token create")
        ):
            read(path)


def test_a_folder_is_no_file_of_tokens(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(CredentialsUnreadable, match=re.escape(f"{tmp_path}: is a directory, not a regular file")):
        read_tokens(tmp_path)


@pytest.mark.usefixtures("mortal")
def test_a_file_that_this_user_must_not_read_is_named(path: Path) -> None:
    """The error says what is needed."""
    write(path, entry())
    path.chmod(0)

    with pytest.raises(
        CredentialsUnreadable, match=re.escape(f"{path}: Permission denied: give a file that this user can read")
    ):
        read_tokens(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "invalid or truncated JSON"),
        (b'{"tokens": [', "invalid or truncated JSON"),
        (f"{PASTED}".encode(), "invalid or truncated JSON"),
        (b'\xff{"tokens": []}', "invalid or truncated JSON"),
        (b'{"tokens": ' + b"[" * 200_000, "invalid or truncated JSON"),
        (b"[]", "must be {"),
        (b'"tokens"', "must be {"),
        (b"{}", "must be {"),
        (b'{"tokens": {}}', "must be {"),
        (b'{"tokens": null}', "must be {"),
        (f'{{"tokens": [], "{PASTED}": 1}}'.encode(), "must be {"),
    ],
)
def test_what_is_no_file_of_tokens_is_refused(path: Path, content: bytes, words: str) -> None:
    """The error names the file and says what to do, and repeats nothing of what was found."""
    path.write_bytes(content)

    with pytest.raises(CredentialsUnreadable) as caught:
        read_tokens(path)

    assert str(caught.value).startswith(f"{path}: {words}")
    assert "whatwhere token create" in str(caught.value)
    assert PASTED not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (PASTED, "must have exactly name, scopes, sha256"),
        ([], "must have exactly"),
        (None, "must have exactly"),
        ({key: value for key, value in entry(name="desk").items() if key != "expires_at"}, "must have exactly"),
        (entry(name="desk", **{PASTED: 1}), "must have exactly"),
        (entry(name=""), "name must be"),
        (entry(name=f"{PASTED} "), "name must be"),
        (entry(name=7), "name must be"),
        (entry(name=None), "name must be"),
        (entry(name="desk", scopes=[]), "scopes must be"),
        (entry(name="desk", scopes="search"), "scopes must be"),
        (entry(name="desk", scopes=["search", PASTED]), "scopes must be"),
        (entry(name="desk", scopes=[["search"]]), "scopes must be"),
        (entry(name="desk", scopes={"search": 1}), "scopes must be"),
        (entry(name="desk", sha256=PASTED), "sha256 must be"),
        (entry(name="desk", sha256="a" * 63), "sha256 must be"),
        (entry(name="desk", sha256="A" * 64), "sha256 must be"),
        (entry(name="desk", sha256="a" * 64 + "\n"), "sha256 must be"),
        (entry(name="desk", sha256=None), "sha256 must be"),
        (entry(name="desk", sha256="a" * 64, created_at="2027-01-31T00:00:00"), "created_at must be"),
        (entry(name="desk", sha256="a" * 64, created_at=PASTED), "created_at must be"),
        (entry(name="desk", sha256="a" * 64, created_at=None), "created_at must be"),
        (entry(name="desk", sha256="a" * 64, created_at=1801353600), "created_at must be"),
        (entry(name="desk", sha256="a" * 64, expires_at="2027-01-31"), "expires_at must be"),
        (entry(name="desk", sha256="a" * 64, expires_at=PASTED), "expires_at must be"),
        (entry(name="desk", sha256="a" * 64, expires_at=False), "expires_at must be"),
        (entry(name="desk", sha256="a" * 64, expires_at="0001-01-01T00:00:00+23:59"), "expires_at must be"),
        (entry(name=PASTED, sha256="a" * 64), "same name as entry 1"),
        (entry(name="desk"), "same secret as entry 1"),
    ],
)
def test_an_entry_that_is_wrong_is_refused(path: Path, wrong: Any, words: str) -> None:
    """The error names file, entry and key, and repeats no value: a secret may have been pasted there."""
    first = entry(name=PASTED) if words == "same name as entry 1" else entry()
    write(path, first, wrong)

    with pytest.raises(CredentialsUnreadable) as caught:
        read_tokens(path)

    assert str(caught.value).startswith(f"{path}: entry 2: {words}")
    assert PASTED not in str(caught.value)


def test_a_time_of_another_zone_is_that_time(path: Path) -> None:
    """Also with the letter of UTC."""
    write(path, entry(created_at="2027-01-31T00:00:00Z", expires_at="2027-01-31T09:00:00+09:00"))

    [token] = read_tokens(path)

    assert (token.created_at, token.expires_at) == (NOW, NOW)


# --- who is it ----------------------------------------------------------------------------------------------------


def test_a_secret_is_that_of_its_token(path: Path, clock: Clock) -> None:
    """Each of two; no other text, not even what the file itself holds, is a secret."""
    secrets = {name: create_token(path, name, SEARCH) for name in ("web", "desk")}
    followed = follow(path, clock)
    web = secrets["web"]

    found = {name: name_of(followed.identify(secret)) for name, secret in secrets.items()}
    others = ["", "web", f"{web} ", web[:-1], web.upper(), sha256_of(web), "\ud800"]

    assert found == {"web": "web", "desk": "desk"}
    assert [followed.identify(secret) for secret in others] == [None] * len(others)


def test_a_token_carries_its_scopes(path: Path, clock: Clock) -> None:
    """Those that it was created with, and no others."""
    search, admin = create_token(path, "web", SEARCH), create_token(path, "operator", (Scope.ADMIN,))
    followed = follow(path, clock)

    scopes = [token.scopes for token in map(followed.identify, (search, admin)) if token is not None]

    assert scopes == [{Scope.SEARCH}, {Scope.ADMIN}]


@pytest.mark.parametrize(("seconds", "good"), [(-1, True), (0, False), (1, False)])
def test_a_token_is_good_until_it_expires(path: Path, clock: Clock, seconds: int, good: bool) -> None:
    """At that time it no longer is, though the file is the same."""
    write(path, entry(expires_at=NOW.isoformat()))
    followed = follow(path, clock)

    clock.time = NOW + timedelta(seconds=seconds)

    assert (followed.identify("secret") is not None) == good


# --- the file is followed -----------------------------------------------------------------------------------------


def test_what_is_revoked_or_created_counts_a_second_later(path: Path, clock: Clock) -> None:
    """Not before it: the file is looked at once a second at most."""
    old = create_token(path, "web", SEARCH)
    followed = follow(path, clock)
    revoke_token(path, "web")
    new = create_token(path, "desk", SEARCH)

    clock.seconds = 0.99
    before = [name_of(followed.identify(secret)) for secret in (old, new)]
    clock.seconds = 1.0
    after = [name_of(followed.identify(secret)) for secret in (old, new)]

    assert before == ["web", None]
    assert after == [None, "desk"]


def test_the_second_counts_from_the_last_look(path: Path, clock: Clock) -> None:
    """Where nothing had changed as well."""
    secret = create_token(path, "web", SEARCH)
    followed = follow(path, clock)
    clock.seconds = 5.0
    followed.identify(secret)
    revoke_token(path, "web")

    clock.seconds = 5.99
    before = followed.identify(secret)
    clock.seconds = 6.0
    after = followed.identify(secret)

    assert before is not None
    assert after is None


def test_a_file_that_has_not_changed_is_not_read_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A look is a stat; a change is logged with the number of tokens and without their names."""
    caplog.set_level(logging.INFO)
    secret = create_token(path, "web", SEARCH)
    followed = follow(path, clock)

    for clock.seconds in (1.0, 2.0):
        followed.identify(secret)
    unchanged = list(caplog.messages)
    create_token(path, "desk", SEARCH)
    for clock.seconds in (3.0, 4.0):
        followed.identify(secret)

    assert unchanged == []
    assert caplog.messages == [f"tokens=2 file={path}"]


def test_a_file_that_cannot_be_read_leaves_the_last_tokens(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Torn, then deleted: each is logged once, however often the file is looked at, and shows no value."""
    secret = create_token(path, "web", SEARCH)
    followed = follow(path, clock)
    found = []

    path.write_text(f'{{"tokens": ["{PASTED}"')
    for clock.seconds in (1.0, 2.0, 3.0):
        found.append(name_of(followed.identify(secret)))
    path.unlink()
    for clock.seconds in (4.0, 5.0, 6.0):
        found.append(name_of(followed.identify(secret)))

    torn, deleted = complaints(caplog)
    assert found == ["web"] * 6
    assert torn.startswith(f"still using the tokens read last: {path}: invalid or truncated JSON")
    assert "No such file" in deleted
    assert str(path) in deleted
    assert PASTED not in caplog.text


def test_a_file_that_is_good_again_is_taken(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """What was revoked meanwhile is refused; the same trouble a second time is logged a second time."""
    secret = create_token(path, "web", SEARCH)
    followed = follow(path, clock)
    good = path.read_bytes()

    found = []
    for clock.seconds, content in enumerate((b"{", good, b"{", b'{"tokens": []}'), 1):
        path.write_bytes(content)
        found.append(name_of(followed.identify(secret)))

    assert found == ["web", "web", "web", None]
    assert len(complaints(caplog)) == 2


def test_the_same_file_back_in_its_place_ends_the_trouble(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Moved away and back it is no other than before; moved away again it is logged again."""
    secret = create_token(path, "web", SEARCH)
    followed = follow(path, clock)
    away = path.with_suffix(".away")

    for clock.seconds, (source, target) in enumerate([(path, away), (away, path), (path, away)], 1):
        source.rename(target)
        followed.identify(secret)

    assert len(complaints(caplog)) == 2
