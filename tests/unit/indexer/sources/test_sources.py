"""Bytes from elsewhere: a web server that misbehaves, an S3 server, clocks that nobody waits for."""

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import boto3
import fsspec
import pytest
from fsspec.registry import _registry

from tests.object_store import s3_server
from tests.web_server import Answer, Site, web_server
from whatwhere.indexer.errors import ImageTooManyBytes, InvalidRequest, UnreadableImage
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import Content, RateLimit, Remote, RetryPolicy, Stamp
from whatwhere.indexer.sources.uris import name_of, normalized_uri, shown

LIMITS = ImageLimits(max_bytes=300_000)
PICTURE = bytes(range(256)) * 40


@dataclass
class Sleeper:
    """Remembers for how long it was to sleep, and sleeps not at all."""

    slept: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def site() -> Iterator[Site]:
    """Give a web site."""
    with web_server() as served:
        yield served


@pytest.fixture
def sleeper() -> Sleeper:
    """Give what sleeps in place of the clock."""
    return Sleeper()


@pytest.fixture
def remote(sleeper: Sleeper) -> Remote:
    """Give a reader that tries four times and never waits."""
    return Remote(RetryPolicy(tries=4, read_timeout_s=0.3, max_backoff_s=8), sleep=sleeper)


# --- the web ----------------------------------------------------------------------------------------------------


def test_a_picture_of_the_web_is_read_by_one_request(site: Site, remote: Remote) -> None:
    """With a stamp of its size and its tag."""
    uri = site.put("/a.jpg", Answer(PICTURE, headers={"ETag": '"v1"'}))

    found = remote.read(uri, LIMITS)

    assert found.content == PICTURE
    assert found.stamp is not None
    assert found.stamp.byte_count == len(PICTURE)
    assert site.asked == {("GET", "/a.jpg"): 1}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"ETag": '"v1"'}, {"ETag": '"v1"', "Last-Modified": "now"}, True),
        ({"ETag": '"v1"'}, {"ETag": 'W/"v1"'}, True),
        ({"ETag": '"v1"'}, {"ETag": '"v2"'}, False),
        ({"Last-Modified": "Tue, 01 Jul 2025"}, {"Last-Modified": "Tue, 01 Jul 2025"}, True),
        ({"Last-Modified": "Tue, 01 Jul 2025"}, {"Last-Modified": "Wed, 02 Jul 2025"}, False),
    ],
)
def test_the_stamp_changes_with_the_tag_or_else_the_time(
    site: Site, remote: Remote, before: dict[str, str], after: dict[str, str], same: bool
) -> None:
    """That of the content read is the one that is asked for without reading, later."""
    uri = site.put("/a.jpg", Answer(PICTURE, headers=before))
    read_then = remote.read(uri, LIMITS).stamp
    site.put("/a.jpg", Answer(PICTURE, headers=after))

    assert (remote.stamp(uri) == read_then) is same


def test_a_server_that_tells_nothing_gives_no_mark(site: Site, remote: Remote) -> None:
    """Neither tag nor time: only the size is known."""
    uri = site.put("/a.jpg", Answer(PICTURE))

    assert remote.stamp(uri) == remote.read(uri, LIMITS).stamp == Stamp(len(PICTURE), None)


def test_a_server_without_head_is_no_error(site: Site, remote: Remote) -> None:
    """Nothing is known then, and it is asked once only."""
    site.without_head = True
    uri = site.put("/a.jpg", Answer(PICTURE, headers={"ETag": '"v1"'}))

    assert remote.stamp(uri) is None
    assert site.asked == {("HEAD", "/a.jpg"): 1}


@pytest.mark.parametrize(
    "fault",
    [
        *(Answer(b"sorry", status=status) for status in (408, 429, 500, 502, 503, 504)),
        Answer(PICTURE[:-100], truncated=True),
        Answer(silent=True),
    ],
    ids=["408", "429", "500", "502", "503", "504", "truncated", "silent"],
)
def test_what_may_pass_is_tried_again(site: Site, remote: Remote, sleeper: Sleeper, fault: Answer) -> None:
    """Until it is good; the waits in between grow at most twofold, from a second on."""
    uri = site.put("/a.jpg", fault, fault, Answer(PICTURE))

    assert remote.read(uri, LIMITS).content == PICTURE
    assert site.asked["GET", "/a.jpg"] == 3
    assert len(sleeper.slept) == 2
    assert sleeper.slept[0] <= 1
    assert sleeper.slept[1] <= 2


