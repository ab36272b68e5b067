"""What people and cameras say of pictures: tables, sidecars, EXIF."""

import io
import json
import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.exif import exif
from whatwhere.indexer.metadata import sidecars
from whatwhere.indexer.metadata.sidecars import read_sidecar
from whatwhere.indexer.metadata.tables import read_table, uri_of_key

# --- tables -----------------------------------------------------------------------------------------------------


def table(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_csv_gives_rows_by_their_keys(tmp_path: Path) -> None:
    """Keys come as they are written, quotes are CSV's."""
    path = table(tmp_path, 'path,label\na.jpg,boat\n"b, c.jpg","say ""hello"",\nworld"\n')

    assert read_table(path) == {"a.jpg": {"label": "boat"}, "b, c.jpg": {"label": 'say "hello",\nworld'}}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "-20", "0"), [1, -20, 0]),
        (("1", "2.5", "1e3"), [1.0, 2.5, 1000.0]),
        (("true", "FALSE", "True"), [True, False, True]),
        (("1", "two", "3"), ["1", "two", "3"]),
        (("007", "8", "9"), ["007", "8", "9"]),
        (("1", "true", "0"), ["1", "true", "0"]),
        (("nan", "inf", "1"), ["nan", "inf", "1"]),
        (("1e999", "1", "2"), ["1e999", "1", "2"]),
        (("9223372036854775808", "1", "2"), ["9223372036854775808", "1", "2"]),
        (("-9223372036854775809", "1", "2"), ["-9223372036854775809", "1", "2"]),
        (("9007199254740993", "9223372036854775807", "-9223372036854775808"), [2**53 + 1, 2**63 - 1, -(2**63)]),
        (("9007199254740992", "1.5", "2"), [9007199254740992.0, 1.5, 2.0]),
        (("9007199254740993", "1.5", "2"), ["9007199254740993", "1.5", "2"]),
        (("12345678901234567890", "12345678901234567891", "1"), ["12345678901234567890", "12345678901234567891", "1"]),
        (("12345678901234567890", "1.5", "2"), ["12345678901234567890", "1.5", "2"]),
        (("9" * 5000, "1", "2"), ["9" * 5000, "1", "2"]),
        (("2024-05-31", "2024-05-31T10:00:00Z", "2023-01-01"), ["2024-05-31", "2024-05-31T10:00:00Z", "2023-01-01"]),
        (("١", "1", "2"), ["١", "1", "2"]),
        ((" 5 ", "6", "7"), [5, 6, 7]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_type_of_a_column_is_that_of_all_its_cells(
    tmp_path: Path, cells: Sequence[str], expected: list[object]
) -> None:
    """One kind for a whole column, a string where a number would lose what is written."""
    lines = [f'{number}.jpg,"{cell}"' for number, cell in enumerate(cells)]
    path = table(tmp_path, "\n".join(["path,value", *lines]))

    found = [row["value"] for row in read_table(path).values()]

    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_an_empty_cell_is_absent(tmp_path: Path) -> None:
    """Neither an empty string nor a reason to take a column for strings; a row without values is still a row."""
    path = table(tmp_path, "path,year,label\na.jpg,,x\nb.jpg,1999,\nc.jpg,, \n")

    assert read_table(path) == {"a.jpg": {"label": "x"}, "b.jpg": {"year": 1999}, "c.jpg": {}}


@pytest.mark.parametrize(
    ("header", "cell", "expected"),
    [
        ("n:string", "007", "007"),
        ("n:int", "+007", 7),
        ("n:int", "-9223372036854775808", -(2**63)),
        ("n:float", "3", 3.0),
        ("n:float", ".5", 0.5),
        ("n:bool", "yes", True),
        ("n:bool", "0", False),
        ("n:time", "2024-05-31", "2024-05-31"),
        ("n:time", "2024-05-31T23:59:59.5+02:00", "2024-05-31T23:59:59.5+02:00"),
        ("n:time", "2024-05-31T23:59:59", "2024-05-31T23:59:59"),
    ],
)
def test_a_column_may_say_its_type(tmp_path: Path, header: str, cell: str, expected: object) -> None:
    """What is written after the last colon decides."""
    found = read_table(table(tmp_path, f"path,{header}\na.jpg,{cell}\n"))["a.jpg"]["n"]

    assert (found, type(found)) == (expected, type(expected))


def test_a_name_may_hold_a_colon_when_it_says_its_type(tmp_path: Path) -> None:
    """Only the last colon parts name and type."""
    assert read_table(table(tmp_path, "path,dc:title:string\na.jpg,5\n")) == {"a.jpg": {"dc:title": "5"}}


def test_a_mark_of_byte_order_and_carriage_returns_do_not_show(tmp_path: Path) -> None:
    """Tables that a spreadsheet saved."""
    path = table(tmp_path, b"\xef\xbb\xbfpath,year\r\na.jpg,2024\r\n\r\n")

    assert read_table(path) == {"a.jpg": {"year": 2024}}


SPREADSHEET = "path;label;size\r\na.jpg;boat, red;1,5\r\nb.jpg;;2\r\n"


@pytest.mark.parametrize(
    "content",
    [
        SPREADSHEET.encode(),
        SPREADSHEET.encode("utf-8-sig"),
        SPREADSHEET.encode("utf-16"),
        b"\xfe\xff" + SPREADSHEET.encode("utf-16-be"),
        b"sep=;\r\n" + SPREADSHEET.encode(),
        b'\xef\xbb\xbf"sep=;"\r\n' + SPREADSHEET.encode(),
        SPREADSHEET.replace(";", "\t").encode("utf-16"),
        b"SEP=|\n" + SPREADSHEET.replace(";", "|").encode(),
        SPREADSHEET.replace("path;", '"path:string";').encode(),
    ],
    ids=["semicolon", "with a mark", "UTF-16", "big-endian", "announced", "in quotes", "tab", "bar", "typed"],
)
def test_the_delimiter_is_that_which_shows_the_key_column(tmp_path: Path, content: bytes) -> None:
    """Or the one that Excel's first line announces; a number with a comma stays text."""
    assert read_table(table(tmp_path, content)) == {
        "a.jpg": {"label": "boat, red", "size": "1,5"},
        "b.jpg": {"size": "2"},
    }


def test_a_semicolon_in_a_table_of_commas_parts_nothing(tmp_path: Path) -> None:
    """The comma is tried first; cells after the header do not count."""
    path = table(tmp_path, "a;b,path,c\n1;2,a.jpg,x;y\n")

    assert read_table(path) == {"a.jpg": {"a;b": "1;2", "c": "x;y"}}


def test_lines_are_counted_from_the_announcement(tmp_path: Path) -> None:
    """As an editor shows them."""
    with pytest.raises(InvalidRequest, match="line 4: 1 cells, but the header has 2"):
        read_table(table(tmp_path, "sep=;\npath;year\na.jpg;1\nb.jpg\n"))


def test_a_torn_table_in_utf_16_is_refused(tmp_path: Path) -> None:
    """By the line where the pair of bytes is missing."""
    with pytest.raises(InvalidRequest, match="line 2: not UTF-16"):
        read_table(table(tmp_path, SPREADSHEET.replace("\r", "").encode("utf-16")[:-21]))


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    """Lists and objects too; null is absent; a line separator inside a string parts nothing."""
    path = table(
        tmp_path,
        '{"path": "a.jpg", "year": 2024, "tags": ["x", "y"], "place": {"city": "Bonn"}, "gone": null}\n\n'
        '{"path": "b.jpg", "text": "one\u2028two"}',
        "table.jsonl",
    )

    assert read_table(path) == {
        "a.jpg": {"year": 2024, "tags": ["x", "y"], "place": {"city": "Bonn"}},
        "b.jpg": {"text": "one\u2028two"},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the key column 'path' is missing"),
        ("name,year\na.jpg,1\n", "line 1: the key column 'path' is missing"),
        ("path,\na.jpg,1\n", "line 1: column 2 has no name"),
        ("path,a,a\na.jpg,1,2\n", "line 1: column 3 repeats the name 'a'"),
        ("path,year:integer\na.jpg,1\n", "line 1: 'year:integer' has an unknown type: use one of string, int, float"),
        ("path,year\na.jpg,1\nb.jpg\n", "line 3: 1 cells, but the header has 2"),
        ("path,year\na.jpg,1,2\n", "line 2: 3 cells, but the header has 2"),
        ('path,year\na.jpg,1\nb.jpg,"torn\n', "line 3: unexpected end of data: the table is truncated"),
        ("path,year:int\na.jpg,1\n\nb.jpg,x\n", "line 4: year 'x' is not a 64-bit integer"),
        ('path,a,year:int\na.jpg,"two\nlines",1\nb.jpg,,x\n', "line 4: year 'x' is not a 64-bit integer"),
        ("path,t:time\na.jpg,31.5.2024\n", "line 2: t '31.5.2024' is neither an RFC 3339 timestamp nor a date"),
        ("path,t:time\na.jpg,2024-02-30\n", "line 2: t '2024-02-30' is neither"),
        ("path,b:bool\na.jpg,maybe\n", "line 2: b 'maybe' is neither true nor false"),
        ("path,f:float\na.jpg,nan\n", "line 2: f 'nan' is not a finite number"),
        ("path,f:float\na.jpg,1_0\n", "line 2: f '1_0' is not a finite number"),
        ("path,i:int\na.jpg,9223372036854775808\n", "line 2: i '9223372036854775808' is not a 64-bit integer"),
        ("path,year\n ,1\n", "line 2: 'path' is missing, empty or not text"),
        ("path,year\na.jpg,1\nb.jpg,2\na.jpg,3\n", "line 4: 'a.jpg' is already in line 2"),
        ("path,year\na.jpg,1\n./x/../a.jpg,3\n", "line 3: './x/../a.jpg' is already in line 2"),
        ("path,text\na.jpg,a\0b\n", "line 2: text: a string contains a NUL|line contains NUL"),
        (b"path,year\na.jpg,1\ncaf\xe9.jpg,2\n", "line 3: not UTF-8"),
    ],
)
def test_a_csv_that_is_not_whole_is_refused_with_the_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    """The error names the table, the line and what is wrong."""
    path = table(tmp_path, text)

    with pytest.raises(InvalidRequest, match=words) as raised:
        read_table(path)

    assert str(raised.value).startswith(str(path))
    assert raised.value.field == "metadata"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"path": "b.jpg", "ye', "not JSON"),
        ("[]", "not a JSON object"),
        ('{"year": 1}', "'path' is missing, empty or not text"),
        ('{"path": 5}', "'path' is missing, empty or not text"),
        ('{"path": "a.jpg"}', "'a.jpg' is already in line 1"),
        ('{"path": "b.jpg", "x": NaN}', "x: a number is not finite"),
        ('{"path": "b.jpg", "x": 1e999}', "x: a number is not finite"),
        ('{"path": "b.jpg", "x": [9223372036854775808]}', "x: a number is not finite or exceeds 64 bits"),
        ('{"path": "b.jpg", "x": "\\ud800"}', "x: a string contains a NUL character or a lone surrogate"),
        ('{"path": "b.jpg", "x": {"y": "\\u0000"}}', "x: y: a string contains a NUL character or a lone surrogate"),
        ('{"path": "b.jpg", " ": 1}', "' ' is not a valid field name"),
        ('{"path": "b.jpg", "x": ' + "[" * 17 + "]" * 17 + "}", "nested more than 16 deep"),
        ('{"path": "b.jpg", "x": ' + "[" * 100_000, "not JSON"),
        ('{"path": "b.jpg", "x": [' + ",".join("1" * 1001) + "]}", "1001 values, the limit is 1000"),
        ('{"path": "b.jpg", "x": 1' + "0" * 5000 + "}", "not JSON"),
    ],
)
def test_a_line_that_is_not_whole_is_refused_by_its_number(tmp_path: Path, line: str, words: str) -> None:
    """The second line of JSON lines."""
    path = table(tmp_path, '{"path": "a.jpg"}\n' + line, "table.jsonl")

    with pytest.raises(InvalidRequest, match=words) as raised:
        read_table(path)

    assert str(raised.value).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("table.xlsx", r"the file extension must be \.csv, \.jsonl or \.ndjson"),
        ("nowhere.csv", "cannot be read: No such file"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, words: str) -> None:
    """By its suffix, or because it is not there."""
    with pytest.raises(InvalidRequest, match=words):
        read_table(tmp_path / name)


