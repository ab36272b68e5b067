"""Lists of pictures: each kind, here and elsewhere; and what is found at URIs of elsewhere."""

import datetime
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.object_store import s3_server
from tests.web_server import Answer, Site, web_server
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.exclusions import Exclusions
from whatwhere.indexer.sources.lists import ImageList
from whatwhere.indexer.sources.remote import Remote, RetryPolicy
from whatwhere.indexer.sources.scan import Found, find, gone, scan

REMOTE = Remote(RetryPolicy(tries=1))


def entries(path: Path) -> list[tuple[str, Any]]:
    return [tuple(entry) for entry in ImageList.at(path, str(path), REMOTE).entries()]


def parquet(path: Path, /, **columns: Any) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


# --- kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["list.txt", "LIST.LST"])
def test_a_text_names_a_picture_a_line(tmp_path: Path, name: str) -> None:
    """Paths are relative to the list; blank lines and comments say nothing; names need not be UTF-8."""
    path = tmp_path / name
    lines = [b"\xef\xbb\xbf# pictures", b"", b"  a b.jpg\r", b"s3://bucket/a b.jpg", b"/abs/c.jpg", b"caf\xe9.jpg"]
    path.write_bytes(b"\n".join([*lines, b"file:///d.jpg", b"HTTPS://host/e%20f.jpg"]))

    assert entries(path) == [
        ((tmp_path / "a b.jpg").as_uri(), None),
        ("s3://bucket/a b.jpg", None),
        ("file:///abs/c.jpg", None),
        (tmp_path.as_uri() + "/caf%E9.jpg", None),
        ("file:///d.jpg", None),
        ("https://host/e%20f.jpg", None),
    ]


def test_a_csv_says_what_is_known_of_pictures(tmp_path: Path) -> None:
    """Columns have the types that all their cells have, empty cells are absent; `uri` goes before `path`."""
    path = tmp_path / "list.csv"
    path.write_text("year,uri,path,ok\n1990,a.jpg,x,true\n,s3://b/c.jpg,y,false\n")

    assert entries(path) == [
        ((tmp_path / "a.jpg").as_uri(), {"year": 1990, "path": "x", "ok": True}),
        ("s3://b/c.jpg", {"path": "y", "ok": False}),
    ]


def test_json_lines_say_what_is_known_of_pictures(tmp_path: Path) -> None:
    """By `uri`, else by `path`."""
    path = tmp_path / "list.jsonl"
    path.write_text('{"uri": "a.jpg", "tags": ["x"]}\n\n{"path": "b.jpg"}\n')

    assert entries(path) == [
        ((tmp_path / "a.jpg").as_uri(), {"tags": ["x"]}),
        ((tmp_path / "b.jpg").as_uri(), {}),
    ]


def test_parquet_says_what_is_known_of_pictures(tmp_path: Path) -> None:
    """Times become text, what is no number is absent, and columns of bytes are passed over."""
    path = parquet(
        tmp_path / "list.parquet",
        path=["a.jpg", "b.jpg"],
        year=[1990, None],
        score=[0.5, float("nan")],
        taken=[datetime.datetime(2025, 7, 1, 12, tzinfo=datetime.UTC), None],
        day=[datetime.date(2025, 7, 1), None],
        price=[Decimal("1.25"), None],
        tags=[["x", "y"], []],
        place=[{"city": "Ulm"}, None],
        image=[b"\xff\xd8", b""],
        nested=[{"bytes": b"\xff"}, None],
    )

    (_, first), (_, second) = entries(path)

    assert first == {
        "year": 1990,
        "score": 0.5,
        "taken": "2025-07-01T12:00:00+00:00",
        "day": "2025-07-01",
        "price": 1.25,
        "tags": ["x", "y"],
        "place": {"city": "Ulm"},
    }
    assert second == {"tags": []}