def test_waits_are_random_and_grow(site: Site, sleeper: Sleeper) -> None:
    """Many clients that failed together do not come back together, and no wait is above the longest."""
    uri = site.put("/a.jpg", Answer(status=503))
    policy = RetryPolicy(tries=9, first_backoff_s=1, max_backoff_s=16)

    for _ in range(2):
        with pytest.raises(OSError, match="503"):
            Remote(policy, sleep=sleeper).read(uri, LIMITS)

    first, second = sleeper.slept[:8], sleeper.slept[8:]
    assert first != second
    assert all(
        waited <= most
        for waits in (first, second)
        for waited, most in zip(waits, (1, 2, 4, 8, 16, 16, 16, 16), strict=True)
    )
    assert max(sleeper.slept) > 4


def test_a_server_that_never_recovers_is_given_up(site: Site, remote: Remote) -> None:
    """The error says what was answered last and how often it was asked."""
    uri = site.put("/a.jpg", Answer(status=503))

    with pytest.raises(OSError, match="503 Service Unavailable, after 4 tries") as raised:
        remote.read(uri, LIMITS)

    assert raised.value.errno == errno.EIO
    assert site.asked["GET", "/a.jpg"] == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, FileNotFoundError),
        (410, FileNotFoundError),
        (401, PermissionError),
        (403, PermissionError),
        (400, OSError),
    ],
)
def test_what_will_not_pass_is_asked_for_once(
    site: Site, remote: Remote, sleeper: Sleeper, status: int, kind: type[OSError]
) -> None:
    """The kind of the error tells what is gone from what is refused."""
    uri = site.put("/a.jpg", Answer(status=status))

    with pytest.raises(kind, match=str(status)):
        remote.read(uri, LIMITS)

    assert site.asked["GET", "/a.jpg"] == 1
    assert sleeper.slept == []


def test_nobody_at_the_address_is_tried_again(remote: Remote, sleeper: Sleeper) -> None:
    """A refused connection may be a server that restarts."""
    with web_server() as closed:
        uri = closed.address + "/a.jpg"

    with pytest.raises(OSError, match="after 4 tries"):
        remote.read(uri, LIMITS)

    assert len(sleeper.slept) == 3


@pytest.mark.parametrize(
    "asked", ["7", format_datetime(datetime.now(UTC) + timedelta(days=-1), usegmt=True)], ids=["seconds", "date"]
)
def test_a_server_says_how_long_to_wait(site: Site, remote: Remote, sleeper: Sleeper, asked: str) -> None:
    """In seconds or by a date; a date that has passed is no wait at all."""
    uri = site.put("/a.jpg", Answer(status=429, headers={"Retry-After": asked}), Answer(PICTURE))

    remote.read(uri, LIMITS)

    assert sleeper.slept == [7.0 if asked == "7" else 0.0]


def test_a_server_that_asks_for_too_long_is_left_alone(site: Site, remote: Remote, sleeper: Sleeper) -> None:
    """Neither asked again too early nor waited for."""
    uri = site.put("/a.jpg", Answer(status=429, headers={"Retry-After": "3600"}), Answer(PICTURE))

    with pytest.raises(OSError, match="429 Too Many Requests"):
        remote.read(uri, LIMITS)

    assert site.asked["GET", "/a.jpg"] == 1
    assert sleeper.slept == []


@pytest.mark.parametrize("answer", [Answer(bytes(300_001)), Answer(endless=True)], ids=["said", "endless"])
def test_reading_stops_at_the_limit(site: Site, remote: Remote, answer: Answer) -> None:
    """By what the server says, or as the bytes come; there is no second try."""
    uri = site.put("/a.jpg", answer)

    with pytest.raises(ImageTooManyBytes, match=r"a\.jpg"):
        remote.read(uri, LIMITS)

    assert site.asked["GET", "/a.jpg"] == 1


def test_a_web_page_in_place_of_a_picture_is_no_content(site: Site, remote: Remote) -> None:
    """As a server's friendly error is, so that what was there before is not taken for replaced."""
    page = {"Content-Type": "text/html; charset=utf-8"}
    uri = site.put("/a.jpg", Answer(b"\n<!doctype html>", headers=page))
    misnamed = site.put("/b.jpg", Answer(PICTURE, headers=page))

    with pytest.raises(UnreadableImage, match=r"^a\.jpg: the server returned an HTML page"):
        remote.read(uri, LIMITS)
    assert remote.read(misnamed, LIMITS).content == PICTURE


def test_only_what_is_not_there_is_gone(site: Site, remote: Remote) -> None:
    """Not what is refused, broken, or there."""
    uris = [site.put(f"/{status}.jpg", Answer(PICTURE, status=status)) for status in (200, 403, 404, 410, 500)]

    assert [remote.is_gone(uri) for uri in uris] == [False, False, True, True, False]


