"""`whatwhere index` with metadata and with files that vanish: real processes, really killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import indexer.pipeline
from indexer.catalog import Catalog
from indexer.collection import Layout
from indexer.pipeline import IndexSettings, index_paths
from tests.conftest import rows
from tests.integration.test_index_command import ONE_THREAD, run

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = 9


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of nine small photographs with EXIF, some with sidecars, one torn, and a table of some."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(13)
    for number in range(PICTURES):
        block = Image.Exif()
        block[ExifTags.Base.Model] = "Camera"
        block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"200{number}:01:01 00:00:00"
        pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", exif=block)
        if number % 2:
            (folder / f"{number}.jpg.json").write_text(json.dumps({"rating": number, "label": "sidecar"}))
    (folder / "5.jpg.json").write_text('{"label": "to')
    rows = "".join(f"{number}.jpg,table,{2000 + number}\n" for number in (0, 1, 8))
    (folder / "table.csv").write_text("path,label,year:int\n" + rows + "nowhere.jpg,x,1\n")
    return folder


def known(root: Path) -> dict[str, dict[str, object]]:
    """Return what is known of each image by its first place's name, those without a place left out."""
    with Catalog.open(Layout(root).catalog) as catalog:
        return {image.uris[0].rpartition("/")[2]: dict(image.user_metadata) for image in catalog.images() if image.uris}


EXPECTED = {
    f"{number}.jpg": {"taken_time": f"200{number}-01-01T00:00:00", "camera_model": "Camera"}
    | ({"rating": number, "label": "sidecar"} if number in (1, 3, 7) else {})
    | ({"label": "table", "year": 2000 + number} if number in (0, 1, 8) else {})
    for number in range(PICTURES)
}


def flags(pictures: Path) -> tuple[str, ...]:
    return ("--metadata", str(pictures / "table.csv"), "--exif", "--prune", "--batch-size", "2")


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """Give the collection that one run without any trouble makes, and what it printed."""
    root = tmp_path_factory.mktemp("uninterrupted") / "c.ww"
    return root, run("index", pictures, "-c", root, *flags(pictures))


def test_metadata_of_all_origins_is_kept(
    pictures: Path, uninterrupted: tuple[Path, "subprocess.CompletedProcess[str]"]
) -> None:
    """The summary counts what changed, what names no file and what is torn."""
    root, done = uninterrupted

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "described 9, failed 0, duplicates 0, unchanged 0, not images 1",
        "metadata changed 6, rows that name no file 1, torn sidecars 1",
        f"{root}: generation 1, 9 images",
    ]
    torn, unmatched = done.stderr.splitlines()
    assert torn.startswith(f"WARNING indexer.pipeline sidecar torn source={(pictures / '5.jpg').as_uri()} error=5.jpg")
    assert unmatched.endswith(f"metadata rows=1 name none of the files, one is {(pictures / 'nowhere.jpg').as_uri()}")
    assert known(root) == EXPECTED