def test_a_large_list_is_read_in_pieces(tmp_path: Path) -> None:
    """The first rows come before the last ones are read."""
    path = parquet(tmp_path / "list.parquet", uri=[f"{number}.jpg" for number in range(5000)])
    rows = ImageList.at(path, "list", REMOTE).entries()

    assert next(rows).uri.endswith("/0.jpg")
    assert sum(1 for _ in rows) == 4999


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.txt", b"a.jpg\nfolder/\n", r"l\.txt, line 2: 'folder/' is a folder"),
        ("l.txt", b"a.jpg\nhttps://me:word@host/b.jpg\n", r"l\.txt, line 2: .*netrc"),
        ("l.txt", b"a\x00.jpg\n", r"l\.txt, line 1: .* is not a file name"),
        ("l.csv", b"name\na.jpg\n", r"l\.csv, line 1: the key column 'uri' or 'path' is missing"),
        ("l.csv", b"uri\na.jpg\n./a.jpg\n", r"l\.csv, line 3: './a.jpg' is already in line 2"),
        ("l.csv", b"uri,x\n,1\n", r"l\.csv, line 2: '' names no image"),
        ("l.csv", b"uri,x\na.jpg,\xff\n", r"l\.csv, line 2: not UTF-8"),
        ("l.csv", b"uri,x:int\na.jpg,y\n", r"l\.csv, line 2: x 'y' is not a 64-bit integer"),
        ("l.jsonl", b'{"uri": "a.jpg"}\n{"uri": 1}\n', r"l\.jsonl, line 2: 1 names no image"),
        ("l.jsonl", b"[]\n", r"l\.jsonl, line 1: not a JSON object"),
        ("l.parquet", b"PAR1 torn", r"l\.parquet: the list is corrupt or not Parquet"),
    ],
)
def test_a_list_that_is_not_whole_is_named_by_its_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Before anything is done."""
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(InvalidRequest, match=words):
        find([path])


def test_a_row_of_parquet_is_named_by_its_number(tmp_path: Path) -> None:
    """And a list without a column that names pictures by the columns that would."""
    torn = parquet(tmp_path / "a.parquet", uri=["a.jpg", None])
    bare = parquet(tmp_path / "b.parquet", image=[b"\xff"])

    with pytest.raises(InvalidRequest, match=r"a\.parquet, row 2: None names no image"):
        find([torn])
    with pytest.raises(InvalidRequest, match=r"b\.parquet: the text column 'uri' or 'path' that names"):
        find([bare])


# --- found ------------------------------------------------------------------------------------------------------


def test_lists_folders_and_files_are_found_together(tmp_path: Path) -> None:
    """Each picture once, with the sidecars that lie beside; only folders and files are places that were searched."""
    (tmp_path / "in").mkdir()
    pictures = [tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg", tmp_path / "c.dat"]
    for path in (*pictures, tmp_path / "c.dat.json"):
        path.touch()
    (tmp_path / "list.txt").write_text("c.dat\nin/b.jpg\nhttps://host/x\n")

    found = find([tmp_path / "list.txt", str(tmp_path / "in"), pictures[2].as_uri()])

    assert list(found.pictures) == [pictures[2].as_uri(), pictures[1].as_uri(), "https://host/x", pictures[0].as_uri()]
    assert set(found.sidecars) == {pictures[2].as_uri()}
    assert found.places == [(tmp_path / "in").as_uri() + "/", pictures[2].as_uri()]
    assert not found.sidecar_is_known("https://host/x")
    assert found.sidecar_is_known(pictures[0].as_uri())


def test_what_needs_files_of_this_machine_says_so(tmp_path: Path) -> None:
    """By the first URI that is none."""
    (tmp_path / "list.txt").write_text("a.jpg\nhttps://host/x.jpg?key=secret\n")

    with pytest.raises(InvalidRequest, match=r"^https://host/x\.jpg\?… is remote"):
        scan([tmp_path / "list.txt"])


def test_large_ids_of_parquet_stay_apart(tmp_path: Path) -> None:
    """As decimals and as unsigned integers of 64 bits; what a number holds exactly stays a number."""
    ids = [12345678901234567890, 12345678901234567891, 7]
    path = parquet(
        tmp_path / "list.parquet",
        uri=[f"{number}.jpg" for number in range(3)],
        decimal=pa.array([Decimal(number) for number in ids], pa.decimal128(20, 0)),
        unsigned=pa.array(ids, pa.uint64()),
    )

    expected = [str(ids[0]), str(ids[1]), 7]
    assert [values["decimal"] for _, values in entries(path)] == expected
    assert [values["unsigned"] for _, values in entries(path)] == expected


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Give an S3 bucket of pictures, sidecars, lists and a collection."""
    with s3_server("album") as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        for key, content in {
            "in/b.JPG": b"b",
            "in/a.jpg": b"a",
            "in/a.jpg.json": b"{}",
            "in/stray.json": b"{}",
            "in/deep/c.png": b"c",
            "in/c.ww/x.jpg": b"x",
            "in/no\x1bise.jpg": b"n",
            "in/notes.md": b"n",
            "inside/d.jpg": b"d",
            **dict.fromkeys(
                [
                    f"rules/{name}"
                    for name in (
                        *(
                            "a.jpg",
                            "a.jpg.supplemental-metadata.json",
                            "a.xmp",
                            "._a.jpg",
                            "@eaDir/deep/t.jpg",
                            "b.gif",
                        ),
                        *("phone/.nomedia", "phone/c.jpg", "photo", "sub/a.jpg", "sub/drafts/d.jpg"),
                    )
                ],
                b"x",
            ),
            "lists/l.txt": b"../not/resolved.jpg\na.jpg\nhttps://host/b.jpg\n",
            "lists/local.txt": b"/etc/passwd\n",
            "lists/l.csv": json.dumps("uri").encode() + b",year\na.jpg,1990\n",
        }.items():
            client.put_object(Bucket="album", Key=key, Body=content)
        client.close()
        yield "s3://album"