def test_no_bytes_raise_anything_but_the_named_error(tmp_path: Path) -> None:
    """Two good tables with bytes changed, dropped and doubled at random."""
    generator = random.Random(3)
    tables = {
        "t.csv": b'path,year:int,label\na.jpg,2024,"x"\nb.jpg,1,y\nfile:///c.jpg,,z\n',
        "t.jsonl": b'{"path": "a.jpg", "x": [1, {"y": -2.5e3}]}\n{"path": "b.jpg", "z": "\\u00e9"}\n',
    }
    refused = 0

    for _ in range(1500):
        name = generator.choice(sorted(tables))
        content = bytearray(tables[name])
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(content))
            content[place : place + generator.randint(0, 3)] = generator.randbytes(generator.randint(0, 2))
        try:
            read_table(table(tmp_path, bytes(content), name))
        except InvalidRequest:
            refused += 1

    assert 300 < refused < 1500


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.jpg", "file:///photos/a.jpg"),
        ("sub/../b c.jpg", "file:///photos/b%20c.jpg"),
        ("../a.jpg", "file:///a.jpg"),
        ("/elsewhere/é.jpg", "file:///elsewhere/%C3%A9.jpg"),
        ("file:///photos/b%20c.jpg", "file:///photos/b%20c.jpg"),
        ("file:///elsewhere/%c3%a9.jpg", "file:///elsewhere/%C3%A9.jpg"),
        ("file:///caf%E9.jpg", "file:///caf%E9.jpg"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("a:b.jpg", "file:///photos/a%3Ab.jpg"),
    ],
)
def test_a_key_is_a_uri_or_a_path(key: str, expected: str) -> None:
    """Relative paths begin at the table's folder; spellings of one file meet."""
    assert uri_of_key(key, Path("/photos")) == expected


