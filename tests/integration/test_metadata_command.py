"""`whatwhere index` with metadata and with files that vanish: real processes, really killed."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

import whatwhere.indexer.pipeline.run
from tests.commands import start
from tests.conftest import rows
from tests.integration.test_index_command import run
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress, RunSummary
from whatwhere.service import cli

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
        "described 9, failed 0, duplicates 0, unchanged 0",
        "passed over: 1 .csv",
        "metadata changed 6, unreadable sidecars 1",
        "rows of the table without a file 1",
        "  nowhere.jpg",
        f"{root}: generation 1, 9 images",
        f"reasons: whatwhere images --collection {root} --state skipped",
    ]
    torn, unmatched = done.stderr.splitlines()
    assert torn.startswith(
        "WARNING whatwhere.indexer.pipeline.annotate sidecar invalid "
        f"source={(pictures / '5.jpg').as_uri()} error=5.jpg"
    )
    assert unmatched.endswith("metadata rows=1 match no file, for example nowhere.jpg")
    assert known(root) == EXPECTED


def test_images_can_be_listed_by_their_metadata(
    uninterrupted: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """Times of EXIF compare as times, numbers of the table as numbers."""
    root, _ = uninterrupted

    expression = 'taken_time > "2007-06-01T00:00:00+02:00" year >= 2008'

    listed = CliRunner().invoke(cli.app, ["images", "-c", str(root), "--json", "--filter", expression])

    (image,) = json.loads(listed.stdout)
    assert (image["name"], image["user_metadata"]) == ("images/9", EXPECTED["8.jpg"])


def test_what_vanished_is_listed_and_forgotten_when_asked_for(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people in lines, for programs in full."""
    folder, root = tmp_path / "pictures", tmp_path / "c.ww"
    folder.mkdir()
    for number in range(4):
        shutil.copy(pictures / f"{number}.jpg", folder)
    index_paths([folder], root)
    gone = [folder / name for name in ("2.jpg", "3.jpg")]
    for path in gone:
        path.unlink()
    monkeypatch.setattr("whatwhere.service.cli.index.SHOWN", 1)

    kept, told, forgotten = (
        CliRunner().invoke(cli.app, ["index", str(folder), "-c", str(root), *more]).stdout
        for more in ([], ["--json"], ["--prune"])
    )

    shown = [f"  {gone[0]}", "  ... and 1 more: --json lists all"]
    assert kept.splitlines()[1:4] == ["vanished 2, kept: --prune removes them", *shown]
    assert json.loads(told)["vanished"] == [path.as_uri() for path in gone]
    assert forgotten.splitlines()[1:] == ["vanished 2, removed", *shown, f"{root}: generation 2, 2 images"]


def test_a_summary_names_folders_that_could_not_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After what was done, before what is there now."""
    summary = RunSummary(Progress(0), 0, 2, 1, published=False, unlisted=("file:///a/", "file:///b/"))
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "index_paths", lambda *_: summary)

    done = CliRunner().invoke(cli.app, ["index", "a", "-c", "c.ww"])

    assert done.stdout.splitlines() == [
        "described 0, failed 0, duplicates 0, unchanged 0",
        "folders that cannot be listed 2",
        "  /a/",
        "  /b/",
        "c.ww: generation 1, 2 images",
    ]


def test_a_torn_table_is_an_error_before_anything_is_made(tmp_path: Path, pictures: Path) -> None:
    """The line is named."""
    table = tmp_path / "table.csv"
    table.write_text('path,label\n0.jpg,"torn\n')

    command = ["index", str(pictures), "-c", str(tmp_path / "c.ww"), "--metadata", str(table)]
    done = CliRunner().invoke(cli.app, command)

    assert isinstance(done.exception, InvalidRequest)
    assert str(done.exception).startswith(f"{table}, line 2: unexpected end of data")
    assert not (tmp_path / "c.ww").exists()


# --- killed -----------------------------------------------------------------------------------------------------

SHARD_SOURCES = 4
# The command itself, with shards so small that few pictures fill several.
CHILD = f"""
import os, signal
import whatwhere.indexer.pipeline.run
whatwhere.indexer.pipeline.run.SHARD_SOURCES = {SHARD_SOURCES}
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
MOMENTS = {
    "when half of the sidecars are kept": """
from whatwhere.indexer.catalog.catalog import Catalog
set_metadata = Catalog.set_metadata
calls = []
def half(self, origin, values):
    calls.append(origin)
    if len(calls) == 3:
        die()
    return set_metadata(self, origin, values)
Catalog.set_metadata = half
""",
    "before the generation": """
import whatwhere.indexer.pipeline.run
whatwhere.indexer.pipeline.run.publish = lambda *_: die()
""",
}


def run_and_die(moment: str, *arguments: str | Path) -> int:
    """Run the command in a process that is killed at the moment, and return how it ended."""
    with start(*arguments, before=CHILD + moment) as process:
        return process.wait()


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
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", SHARD_SOURCES)
    settings = IndexSettings(batch_size=2, metadata=pictures / "table.csv", exif=True, prune=True)
    index_paths([pictures], root, settings)

    assert killed == -signal.SIGKILL
    assert known(root) == EXPECTED
    assert rows(root) == rows(uninterrupted[0])