@pytest.mark.parametrize("written", ["in/", "in"])
def test_a_folder_of_a_bucket_is_searched(bucket: str, written: str) -> None:
    """Suffixes decide, a collection in it is left out, sidecars are seen, and what else lies there is counted."""
    found = find([f"{bucket}/{written}"], skip=f"{bucket}/in/c.ww")

    assert list(found.pictures) == [f"{bucket}/in/{name}" for name in ("a.jpg", "b.JPG", "deep/c.png")]
    assert all(stamp is not None and stamp.byte_count == 1 for stamp in found.pictures.values())
    assert set(found.sidecars) == {f"{bucket}/in/a.jpg"}
    assert found.ignored == 3
    assert found.places == [f"{bucket}/in/"]
    assert all(found.sidecar_is_known(uri) for uri in found.pictures)


def test_a_folder_of_a_bucket_is_left_out_by_the_same_rules(bucket: str) -> None:
    """Hidden names, folders of systems, patterns and .nomedia; of other files only the name is known."""
    found = find([f"{bucket}/rules/"], exclusions=Exclusions(("drafts/", "*.gif")))

    assert list(found.pictures) == [f"{bucket}/rules/a.jpg", f"{bucket}/rules/sub/a.jpg"]
    assert found.sidecars == {f"{bucket}/rules/a.jpg": ("a.jpg.supplemental-metadata.json", "a.xmp")}
    assert {uri.removeprefix(f"{bucket}/rules/"): why.kind for uri, why in found.skipped.items()} == {
        "._a.jpg": "AppleDouble",
        "@eaDir/": "system folder",
        "b.gif": "excluded file",
        "phone/": ".nomedia folder",
        "photo": "without extension",
        "sub/drafts/": "excluded folder",
    }


def test_a_picture_of_a_bucket_is_found_by_its_name(bucket: str) -> None:
    """Whatever it is called; nothing is searched."""
    found = find([f"{bucket}/in/notes.md", f"{bucket}/in/no-such.jpg"])

    assert list(found.pictures) == [f"{bucket}/in/notes.md", f"{bucket}/in/no-such.jpg"]
    assert found.places == []


def test_a_list_of_a_bucket_names_what_lies_beside_it(bucket: str) -> None:
    """Or URIs; its columns are metadata."""
    found = find([f"{bucket}/lists/l.txt", f"{bucket}/lists/l.csv"])

    assert list(found.pictures) == [
        f"{bucket}/lists/../not/resolved.jpg",
        f"{bucket}/lists/a.jpg",
        "https://host/b.jpg",
    ]
    (manifest,) = found.manifests
    assert [tuple(entry) for entry in manifest.entries()] == [(f"{bucket}/lists/a.jpg", {"year": 1990})]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3://no-such-bucket/", "s3://no-such-bucket/ does not exist: check the bucket"),
        ("s3://album/nothing", "s3://album/nothing does not exist"),
        ("s3://album/nothing/", "s3://album/nothing/ does not exist"),
        ("s3://album/lists/no.csv", r"s3://album/lists/no\.csv cannot be read: not found"),
        ("s3://album/lists/local.txt", r"local\.txt, line 1: '/etc/passwd' is a local file"),
        ("https://me:word@host/a.jpg", "netrc"),
        ("ftp://me:word@host/a.jpg", "^ftp://…@host/a.jpg has a password, which would be stored: "),
        ("nonsense://a/", "a scheme that fsspec does not support"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_place_of_elsewhere_that_cannot_be_is_named(place: str, words: str) -> None:
    """With the remedy, and without a password."""
    with pytest.raises(InvalidRequest, match=words) as raised:
        find([place], remote=REMOTE)

    assert ":word@" not in str(raised.value)


def test_a_list_of_the_web_is_read(tmp_path: Path) -> None:
    """Its relative names are relative to itself, as links of a page are."""
    (tmp_path / "l.parquet").touch()
    content = parquet(tmp_path / "l.parquet", uri=["a.jpg", "/b.jpg"]).read_bytes()
    with web_server() as site:
        uri = site.put("/lists/l.parquet", Answer(content))

        found = find([uri], remote=REMOTE)

        assert list(found.pictures) == [f"{site.address}/lists/a.jpg", f"{site.address}/b.jpg"]
        assert site.asked == {("GET", "/lists/l.parquet"): 1}
        assert len(list(found.manifests[0].entries())) == 2


# --- gone -------------------------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Site]:
    """Give a web site."""
    with web_server() as served:
        yield served


def test_what_a_listing_would_show_is_gone_without_a_request(site: Site) -> None:
    """What is called otherwise is asked for."""
    there, away = site.put("/x/there", Answer(b"x")), site.address + "/x/away"

    found = gone([site.address + "/x/a.jpg", there, away], [], REMOTE)

    assert found == [site.address + "/x/a.jpg", away]
    assert site.asked == {("HEAD", "/x/there"): 1, ("HEAD", "/x/away"): 1}


def test_nothing_is_found_at_no_places() -> None:
    """And nothing of elsewhere is loaded for it."""
    assert find([]) == Found()