def test_a_relative_table_names_files_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the directory that the command was started in, unless that is the same."""
    monkeypatch.chdir(tmp_path)

    assert uri_of_key("a.jpg", Path("deep")) == (tmp_path / "deep" / "a.jpg").as_uri()


# --- sidecars ---------------------------------------------------------------------------------------------------


def test_a_sidecar_is_one_object(tmp_path: Path) -> None:
    """Nulls are absent, all else stays as it is."""
    path = tmp_path / "a.jpg.json"
    path.write_text(json.dumps({"label": "boat", "rating": 4.5, "tags": ["a"], "none": None}), encoding="utf-8")

    assert read_sidecar(path).values == {"label": "boat", "rating": 4.5, "tags": ["a"]}


def torn(path: Path) -> None:
    path.write_text('{"label": "bo')


def a_list(path: Path) -> None:
    path.write_text("[1]")


def too_large(path: Path) -> None:
    path.write_text(" " * sidecars.MAX_SIDECAR_BYTES + "{}")


def bad_bytes(path: Path) -> None:
    path.write_bytes(b'{"label": "\xff"}')


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (torn, "not JSON"),
        (a_list, "not a JSON object"),
        (too_large, r"cannot be read: 1,048,578 bytes, the limit is 1,048,576"),
        (bad_bytes, "not JSON"),
        (os.mkfifo, "cannot be read: is a pipe, not a regular file"),
        (Path.mkdir, "cannot be read: is a directory, not a regular file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels"),
        (lambda _: None, "cannot be read: No such file"),
    ],
    ids=["torn", "list", "too large", "bytes", "pipe", "folder", "loop", "absent"],
)
def test_a_sidecar_that_cannot_be_read_is_named(tmp_path: Path, make: object, words: str) -> None:
    """One error for all that may be wrong, and nothing waits for a pipe."""
    path = tmp_path / "a.jpg.json"
    make(path)  # type: ignore[operator]

    with pytest.raises(InvalidRequest, match=f"^a.jpg.json: {words}"):
        read_sidecar(path)


# --- EXIF -------------------------------------------------------------------------------------------------------

# The layout of TIFF, written by hand: what a camera writes, not what the library under test would.
ASCII, LONG, RATIONAL = 2, 4, 5
MAKE, MODEL, MODIFIED, EXIF_IFD, GPS_IFD = 0x010F, 0x0110, 0x0132, 0x8769, 0x8825
ORIGINAL, DIGITIZED, ORIGINAL_OFFSET, DIGITIZED_OFFSET = 0x9003, 0x9004, 0x9011, 0x9012
Entries = dict[int, "str | bytes | list[tuple[int, int]]"]


def ifd(start: int, entries: Entries, pointers: dict[int, int] | None = None) -> bytes:
    """Return one directory that stands at `start`, its longer values behind it."""
    fields, values = b"", b""
    pointers = pointers or {}
    behind = start + 2 + 12 * (len(entries) + len(pointers)) + 4
    for tag in sorted([*entries, *pointers]):
        if tag in pointers:
            fields += struct.pack("<HHII", tag, LONG, 1, pointers[tag])
            continue
        value = entries[tag]
        if isinstance(value, list):
            kind, count, content = RATIONAL, len(value), b"".join(struct.pack("<II", *pair) for pair in value)
        else:
            text = value.encode() + b"\0" if isinstance(value, str) else value
            kind, count, content = ASCII, len(text), text
        if len(content) <= 4:
            fields += struct.pack("<HHI", tag, kind, count) + content.ljust(4, b"\0")
        else:
            fields += struct.pack("<HHII", tag, kind, count, behind + len(values))
            values += content + b"\0" * (len(content) % 2)
    return struct.pack("<H", len(entries) + len(pointers)) + fields + bytes(4) + values


def block(main: Entries, inner: Entries | None = None, gps: Entries | None = None) -> bytes:
    """Return an EXIF block of a main directory and, where given, the camera's and the position's."""
    parts: dict[int, Entries] = {tag: part for tag, part in ((EXIF_IFD, inner), (GPS_IFD, gps)) if part is not None}
    length = len(ifd(8, main, dict.fromkeys(parts, 0)))
    pointers, content = {}, b""
    for tag, part in parts.items():
        pointers[tag] = 8 + length + len(content)
        content += ifd(pointers[tag], part)
    return b"II*\0\x08\0\0\0" + ifd(8, main, pointers) + content


def picture(exif_block: bytes, kind: str = "JPEG") -> bytes:
    """Return an encoded picture with this block."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, kind, exif=b"Exif\0\0" + exif_block)
    return buffer.getvalue()