def test_a_signed_query_stands_in_no_message(site: Site, remote: Remote) -> None:
    """Who reads the log cannot read the picture."""
    uri = site.put("/a.jpg?signature=secret", Answer(status=403))

    with pytest.raises(PermissionError) as raised:
        remote.read(uri, LIMITS)

    assert "secret" not in (raised.value.strerror or "")
    assert shown(uri) == site.address + "/a.jpg?…"
    assert name_of(uri) == "a.jpg"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/a.jpg?signature=secret", "TooManyRedirects"),
        ("ftp://me:secret@host/a?signature=a secret", "NonHttpUrlRedirectClientError"),
        ("http://[bad?signature=secret", "InvalidUrlRedirectClientError"),
    ],
)
def test_the_target_of_a_redirect_stands_in_no_message(site: Site, remote: Remote, target: str, kind: str) -> None:
    """Stores redirect to signed addresses."""
    uri = site.put("/a.jpg?signature=secret", Answer(status=302, headers={"Location": target}))

    with pytest.raises(OSError, match=kind) as raised:
        remote.read(uri, LIMITS)

    assert "secret" not in (raised.value.strerror or "")


# --- rate -------------------------------------------------------------------------------------------------------


def test_requests_are_spaced_evenly() -> None:
    """At four a second, each begins a quarter after the one before, however long that took; nothing is saved up."""
    now = [100.0]
    begun = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    rate = RateLimit(4, clock=lambda: now[0], sleep=sleep)
    for work_s in (0, 0, 0.125, 10, 0, 0):
        rate.wait()
        begun.append(now[0])
        now[0] += work_s

    assert begun == [100.0, 100.25, 100.5, 100.75, 110.75, 111.0]


def test_every_try_takes_its_turn(site: Site, sleeper: Sleeper) -> None:
    """Also those again, and those that only ask for the stamp."""
    uri = site.put("/a.jpg", Answer(status=500), Answer(PICTURE))
    turns = Sleeper()
    remote = Remote(rate=RateLimit(1, clock=lambda: 0.0, sleep=turns), sleep=sleeper)

    remote.read(uri, LIMITS)
    remote.stamp(uri)

    assert turns.slept == [1.0, 2.0]


# --- object stores ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Give an S3 bucket with a few objects."""
    with s3_server("pictures") as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        for key, content in {
            "in/b.jpg": PICTURE,
            "in/a b%20#?.jpg": PICTURE * 2,
            "in/deep/c.jpg": b"",
            "in/folder/": b"",
            "inner.jpg": b"x",
        }.items():
            client.put_object(Bucket="pictures", Key=key, Body=content)
        client.close()
        yield "s3://pictures"


def test_objects_are_listed_with_stamps(bucket: str, remote: Remote) -> None:
    """All below the folder, sorted, whatever their names hold; what shows a folder is left out."""
    found = dict(remote.files(f"{bucket}/in/"))

    assert {uri: stamp.byte_count for uri, stamp in found.items()} == {
        f"{bucket}/in/a b%20#?.jpg": 2 * len(PICTURE),
        f"{bucket}/in/b.jpg": len(PICTURE),
        f"{bucket}/in/deep/c.jpg": 0,
    }
    assert list(found) == sorted(found)
    assert found[f"{bucket}/in/b.jpg"] == remote.stamp(f"{bucket}/in/b.jpg")


