"""A library that moved: found again, pruned, or relocated, by real commands on real files."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import boto3
import numpy as np
import pytest
from PIL import Image

from tests.commands import run, run_afresh
from tests.object_store import s3_server
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.pipeline import vanished
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.local.collection import open_local

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(40)]
NAMES = ("a b.jpg", normalize("NFD", "M\u00fcller.jpg"), "x@1#2?.jpg")
SETTINGS = IndexSettings(descriptors=("what",))
WIDE = {"COLUMNS": "500"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of three pictures in `old/My Pictures`, the first with a sidecar."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "old" / "My Pictures").mkdir(parents=True)
    random = np.random.default_rng(5)
    for name in NAMES:
        pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(folder / "old" / "My Pictures" / name)
    (folder / "old" / "My Pictures" / "a b.jpg.json").write_text('{"label": "boat"}')
    return folder


@pytest.fixture
def library(tmp_path: Path, made: Path) -> Path:
    """Give a copy with a collection of it, `c.ww`."""
    shutil.copytree(made / "old", tmp_path / "old")
    index_paths([tmp_path / "old"], tmp_path / "c.ww", SETTINGS)
    return tmp_path


def places(library: Path) -> list[tuple[str, ...]]:
    """Return the URIs of every image, without the collection's folder."""
    with Catalog.open(Layout(library / "c.ww").catalog) as catalog:
        return [tuple(uri.removeprefix(library.as_uri()) for uri in image.uris) for image in catalog.images()]


def below(folder: str) -> list[str]:
    return sorted((Path("/") / folder / "My Pictures" / name).as_uri().removeprefix("file://") for name in NAMES)


def shown(library: Path, *arguments: str) -> str:
    done = run(*arguments, "-c", library / "c.ww", environment={**os.environ, **WIDE})
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- found again --------------------------------------------------------------------------------------------------


def test_a_moved_library_shows_its_new_places(library: Path) -> None:
    """Only the new folder is indexed: nothing is described again; the old places come last until they are pruned."""
    (library / "old").rename(library / "new")

    summary = index_paths([library / "new"], library / "c.ww", SETTINGS)
    again = index_paths([library / "new"], library / "c.ww", SETTINGS)
    found = [uris[0] for uris in places(library)]
    pruned = index_paths([library / "old"], library / "c.ww", IndexSettings(descriptors=("what",), prune=True))

    assert (summary.progress.duplicates, summary.progress.described, len(summary.moved)) == (3, 0, 3)
    assert (again.moved, again.vanished) == ((), ())
    assert sorted(found) == below("new")
    assert (pruned.pruned, len(pruned.vanished), pruned.images) == (True, 3, 3)
    assert sorted(places(library)) == [(uri,) for uri in below("new")]


def test_a_copy_that_outlives_the_original_is_shown(library: Path) -> None:
    """The original goes, and the next run over the copy finds that out; a local answer does even before."""
    shutil.copytree(library / "old", library / "copy")
    index_paths([library / "copy"], library / "c.ww", SETTINGS)
    shutil.rmtree(library / "old")

    with open_local(str(library / "c.ww")) as collection:
        answer = collection.search("images/1")
    index_paths([library / "copy"], library / "c.ww", SETTINGS)

    assert all(hit.image.uri.startswith((library / "copy").as_uri()) for hit in answer.hits)
    assert sorted(uris[0] for uris in places(library)) == below("copy")


def test_a_place_without_images_is_a_mistake(library: Path) -> None:
    """Also a place whose parent is not there; nothing is written."""
    for path, message in (
        (library / "odl", "has no image of it"),
        (library / "odl" / "x", "its parent folder neither"),
    ):
        done = run("index", path, "--prune", "-c", library / "c.ww")

        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
    assert len(places(library)) == 3