NIKON: Entries = {MAKE: "NIKON CORPORATION", MODEL: "NIKON D70"}
NEW_YORK: Entries = {1: "N", 2: [(40, 1), (41, 1), (2130, 100)], 3: "W", 4: [(74, 1), (2, 1), (402, 10)]}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_time_and_camera_are_read_from_every_format_that_has_them(kind: str) -> None:
    """Whatever the picture's format, without a position."""
    content = picture(block(NIKON, {ORIGINAL: "2008:10:22 16:28:39"}, NEW_YORK), kind)

    assert exif(content) == {
        "taken_time": "2008-10-22T16:28:39",
        "camera_make": "NIKON CORPORATION",
        "camera_model": "NIKON D70",
    }


def test_the_position_is_read_when_asked_for() -> None:
    """In degrees; south and west are negative."""
    content = picture(block({}, None, NEW_YORK))

    found = exif(content, gps=True)

    assert found == {
        "latitude": pytest.approx(40.689250, abs=1e-6),
        "longitude": pytest.approx(-74.044500, abs=1e-6),
    }
    assert exif(content) == {}


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ({ORIGINAL: "2024:05:31 10:00:00", ORIGINAL_OFFSET: "+02:00"}, "2024-05-31T10:00:00+02:00"),
        ({ORIGINAL: "2024:05:31 10:00:00", ORIGINAL_OFFSET: "Z"}, "2024-05-31T10:00:00Z"),
        ({ORIGINAL: "2024:05:31 10:00:00", ORIGINAL_OFFSET: "   :  "}, "2024-05-31T10:00:00"),
        ({ORIGINAL: "2024:05:31 10:00:00", DIGITIZED_OFFSET: "+02:00"}, "2024-05-31T10:00:00"),
        ({ORIGINAL: "2024:05:31 10:00:00", DIGITIZED: "2001:01:01 00:00:00"}, "2024-05-31T10:00:00"),
        ({DIGITIZED: "2024:05:31 10:00:00", DIGITIZED_OFFSET: "-03:30"}, "2024-05-31T10:00:00-03:30"),
        ({ORIGINAL: "0000:00:00 00:00:00", DIGITIZED: "2024:05:31 10:00:00"}, "2024-05-31T10:00:00"),
        ({ORIGINAL: "2024-05-31T10:00:00"}, "2024-05-31T10:00:00"),
        ({ORIGINAL: "0000:00:00 00:00:00"}, None),
        ({ORIGINAL: "2024:02:30 10:00:00"}, None),
        ({ORIGINAL: "    :  :     :  :  "}, None),
        ({ORIGINAL: b"\xff\xfe\0junk"}, None),
        ({}, None),
    ],
)
def test_a_time_is_that_of_the_shutter(inner: Entries, expected: str | None) -> None:
    """When the picture was taken, else digitised, never when the file was saved; none where the clock was not set."""
    content = picture(block({MODIFIED: "1999:01:01 00:00:00"}, inner))

    assert exif(content).get("taken_time") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Canon", "Canon"),
        ("Canon      ", "Canon"),
        (b"Canon\0\0garbage\0", "Canon"),
        (b"Can\x01\x07on\0", "Canon"),
        ("x" * 5000, "x" * 200),
        ("   ", None),
    ],
)
def test_texts_are_cleaned(written: str | bytes, expected: str | None) -> None:
    """Padding, control characters and what follows a NUL do not reach the catalogue."""
    assert exif(picture(block({MAKE: written}))).get("camera_make") == expected