def test_listing_goes_on_over_pages(bucket: str, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few objects a page has."""
    whole = list(remote.files(f"{bucket}/in/"))
    filesystem = remote._filesystem(bucket)
    call = filesystem.call_s3
    pages = []

    def call_for_two(method: str, **asked: object) -> object:
        pages.append(asked)
        return call(method, MaxKeys=2, **asked)

    monkeypatch.setattr(filesystem, "call_s3", call_for_two)

    assert list(remote.files(f"{bucket}/in/")) == whole
    assert len(pages) == 2


@pytest.mark.parametrize("name", ["in/b.jpg", "in/a b%20#?.jpg", "in/deep/c.jpg"])
def test_an_object_is_read(bucket: str, remote: Remote, name: str) -> None:
    """With its stamp from a listing, or asked for; also an empty one."""
    uri = f"{bucket}/{name}"
    stamp = dict(remote.files(f"{bucket}/in/"))[uri]

    listed, asked = remote.read(uri, LIMITS, stamp), remote.read(uri, LIMITS)

    assert listed == asked
    assert listed.stamp == stamp
    assert len(listed.content) == stamp.byte_count
    assert listed.content in PICTURE * 2


def test_an_object_that_is_too_large_is_not_read(bucket: str, remote: Remote) -> None:
    """By its size, and by its bytes where it grew since it was listed."""
    uri = f"{bucket}/in/b.jpg"

    for stamp in (None, Stamp(1, 1)):
        with pytest.raises(ImageTooManyBytes, match=r"^b\.jpg: "):
            remote.read(uri, ImageLimits(max_bytes=100), stamp)


@pytest.mark.parametrize("place", ["s3://pictures/in/no.jpg", "s3://no-such-bucket/a.jpg"])
def test_an_object_that_is_not_there_is_gone(bucket: str, remote: Remote, sleeper: Sleeper, place: str) -> None:
    """After one try."""
    assert remote.is_gone(place)
    assert not remote.is_gone(f"{bucket}/in/b.jpg")
    with pytest.raises(FileNotFoundError):
        remote.read(place, LIMITS)
    assert sleeper.slept == []


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("place", ["s3://pictures/nothing/", "s3://no-such-bucket/", "s3://no-such-bucket"])
def test_a_folder_in_which_nothing_is_is_not_there(remote: Remote, place: str) -> None:
    """Object stores know no empty folders."""
    with pytest.raises(FileNotFoundError):
        list(remote.files(place))


def test_a_store_that_is_away_is_tried_again(sleeper: Sleeper, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as the web, and no more: the store's own library does not multiply that."""
    with web_server() as closed:
        monkeypatch.setenv("AWS_ENDPOINT_URL", closed.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(OSError, match="after 4 tries"):
        remote.read("s3://pictures/a.jpg", LIMITS)

    assert len(sleeper.slept) == 3


def test_a_store_that_is_busy_is_asked_as_often_as_it_should(
    site: Site, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of our tries is one request."""
    slow_down = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    site.put("/pictures/a.jpg", Answer(slow_down, status=503))
    monkeypatch.setenv("AWS_ENDPOINT_URL", site.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(OSError, match="503 Service Unavailable, after 4 tries"):
        remote.read("s3://pictures/a.jpg", LIMITS, Stamp(10, 1))

    assert site.asked == {("GET", "/pictures/a.jpg"): 4}


def test_a_store_without_credentials_is_refused(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error tells so, at once."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    with pytest.raises(PermissionError, match="Unable to locate credentials"):
        list(remote.files("s3://pictures/"))


def test_any_filesystem_that_fsspec_knows_is_read(remote: Remote) -> None:
    """One in memory, for one."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/sources-test/in/a.jpg", PICTURE)
    try:
        found = dict(remote.files("memory://sources-test/in/"))

        assert list(found) == ["memory://sources-test/in/a.jpg"]
        assert remote.read("memory://sources-test/in/a.jpg", LIMITS).content == PICTURE
    finally:
        memory.rm("/sources-test", recursive=True)


def test_a_kind_of_place_that_nobody_knows_is_named(remote: Remote) -> None:
    """Before anything is asked for."""
    with pytest.raises(InvalidRequest, match="nonsense:// has a scheme that fsspec does not support"):
        remote.require("nonsense://a/b.jpg")


def test_a_library_that_is_missing_is_named(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # it may have been found before

    with pytest.raises(InvalidRequest, match=r"pip install 'whatwhere\[s3\]'"):
        remote.require("s3://pictures/a.jpg")


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://user:word@host/a.jpg", "netrc"),
        ("https://user@host/a.jpg", "netrc"),
        ("sftp://user:word@host/a.jpg", "password.* FSSPEC_SFTP_PASSWORD"),
        ("s3://", "has no bucket or host"),
        ("s3://bucket/a\x1b.jpg", "unprintable character"),
        ("s3://bucket/\ud800.jpg", "unprintable character"),
    ],
)
def test_a_uri_that_cannot_be_kept_is_refused(text: str, words: str) -> None:
    """With the remedy."""
    with pytest.raises(ValueError, match=words):
        normalized_uri(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("HTTPS://host/A.jpg#part", "https://host/A.jpg"),
        ("S3://bucket/a b#c?.jpg", "s3://bucket/a b#c?.jpg"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("s3://bucket/a:b@c.jpg", "s3://bucket/a:b@c.jpg"),
        ("abfs://photos@account.dfs.core.windows.net/a.jpg", "abfs://photos@account.dfs.core.windows.net/a.jpg"),
    ],
)
def test_a_uri_is_kept_as_it_is_written(text: str, kept: str) -> None:
    """But for the scheme's letters, and what browsers keep to themselves."""
    assert normalized_uri(text) == kept


def test_a_file_of_this_machine_is_read_as_ever(tmp_path: Path) -> None:
    """No store is asked."""
    path = tmp_path / "a b.jpg"
    path.write_bytes(PICTURE)

    assert read(path.as_uri(), LIMITS, replace(Remote(), policy=RetryPolicy(tries=1))) == Content(PICTURE)