def test_a_disk_that_is_not_mounted_does_not_empty_the_collection(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mount point is empty or gone; images that are elsewhere, too, are not lost, and their old places go."""
    disk, prune = library / "old", IndexSettings(descriptors=("what",), prune=True)
    (library / "fstab").write_text(f"# disks\nUUID=1 {str(disk).replace(' ', chr(92) + '040')} ext4 defaults 0 2\n")
    monkeypatch.setattr(vanished, "FSTAB", library / "fstab")
    disk.rename(library / "away")
    disk.mkdir()

    by_name = index_paths([disk], library / "c.ww", prune)
    from_above = index_paths([library], library / "c.ww", IndexSettings(descriptors=("what",), prune=True))

    assert (by_name.vanished, by_name.unlisted, by_name.images) == ((), (f"{disk.as_uri()}/",), 3)
    assert "kept images=3" in caplog.text
    assert (len(from_above.vanished), from_above.images) == (3, 3)


def test_a_place_that_is_gone_with_its_neighbours_is_in_doubt(library: Path) -> None:
    """An empty parent folder looks like a mount point."""
    (library / "disk").mkdir()
    (library / "old").rename(library / "disk" / "old")
    index_paths([library / "disk"], library / "d.ww", SETTINGS)
    shutil.rmtree(library / "disk" / "old")

    kept = index_paths([library / "disk" / "old"], library / "d.ww", IndexSettings(descriptors=("what",), prune=True))
    (library / "disk" / "other").touch()
    gone = index_paths([library / "disk" / "old"], library / "d.ww", IndexSettings(descriptors=("what",), prune=True))

    assert (kept.images, gone.images) == (3, 0)


# --- told ---------------------------------------------------------------------------------------------------------


def test_a_library_is_told_where_it_is(library: Path) -> None:
    """Names of the other normalization form are found, metadata follows, and nothing is described again."""
    (library / "old").rename(library / "new")
    pictures = library / "new" / "My Pictures"
    (pictures / NAMES[1]).rename(pictures / normalize("NFC", NAMES[1]))

    done = run_afresh("relocate", library / "old", library / "new", "-c", library / "c.ww")
    after = index_paths([library / "new"], library / "c.ww", SETTINGS)

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "relocated 3; compared 3, different 0")
    assert (after.progress.unchanged, after.vanished, after.metadata_changed) == (3, (), 0)
    assert {uris[0] for uris in places(library)} == {
        path.as_uri().removeprefix(library.as_uri()) for path in pictures.glob("*.jpg")
    }
    listed = shown(library, "images", "--filter", "label = boat AND uri = '*/new/My Pictures/*'")
    assert f"{pictures}/a b.jpg" in listed


def test_a_reader_that_is_open_sees_the_new_places(library: Path) -> None:
    """A server answers with them at once; the generation stays, since its vectors do."""
    with open_collection(library / "c.ww") as reader:
        (library / "old").rename(library / "new")
        done = run("relocate", library / "old", library / "new", "-c", library / "c.ww", "--json")
        found = sorted(
            image.uris[0].removeprefix(library.as_uri()) for image in reader.indexed_images([1, 2, 3]).values()
        )

    assert json.loads(done.stdout)["generation"] == 1
    assert found == below("new")


def test_nothing_is_written_if_files_differ(library: Path) -> None:
    """All of them are named; the user can accept them, or look first."""
    (library / "old").rename(library / "new")
    (library / "new" / "My Pictures" / "a b.jpg").unlink()
    (library / "new" / "My Pictures" / NAMES[2]).write_bytes(b"other")
    command = ("relocate", library / "old", library / "new", "-c", library / "c.ww")

    refused = run(*command, environment={**os.environ, **WIDE})
    looked = run(*command, "--dry-run", "--accept", "2")
    before = places(library)
    unchecked = json.loads(run(*command, "--check", "0", "--dry-run", "--json").stdout)
    accepted = json.loads(run(*command, "--accept", "2", "--json").stdout)

    assert (refused.returncode, looked.returncode) == (1, 0)
    assert f"{library}/new/My Pictures/a b.jpg: does not exist" in refused.stderr
    assert f"{library}/new/My Pictures/x@1#2?.jpg: has other content" in refused.stderr
    assert sorted(uris[0] for uris in before) == below("old")
    assert (unchecked["checked"], unchecked["written"]) == (0, False)
    assert (accepted["written"], len(accepted["differences"]), accepted["sources"]) == (True, 2, 3)
    assert sorted(uris[0] for uris in places(library)) == below("new")


def test_images_that_are_there_already_are_merged(library: Path) -> None:
    """The same image keeps one place; other content that was recorded there is named, and stays."""
    (library / "old").rename(library / "new")
    pictures = library / "new" / "My Pictures"
    index_paths([pictures / "a b.jpg"], library / "c.ww", SETTINGS)
    content = (pictures / NAMES[2]).read_bytes()
    shutil.copy(pictures / "a b.jpg", pictures / NAMES[2])
    index_paths([pictures / NAMES[2]], library / "c.ww", SETTINGS)
    (pictures / NAMES[2]).write_bytes(content)
    command = ("relocate", library / "old", library / "new", "-c", library / "c.ww", "--json")

    refused = json.loads(run(*command).stdout)
    done = json.loads(run(*command, "--accept", "1").stdout)

    assert [difference["reason"] for difference in refused["differences"]] == ["is recorded with other content"]
    assert (refused["written"], done["written"], done["merged"]) == (False, True, 2)
    assert sorted(map(len, places(library))) == [0, 1, 2]
    assert run("verify", "-c", library / "c.ww").returncode == 0


def test_a_folder_moves_on_path_boundaries_and_into_itself(library: Path) -> None:
    """A sibling whose name only begins the same stays."""
    shutil.copytree(library / "old", library / "older")
    index_paths([library / "older"], library / "c.ww", SETTINGS)
    (library / "old").rename(library / "x")
    (library / "old").mkdir()
    (library / "x").rename(library / "old" / "old")

    done = shown(library, "relocate", str(library / "old"), str(library / "old" / "old"))

    assert done.startswith("relocated 3; compared 3, different 0")
    assert sorted(uri for uris in places(library) for uri in uris) == sorted(below("old/old") + below("older"))


def test_a_wrong_place_is_named_with_an_example(library: Path) -> None:
    """A library of which nothing is recorded there."""
    done = run("relocate", library / "odl", library, "-c", library / "c.ww")

    assert done.returncode == 1
    assert "the collection has no image below" in done.stderr
    assert "one of its images is file:///" in done.stderr.replace("\n", " ")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("photographs"):
        yield "s3://photographs/all"


def test_a_library_moves_to_an_object_store_and_back(library: Path, bucket: str) -> None:
    """Names are encoded in local URIs only; a key may have the other normalization form."""
    client = boto3.client("s3")
    for path in (library / "old" / "My Pictures").glob("*.jpg"):
        client.upload_file(str(path), "photographs", f"all/My Pictures/{normalize('NFC', path.name)}")

    there = shown(library, "relocate", str(library / "old"), f"{bucket}/")
    stored = sorted(uris[0] for uris in places(library))
    back = shown(library, "relocate", bucket, str(library / "old"))

    assert there.startswith("relocated 3; compared 3, different 0")
    assert stored == sorted(f"{bucket}/My Pictures/{normalize('NFC', name)}" for name in NAMES)
    assert back.startswith("relocated 3; compared 3, different 0")
    assert sorted(uris[0] for uris in places(library)) == below("old")


# --- named and shown ----------------------------------------------------------------------------------------------


def test_an_image_is_found_by_the_uri_that_results_show(library: Path) -> None:
    """Encoded or not; programs get the exact URI and the path."""
    path = library / "old" / "My Pictures" / "a b.jpg"
    for text in (path.as_uri(), f"file://{path}", str(path)):
        answer = json.loads(shown(library, "search", text, "--top", "1", "--json"))

        assert [(hit["uri"], hit["path"]) for hit in answer["hits"]] == [(path.as_uri(), str(path))]


def test_images_are_removed_by_any_spelling_of_their_place(library: Path) -> None:
    """A relative path begins where the command runs; that nothing matches is said."""
    (library / "here").symlink_to(library / "old")
    path = library / "old" / "My Pictures" / NAMES[1]
    for text in (
        str(path),
        path.as_uri(),
        normalize("NFC", str(path)),
        f"{library}/here/../old/My Pictures/{NAMES[1]}",
    ):
        done = json.loads(shown(library, "remove", "--uri", text, "--dry-run", "--json"))
        assert len(done["images"]) == 1, text
    nothing = run("remove", "--uri", "/nowhere/*", "-c", library / "c.ww")
    assert (nothing.returncode, nothing.stderr.partition(":")[0]) == (0, "no image matches")


def test_a_terminal_without_unicode_gets_escapes(library: Path) -> None:
    """In tables, messages and errors, whatever command prints them."""
    environment = {**os.environ, **WIDE, "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}

    listed = run_afresh("images", "-c", library / "c.ww", environment=environment)
    failed = run_afresh("search", "\u65e5\u672c.jpg", "--server", "127.0.0.1:1", environment=environment)

    assert (listed.returncode, listed.stderr) == (0, "")
    assert "Mu\\u0308ller.jpg" in listed.stdout
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: \\u65e5\\u672c.jpg: No such file")