@pytest.mark.parametrize(
    "gps",
    [
        NEW_YORK | {2: [(91, 1), (0, 1), (0, 1)]},
        NEW_YORK | {2: [(0, 0), (0, 0), (0, 0)]},
        NEW_YORK | {4: [(74, 1), (2, 1)]},
        NEW_YORK | {3: "?"},
        {1: "N", 2: [(40, 1), (41, 1), (0, 1)]},
        {},
    ],
    ids=["beyond the pole", "nought by nought", "no seconds", "no hemisphere", "no longitude", "nothing"],
)
def test_a_position_that_cannot_be_is_none(gps: Entries) -> None:
    """Half a position is none either."""
    assert exif(picture(block({}, None, gps)), gps=True) == {}


def test_nought_and_nought_is_no_position() -> None:
    """What a camera without a fix writes; on the equator or the meridian there are places."""
    nought, somewhere = [(0, 1), (0, 1), (0, 1)], [(7, 1), (30, 1), (0, 1)]
    positions = [
        exif(picture(block({}, None, {1: "N", 2: latitude, 3: "E", 4: longitude})), gps=True)
        for latitude, longitude in ((nought, nought), (nought, somewhere), (somewhere, nought))
    ]

    assert positions == [{}, {"latitude": 0, "longitude": 7.5}, {"latitude": 7.5, "longitude": 0}]