def test_images_can_be_listed_by_their_metadata(
    uninterrupted: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """Times of EXIF compare as times, numbers of the table as numbers."""
    root, _ = uninterrupted

    listed = run("images", "-c", root, "--json", "--filter", 'taken_time > "2007-06-01T00:00:00+02:00" year >= 2008')

    assert [image["name"] for image in json.loads(listed.stdout)] == ["images/9"]
    assert json.loads(listed.stdout)[0]["user_metadata"] == EXPECTED["8.jpg"]


def test_what_vanished_is_listed_and_forgotten_when_asked_for(tmp_path: Path, pictures: Path) -> None:
    """For people in lines, for programs in full."""
    folder, root = Path(shutil.copytree(pictures, tmp_path / "pictures")), tmp_path / "c.ww"
    index_paths([folder], root)
    gone = [folder / name for name in ("2.jpg", "3.jpg")]
    for path in gone:
        path.unlink()

    kept = run("index", folder, "-c", root)
    told = run("index", folder, "-c", root, "--json")
    forgotten = run("index", folder, "-c", root, "--prune")

    places = [f"  {path.as_uri()}" for path in gone]
    assert kept.stdout.splitlines()[1:4] == ["vanished 2, kept: --prune forgets them", *places]
    assert json.loads(told.stdout)["vanished"] == [path.as_uri() for path in gone]
    assert forgotten.stdout.splitlines()[1:] == [
        "vanished 2, forgotten",
        *places,
        f"{root}: generation 2, 7 images",
    ]


def test_a_torn_table_is_an_error_before_anything_is_made(tmp_path: Path, pictures: Path) -> None:
    """The line is named."""
    table = tmp_path / "table.csv"
    table.write_text('path,label\n0.jpg,"torn\n')

    done = run("index", pictures, "-c", tmp_path / "c.ww", "--metadata", table)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {table}, line 2: unexpected end of data")
    assert not (tmp_path / "c.ww").exists()


# --- killed -----------------------------------------------------------------------------------------------------

SHARD_SOURCES = 4
# The command itself, with shards so small that few pictures fill several.
CHILD = f"""
import os, signal
import indexer.pipeline
indexer.pipeline.SHARD_SOURCES = {SHARD_SOURCES}
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
RUN = """
from service.cli import main
main()
"""
MOMENTS = {
    "between a shard and its transaction": """
from indexer.catalog import Catalog
record = Catalog.record_chunk
def record_chunk(self, outcomes, shard):
    if shard is not None and shard.file_name == "00000002.safetensors":
        die()
    record(self, outcomes, shard)
Catalog.record_chunk = record_chunk
""",
    "after the last chunk": """
from indexer.catalog import Catalog
Catalog.set_metadata = lambda *_: die()
""",
    "when half of the sidecars are kept": """
from indexer.catalog import Catalog
set_metadata = Catalog.set_metadata
calls = []
def half(self, origin, values):
    calls.append(origin)
    if len(calls) == 3:
        die()
    return set_metadata(self, origin, values)
Catalog.set_metadata = half
""",
    "before the table is kept": """
from indexer.catalog import Catalog
set_metadata = Catalog.set_metadata
def sidecars(self, origin, values):
    if origin == "file":
        die()
    return set_metadata(self, origin, values)
Catalog.set_metadata = sidecars
""",
    "before the vanished are forgotten": """
from indexer.catalog import Catalog
Catalog.vanished = lambda *_: die()
""",
    "before the generation": """
import indexer.pipeline
indexer.pipeline.publish = lambda *_: die()
""",
}


def run_and_die(moment: str, *arguments: str | Path) -> int:
    """Run the command in a process that is killed at the moment, and return how it ended."""
    command = [sys.executable, "-c", CHILD + moment + RUN, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, env=os.environ | ONE_THREAD).returncode


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_metadata_of_a_killed_run_is_complete_in_the_end(
    tmp_path: Path,
    pictures: Path,
    uninterrupted: tuple[Path, "subprocess.CompletedProcess[str]"],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """Wherever the process is killed, running it again gives what an unkilled run gives."""
    root = tmp_path / "c.ww"

    killed = run_and_die(moment, "index", pictures, "-c", root, *flags(pictures))
    monkeypatch.setattr(indexer.pipeline, "SHARD_SOURCES", SHARD_SOURCES)
    settings = IndexSettings(batch_size=2, metadata=pictures / "table.csv", exif=True, prune=True)
    index_paths([pictures], root, settings)

    assert killed == -signal.SIGKILL
    assert known(root) == EXPECTED
    assert rows(root) == rows(uninterrupted[0])


def test_forgetting_that_was_killed_is_finished_by_the_next_run(tmp_path: Path, pictures: Path) -> None:
    """Killed between the catalogue and the generation, it is in the next generation all the same."""
    folder, root = Path(shutil.copytree(pictures, tmp_path / "pictures")), tmp_path / "c.ww"
    index_paths([folder], root)
    (folder / "2.jpg").unlink()

    killed = run_and_die(MOMENTS["before the generation"], "index", folder, "-c", root, "--prune")
    summary = index_paths([folder], root)

    assert killed == -signal.SIGKILL
    assert (summary.images, summary.vanished, summary.generation) == (8, (), 2)
