"""What a scan leaves out, and what each file that it passes over is called."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.exclusions import Exclusions
from whatwhere.indexer.sources.kinds import Skip, count_kinds, described
from whatwhere.indexer.sources.scan import Found, find

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def put(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def taken(root: Path, found: Found) -> list[str]:
    return sorted(uri.removeprefix(f"{root.as_uri()}/") for uri in found.pictures)


def kinds(root: Path, found: Found) -> dict[str, str]:
    return {uri.removeprefix(f"{root.as_uri()}/"): why.kind for uri, why in found.skipped.items()}


LIBRARY = {
    "._a.jpg": "AppleDouble",
    ".b.jpg": "hidden file",
    ".IMG_1.HEIC.icloud": "iCloud placeholder",
    ".cache/c.jpg": "hidden folder",
    "@eaDir/d.jpg": "system folder",
    "deep/#recycle/d.jpg": "system folder",
    "$Recycle.Bin/e.jpg": "system folder",
    ".Trash-1000/f.jpg": "system folder",
    ".stversions/g.jpg": "system folder",
    "phone/h.jpg": ".nomedia folder",
}


def library(root: Path) -> Path:
    put(root, "a.jpg", "deep/i.jpg", "phone/.nomedia", *LIBRARY)
    return root


def skipped_place(name: str, kind: str) -> str:
    """Return the file, or the folder that is left out as a whole, as a URI writes it."""
    folder, _, _ = name.rpartition("/")
    return (
        (f"{folder}/" if kind.endswith("folder") else name).replace("#", "%23").replace("$", "%24").replace("@", "%40")
    )


def test_what_is_no_photograph_of_a_person_is_left_out_by_name(tmp_path: Path) -> None:
    """Each with its kind; a folder is one entry, whatever is in it."""
    found = find([library(tmp_path)])

    assert taken(tmp_path, found) == ["a.jpg", "deep/i.jpg"]
    assert kinds(tmp_path, found) == {skipped_place(name, kind): kind for name, kind in LIBRARY.items()}
    assert all(why.by_rule for why in found.skipped.values())


def test_hidden_files_are_taken_when_asked_for(tmp_path: Path) -> None:
    """Not what belongs to a system, nor AppleDouble: these are never photographs."""
    found = find([library(tmp_path)], exclusions=Exclusions(include_hidden=True))

    assert taken(tmp_path, found) == [".b.jpg", ".cache/c.jpg", "a.jpg", "deep/i.jpg"]


def test_what_is_given_by_name_is_taken(tmp_path: Path) -> None:
    """Before or after the folder that it is in; a given folder is searched whatever it is called."""
    library(tmp_path)
    given = [tmp_path / "._a.jpg", tmp_path, tmp_path / ".b.jpg", tmp_path / "phone", tmp_path / "@eaDir"]

    found = find(given)

    assert taken(tmp_path, found) == ["%40eaDir/d.jpg", "._a.jpg", ".b.jpg", "a.jpg", "deep/i.jpg", "phone/h.jpg"]
    assert not {"phone/", "%40eaDir/", "._a.jpg", ".b.jpg"} & kinds(tmp_path, found).keys()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["drafts/"], ["a.jpg", "b.png", "deep/a.jpg"]),
        (["/a.jpg"], ["b.png", "deep/a.jpg", "deep/drafts/c.jpg", "drafts/d.jpg"]),
        (["*.jpg", "!a.jpg"], ["a.jpg", "b.png", "deep/a.jpg"]),
        (["deep/**"], ["a.jpg", "b.png", "drafts/d.jpg"]),
        (["DRAFTS/"], ["a.jpg", "b.png", "deep/a.jpg", "deep/drafts/c.jpg", "drafts/d.jpg"]),
    ],
    ids=" ".join,
)
def test_patterns_exclude_as_git_ignores(tmp_path: Path, patterns: Sequence[str], expected: list[str]) -> None:
    """Relative to the given folder; the reason names the pattern."""
    put(tmp_path, "a.jpg", "b.png", "deep/a.jpg", "deep/drafts/c.jpg", "drafts/d.jpg")

    found = find([tmp_path], exclusions=Exclusions(tuple(patterns)))

    assert taken(tmp_path, found) == expected
    assert {why.reason.removeprefix("excluded by the pattern ") for why in found.skipped.values()} <= set(patterns)


@pytest.mark.parametrize("pattern", ["#recycle", "", "!"])
def test_a_pattern_that_excludes_nothing_is_refused(pattern: str) -> None:
    """A comment of gitignore would do nothing without a word."""
    with pytest.raises(InvalidRequest, match=f"^--exclude {pattern!r} "):
        Exclusions((pattern,))


def test_a_link_to_a_folder_is_named(tmp_path: Path) -> None:
    """It is not followed, which is not silent."""
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)

    assert kinds(tmp_path, find([tmp_path])) == {"up/": "linked folder"}


def test_an_unknown_file_is_an_image_by_its_first_bytes(tmp_path: Path) -> None:
    """Without an extension, or with one that says nothing; a known one is believed."""
    put(tmp_path, "photo", "photo.bak2", "clip.mp4", content=JPEG)
    put(tmp_path, "README", "x.2019-backup-of-all", "scan.0001", "y.bin2", "empty", content=b"\xff\xd8")
    (tmp_path / "empty").write_bytes(b"")

    found = find([tmp_path])

    assert taken(tmp_path, found) == ["photo", "photo.bak2"]
    assert kinds(tmp_path, found) == {
        "README": "without extension",
        "empty": "without extension",
        "clip.mp4": ".mp4",
        "x.2019-backup-of-all": "other",
        "scan.0001": "other",
        "y.bin2": ".bin2",
    }
    assert found.skipped[(tmp_path / "clip.mp4").as_uri()].reason == "a video"


@pytest.mark.parametrize("kind", [".mp4", ".xmp", ".csv", ".zip", ".pdf", ".part"])
def test_the_reason_of_a_known_kind_is_its_own(tmp_path: Path, kind: str) -> None:
    """It says what the file is or what to do, not only that it is no image."""
    put(tmp_path, f"a{kind}")

    (why,) = find([tmp_path]).skipped.values()

    assert (why.kind, why.by_rule) == (kind, False)
    assert "first bytes" not in why.reason


def test_rules_are_told_from_unknown_contents(tmp_path: Path) -> None:
    """For images of earlier runs: also below a folder that is left out, never for one that is found."""
    put(tmp_path, ".hidden/deep/a.jpg", "b.dat", "c.jpg")

    found = find([tmp_path])

    names = (".hidden/deep/a.jpg", "b.dat", "c.jpg", "gone.jpg")
    assert [found.is_left_out((tmp_path / name).as_uri()) for name in names] == [True, False, False, False]


def test_kinds_of_a_summary_are_limited() -> None:
    """The most frequent 100; what is beyond is counted together."""
    skipped = [Skip(f".{number:03}x", "") for number in range(150)] + [Skip("other", ""), Skip(".mp4", "")] * 3

    found = count_kinds(skipped)

    assert len(found) == 100
    assert (found["other"], found[".mp4"]) == (3 + 52, 3)


def test_kinds_are_written_for_people() -> None:
    """With plurals, and the eleventh and all further kinds together."""
    many = {f".{letter}": 1 for letter in "abcdefghij"}

    assert (
        described({".dng": 1200, "hidden folder": 2, "system folder": 1})
        == "1,200 .dng, 2 hidden folders, 1 system folder"
    )
    assert described({**many, ".k": 3, ".l": 2}).endswith("1 .j, 5 of other kinds")