@pytest.mark.parametrize(
    ("latitude", "expected"),
    [
        ([(40, 1), (30, 1), (0, 0)], 40.5),
        ([(40, 1), (30, 0), (36, 1)], 40.01),
        ([(40, 0), (30, 1), (36, 1)], None),
    ],
)
def test_a_zero_denominator_costs_its_component(latitude: list[tuple[int, int]], expected: float | None) -> None:
    """Seconds or minutes; without degrees there is nothing to add them to."""
    found = exif(picture(block(NIKON, None, NEW_YORK | {2: latitude})), gps=True)

    assert found.get("latitude") == expected
    assert found["camera_model"] == "NIKON D70"


def test_a_torn_position_leaves_the_time() -> None:
    """What was read before the torn part is kept."""
    content = picture(block(NIKON, {ORIGINAL: "2024:05:31 10:00:00"}, NEW_YORK | {2: [(40, 1), (41, 1)]}))

    assert exif(content, gps=True).keys() == {"taken_time", "camera_make", "camera_model"}


def test_chunks_of_webp_are_padded_to_even_lengths() -> None:
    """The block is found behind a chunk of one byte."""
    found = block(NIKON)
    content = b"RIFF\0\0\0\0WEBPICCP\1\0\0\0x\0EXIF" + struct.pack("<I", len(found)) + found

    assert exif(content) == {"camera_make": "NIKON CORPORATION", "camera_model": "NIKON D70"}


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n\xff\xff", b"RIFF\0\0\0\0WEBPEXIF\xff"])
def test_what_is_no_picture_has_no_exif(content: bytes) -> None:
    """Nothing is raised."""
    assert exif(content, gps=True) == {}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of blocks that are torn
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_torn_blocks_raise_nothing(kind: str) -> None:
    """Every byte of the block changed, one after the other, and the file cut at every length."""
    whole = picture(block(NIKON, {ORIGINAL: "2008:10:22 16:28:39"}, NEW_YORK), kind)
    begin = whole.index(b"II*\0")

    found = [exif(whole[:place] + b"\xff" + whole[place + 1 :], gps=True) for place in range(begin, begin + 250)]
    found += [exif(whole[:length], gps=True) for length in range(0, len(whole), 3)]

    known = {"taken_time", "camera_make", "camera_model", "latitude", "longitude"}
    assert all(values.keys() <= known for values in found)
