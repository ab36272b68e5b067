"""`whatwhere index`, `info`, `images` and `whiten` as people run them: real processes, really stopped."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import whatwhere.indexer.pipeline.run
from tests import commands
from tests.conftest import rows, written
from tests.networks import BY_TORCH
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress, RunSummary
from whatwhere.indexer.pipeline.train_whiteners import TrainingSettings
from whatwhere.service import cli

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(40)]


def run(*arguments: str | Path, timeout_s: float = 240, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, without a terminal."""
    return commands.run(*arguments, timeout_s=timeout_s, environment=os.environ | {"COLUMNS": "500"} | environment)


def run_afresh(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, in an interpreter of its own."""
    return commands.run_afresh(*arguments, environment=os.environ | {"COLUMNS": "500"} | environment)


def run_here(*arguments: str | Path) -> str:
    """Run the command in this process and return what it prints; only for what the process does not show in."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def images(root: Path) -> list[ImageRecord]:
    with Catalog.open(Layout(root).catalog) as catalog:
        return catalog.images()


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of sixteen small pictures, the same ones every time, one of them twice and one torn."""
    folder = tmp_path_factory.mktemp("patterns")
    random = np.random.default_rng(7)
    for number in range(16):
        pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    (folder / "05.png").write_bytes((folder / "01.png").read_bytes())
    (folder / "06.png").write_bytes((folder / "06.png").read_bytes()[:200])
    return folder


# --- what is printed --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """Give a folder of two pictures, a copy, a torn one and a text."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("01.png", "02.png", "05.png", "06.png"):
        (folder / name).write_bytes((patterns / name).read_bytes())
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, few: Path) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """Give a collection that the command made, and what it printed."""
    root = tmp_path_factory.mktemp("indexed") / "few.ww"
    flags = ("--rank", "4", "--descriptors", "gem, what", "--batch-size", "2", "--workers", "1", "--device", "cpu")
    return root, run_afresh("index", few, "--collection", root, *flags)


def test_a_run_sums_up_what_it_did(indexed: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Counts, generation, and where to read the reasons, in sentences that can be copied."""
    root, done = indexed

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "described 2, failed 1, duplicates 1, unchanged 0",
        "passed over: 1 .txt",
        f"{root}: generation 1, 2 images, 1 failed",
        f"reasons: whatwhere images --collection {root} --state failed",
        f"reasons: whatwhere images --collection {root} --state skipped",
    ]


def test_failures_are_logged_and_progress_is_for_terminals(
    indexed: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """Standard error has one line for the torn picture and nothing else."""
    _, done = indexed

    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING whatwhere.indexer.pipeline.chunks failed source=file://")
    assert line.endswith("/06.png reason=UNREADABLE_IMAGE")


def test_the_flags_make_the_collection(indexed: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Rank and descriptors are those asked for."""
    root, _ = indexed

    recipe = Recipe.load(Layout(root))

    assert (recipe.rank, recipe.descriptors) == (4, ("what", "gem"))


def test_a_run_speaks_json_for_programs(indexed: tuple[Path, "subprocess.CompletedProcess[str]"], few: Path) -> None:
    """Standard output is one JSON object, standard error is silent, the collection comes from the environment."""
    root, _ = indexed

    done = run("index", few, "--json", WHATWHERE_COLLECTION=str(root))

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "total": 4,
        "described": 0,
        "failed": 0,
        "duplicates": 0,
        "unchanged": 4,
        "ignored": 1,
        "images": 2,
        "generation": 1,
        "vanished": [],
        "pruned": False,
        "moved": [],
        "unlisted": [],
        "metadata_changed": 0,
        "unmatched_rows": 0,
        "unreadable_sidecars": 0,
        "skipped": {".txt": 1},
        "failures": {},
        "truncated": 0,
        "failed_images": 1,
        "unmatched": [],
        "left_out": [],
    }


def test_a_run_can_log_what_happens(tmp_path: Path, few: Path) -> None:
    """With --verbose the publication is logged on standard error."""
    done = run("--verbose", "index", few / "01.png", "-c", tmp_path / "c.ww")

    assert done.returncode == 0
    assert "INFO whatwhere.indexer.collection.publish published generation=1 images=1" in done.stderr.splitlines()


def test_info_says_what_a_collection_holds(indexed: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Counts, generation, network, descriptors and sizes in words, and what to do about the one that failed."""
    root, _ = indexed

    done = run_afresh("info", "--collection", root)

    assert (done.returncode, done.stderr) == (0, "")
    *lines, failed, passed_over = done.stdout.splitlines()
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
    assert rows["collection"] == str(root)
    assert rows["images"] == "2 searchable (2 indexed, 1 failed)"
    assert re.fullmatch(r"1, published \d{4}-\d\d-\d\d \d\d:\d\d UTC", rows["generation"])
    assert rows["network"] == "efficientnet-lite0, layer head, computed in float32"
    assert rows["factors"] == "4 for each image (rank 4)"
    assert rows["descriptors"] == "what, gem (preset default)"
    assert rows["can be added"].startswith("what-and-where (")
    assert re.fullmatch(r"2 of \d+ dimensions, exact", rows["vectors of gem"])
    assert re.fullmatch(r"\d+\.\d [kM]B on disk", rows["size"])
    assert failed == f"1 failed. Reasons: whatwhere images --state failed -c {root}"
    assert passed_over == f"Passed over: 1 .txt. Reasons: whatwhere images --state skipped -c {root}"
    assert not re.search(r"None|\('|[0-9a-f]{12}", "".join(lines[1:]))


def test_info_speaks_json_for_programs(indexed: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Every part is there, with numbers as numbers."""
    root, _ = indexed

    done = run("info", "-c", root, "--json")

    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["collection"] == str(root)
    assert report["images"] == {"indexed": 2, "failed": 1, "removed": 0}
    assert (report["generation"], report["searchable_images"]) == (1, 2)
    assert (report["recipe"]["rank"], report["recipe"]["descriptors"]) == (4, ["what", "gem"])
    assert report["indexes"].keys() == {"what", "gem"}
    assert report["bytes"].keys() == {"catalog", "shards", "segments", "generations", "whiteners"}
    assert all(size > 0 for size in report["bytes"].values())


def test_images_lists_names_places_and_reasons(
    indexed: tuple[Path, "subprocess.CompletedProcess[str]"], few: Path
) -> None:
    """Failed images come with their reason, on one line each."""
    root, _ = indexed

    done = run_afresh("images", "-c", root, "--state", "failed")

    assert (done.returncode, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["name", "state", "size", "place", "reason"]
    assert [line.split()[:3] for line in lines] == [["images/3", "failed", str(few / "06.png")]]
    assert lines[0].split("  ")[-1].startswith("06.png: PNG checksum mismatch")


def test_images_speaks_json_for_programs(indexed: tuple[Path, "subprocess.CompletedProcess[str]"], few: Path) -> None:
    """Each image is an object with its name, state, places, size and reason."""
    root, _ = indexed

    done = run("images", "-c", root, "--json")

    listed = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(image["name"], image["state"]) for image in listed] == [
        ("images/1", "indexed"),
        ("images/2", "indexed"),
        ("images/3", "failed"),
    ]
    assert listed[0]["uris"] == [(few / name).as_uri() for name in ("01.png", "05.png")]
    assert (listed[0]["width_px"], listed[0]["height_px"], listed[0]["mime_type"]) == (48, 48, "image/png")
    older = ("width", "height", "content_hash", "user_metadata")
    assert [listed[0][name] for name in older] == [
        listed[0][name] for name in ("width_px", "height_px", "sha256", "metadata")
    ]
    assert datetime.fromisoformat(listed[0]["create_time"]) == datetime.fromisoformat(listed[0]["created_at"])
    assert listed[2]["failure_reason"] == "UNREADABLE_IMAGE"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--state", "failed"), ["images/3"]),
        (("--state", "indexed"), ["images/1", "images/2"]),
        (("--state", "removed"), []),
        (("--limit", "1"), ["images/1"]),
        (("--state", "indexed", "--limit", "1"), ["images/1"]),
    ],
)
def test_images_can_be_chosen(
    indexed: tuple[Path, "subprocess.CompletedProcess[str]"], flags: Sequence[str], names: list[str]
) -> None:
    """State and limit arrive."""
    listed = json.loads(run_here("images", "-c", indexed[0], "--json", *flags))

    assert [image["name"] for image in listed] == names


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """Give a folder with a picture, and one of each kind of thing that is passed over."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("a.png", ".b.png", "drafts/c.png", "@eaDir/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((patterns / "01.png").read_bytes())
    for name in ("film one.mp4", "film two.mp4", "notes.pdf"):
        (folder / name).touch()
    return folder


def test_what_is_passed_over_is_summed_up_and_listed(tmp_path: Path, library: Path) -> None:
    """By kind in the summary and in `info`; by file, as people write it, with the reason, in `images`."""
    root = tmp_path / "c.ww"
    flags = ("--exclude", "drafts/", "--exclude", "*.mp4", "--include-hidden")

    summed = run_here("index", library, "-c", root)
    listed = run("images", "-c", root, "--state", "skipped").stdout.splitlines()
    told = run_here("info", "-c", root)
    chosen = json.loads(run_here("index", library, "-c", root, "--json", *flags))
    afterwards = json.loads(run_here("images", "-c", root, "--state", "skipped", "--json"))

    kinds = "passed over: 2 .mp4, 1 system folder, 1 hidden file, 1 .pdf"
    assert kinds in summed.splitlines()
    assert "Passed over: 2 .mp4, 1 .pdf, 1 hidden file, 1 system folder. Reasons: whatwhere images" in told
    film = next(line for line in listed if "film one" in line)
    assert re.split(r"  +", film.strip()) == [".mp4", str(library / "film one.mp4"), "a video"]
    assert chosen["skipped"] == {"excluded file": 2, "excluded folder": 1, "system folder": 1, ".pdf": 1}
    assert {(found["uri"].rpartition("/")[2], found["kind"], found["state"]) for found in afterwards} == {
        ("film%20one.mp4", "excluded file", "skipped"),
        ("film%20two.mp4", "excluded file", "skipped"),
        ("notes.pdf", ".pdf", "skipped"),
        ("", "excluded folder", "skipped"),
        ("", "system folder", "skipped"),
    }


def test_a_folder_of_files_that_are_no_images_is_an_error(tmp_path: Path, library: Path, patterns: Path) -> None:
    """It names what was found and what to do; where the collection has images, it is none."""
    root, other = tmp_path / "c.ww", tmp_path / "other.ww"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "film.mp4").touch()

    alone = run("index", tmp_path / "videos", "-c", root)
    run_here("index", patterns / "01.png", "-c", other)
    beside = run("index", tmp_path / "videos", "-c", other)

    assert alone.returncode == 1
    assert alone.stderr.startswith("error: no image found: passed over 1 .mp4: ")
    assert f"whatwhere images --collection {root} --state skipped" in alone.stderr
    assert "passed over: 1 .mp4" in alone.stdout
    assert (beside.returncode, beside.stderr) == (0, "")


def test_skipped_files_cannot_be_filtered(indexed: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """They have no fields."""
    done = run("images", "-c", indexed[0], "--state", "skipped", "--filter", "a = 1")

    assert done.returncode == 1
    assert "skipped files have no fields to filter by: leave out --filter" in done.stderr


def test_reasons_of_failures_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is more than one."""
    failures = {"UNREADABLE_IMAGE": 2, "IMAGE_TOO_MANY_BYTES": 1}
    summary = RunSummary(Progress(3, failed=3), 0, 2, 1, published=False, failures=failures, failed_images=3)
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "index_paths", lambda *_: summary)

    done = CliRunner().invoke(cli.app, ["index", "a", "-c", "c.ww"])

    assert done.stdout.splitlines()[0] == (
        "described 0, failed 3 (2 unreadable image, 1 image too many bytes), duplicates 0, unchanged 0"
    )


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    """Brackets in a path are no markup: what is printed can be copied."""
    root = tmp_path / "pictures [old].ww"
    torn = tmp_path / "picture [b].jpg"
    torn.write_text("torn")

    summary = run_here("index", torn, "-c", root)
    report, listed = run_here("info", "-c", root), run_here("images", "-c", root)

    assert all(f"/pictures {name}" in summary.replace("'", "") for name in ("[old].ww: ", "[old].ww --state"))
    assert "[old].ww" in report
    assert "[b].jpg" in listed


# --- flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), IndexSettings()),
        (("--rank", "5"), IndexSettings(rank=5)),
        (("--backbone", "some-net"), IndexSettings(backbone="some-net")),
        (("--weights", "some/file.pth"), IndexSettings(weights=Path("some/file.pth"))),
        (("--precision", "bfloat16"), IndexSettings(precision="bfloat16")),
        (("--preset", "thesis"), IndexSettings(preset="thesis")),
        (("--descriptors", "what, r-mac"), IndexSettings(descriptors=("what", "r-mac"))),
        (("--whiteners", "some/folder"), IndexSettings(whiteners=Path("some/folder"))),
        (("--device", "cuda"), IndexSettings(device="cuda")),
        (("--batch-size", "3"), IndexSettings(batch_size=3)),
        (("--exclude", "a/", "--exclude", "*.tif"), IndexSettings(exclude=("a/", "*.tif"))),
        (("--include-hidden",), IndexSettings(include_hidden=True)),
        (("--threads", "2"), IndexSettings(threads=2)),
        (("--workers", "7"), IndexSettings(workers=7)),
        (("--checksum",), IndexSettings(checksum=True)),
        (("--retry-failed",), IndexSettings(retry_failed=True)),
        (("--metadata", "some/table.csv"), IndexSettings(metadata=Path("some/table.csv"))),
        (("--exif",), IndexSettings(exif=True)),
        (("--exif-gps",), IndexSettings(exif_gps=True)),
        (("--prune",), IndexSettings(prune=True)),
        (("--max-requests-per-second", "2.5"), IndexSettings(max_requests_per_second=2.5)),
        (("--max-megapixels", "3"), IndexSettings(limits=ImageLimits(max_pixels=3_000_000))),
        (("--max-file-mib", "3"), IndexSettings(limits=ImageLimits(max_bytes=3_145_728))),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value else "",
)
def test_every_flag_of_index_arrives(
    monkeypatch: pytest.MonkeyPatch, flags: Sequence[str], expected: IndexSettings
) -> None:
    """A flag sets its setting and no other; without flags the settings are the function's defaults."""
    asked: list[tuple[object, ...]] = []

    def remember(paths: Sequence[Path], collection: Path, settings: IndexSettings, _report: object) -> RunSummary:
        asked.append((paths, collection, settings))
        return RunSummary(Progress(0), 0, 0, 1, published=False)

    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "index_paths", remember)

    run_here("index", "a", "b", "--collection", "c.ww", *flags)

    assert asked == [(["a", "b"], "c.ww", expected)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), TrainingSettings()),
        (("--descriptors", "gem,what"), TrainingSettings(("gem", "what"))),
        (("--preset", "thesis"), TrainingSettings(preset="thesis")),
        (("--dimensions", "7"), TrainingSettings(dimensions=7)),
        (("--rank", "5"), TrainingSettings(rank=5)),
        (("--device", "cpu"), TrainingSettings(device="cpu")),
        (("--backbone", "some-net:layer"), TrainingSettings(backbone="some-net:layer")),
        (("--weights", "some/file.pth"), TrainingSettings(weights=Path("some/file.pth"))),
        (("--precision", "bfloat16"), TrainingSettings(precision="bfloat16")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value else "",
)
def test_every_flag_of_whiten_arrives(
    monkeypatch: pytest.MonkeyPatch, flags: Sequence[str], expected: TrainingSettings
) -> None:
    """A flag sets its setting and no other; without flags the settings are the function's defaults."""
    asked: list[tuple[object, ...]] = []

    def remember(
        paths: Sequence[Path], output: Path, settings: TrainingSettings, _report: object
    ) -> dict[str, Whitener]:
        asked.append((paths, output, settings))
        return {}

    monkeypatch.setattr("whatwhere.indexer.pipeline.train_whiteners.train_whiteners", remember)

    run_here("whiten", "a", "b", "--output", "out", *flags)

    assert asked == [(["a", "b"], Path("out"), expected)]


# --- whiteners --------------------------------------------------------------------------------------------------


def test_whiteners_that_were_trained_are_used(tmp_path: Path, patterns: Path) -> None:
    """`whiten` writes what `index --whiteners` takes."""
    pictures = [patterns / name for name in ("00.png", "01.png", "02.png")]

    flags = ("--output", tmp_path / "w", "--descriptors", "what", "--dimensions", "9")
    trained = run_afresh("whiten", *pictures, *flags, **BY_TORCH)
    done = run("index", pictures[0], "-c", tmp_path / "c.ww", "--descriptors", "what", "--whiteners", tmp_path / "w")

    whitener = whitening.load(tmp_path / "w" / "efficientnet-lite0.cells.safetensors")
    assert (trained.returncode, done.returncode) == (0, 0)
    assert trained.stdout == (
        f"cells: 9 dimensions from 3 photographs, rank 8, fingerprint {whitener.fingerprint[:12]}\n"
    )
    assert "only 3 photographs" in trained.stderr
    entry = Manifest.load(Layout(tmp_path / "c.ww").generation(1)).indexes["what"]
    assert (entry.whiteners, entry.dimensions) == ((whitener.fingerprint,), 9)


def test_training_does_not_wait_for_a_pipe(tmp_path: Path, patterns: Path) -> None:
    """What is no regular file is left out with a warning, as anything that cannot be read."""
    os.mkfifo(tmp_path / "pipe.jpg")

    done = run("whiten", tmp_path, patterns / "00.png", "--output", tmp_path / "w", timeout_s=60)

    assert done.returncode == 1
    assert "error: 1 readable photographs" in done.stderr


# --- errors -----------------------------------------------------------------------------------------------------


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the message of a command that ended with a named error: one line on standard error, nothing else."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    """Nothing is made of a collection whose pictures do not exist."""
    done = run("index", tmp_path / "nowhere", "-c", tmp_path / "c.ww")

    assert refused(done) == f"{tmp_path / 'nowhere'} does not exist: use a folder, an image file or a list of images"
    assert not (tmp_path / "c.ww").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rank", "5"), "was made with rank 4, not 5: use the collection's own, or index into a new directory"),
        (("--backbone", "resnet"), "backbone 'resnet' is unknown; there are: efficientnet-lite0"),
        (("--descriptors", "what,why"), "descriptor 'why' is unknown; there are: what, what-and-where, fused, mac"),
        (
            ("--preset", "thesis"),
            "was made with preset 'default', not 'thesis': use the collection's own, or change it for all images with",
        ),
    ],
    ids=["another rank", "unknown backbone", "unknown descriptor", "another preset"],
)
def test_a_setting_that_does_not_fit_is_named(
    indexed: tuple[Path, "subprocess.CompletedProcess[str]"], few: Path, flags: Sequence[str], words: str
) -> None:
    """The message says which value is wrong and what to do."""
    root, _ = indexed
    before = rows(root)

    done = run("index", few, "-c", root, *flags)

    assert words in refused(done)
    assert rows(root) == before


def test_a_second_writer_is_refused_with_the_first_ones_number(
    indexed: tuple[Path, "subprocess.CompletedProcess[str]"], few: Path
) -> None:
    """The message names the process that holds the collection."""
    root, _ = indexed

    with open_for_writing(root, Recipe.load(Layout(root))):
        done = run("index", few, "-c", root)

    assert refused(done).startswith(f"{root} is being written to by process {os.getpid()}: wait until that ends")


@pytest.mark.parametrize("command", ["info", "images"])
def test_a_directory_that_is_no_collection_is_named(tmp_path: Path, command: str) -> None:
    """The message says how to make one, and nothing is made."""
    done = run(command, "-c", tmp_path)

    assert refused(done).startswith(f"{tmp_path} holds no collection: create one with `whatwhere index PATH...")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("index", "{few}", "-c"), ("info", "-c")])
def test_a_file_is_no_collection(few: Path, arguments: Sequence[str]) -> None:
    """A file where a collection's directory should be is a named error."""
    done = run(*(argument.format(few=few) for argument in arguments), few / "notes.txt")

    assert "notes.txt" in refused(done)


def test_whiteners_need_a_folder(few: Path) -> None:
    """A file where the folder of whiteners should be is a named error, before the photographs are described."""
    done = run("whiten", few / "01.png", few / "02.png", "--output", few / "notes.txt")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "notes.txt" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("index",),
        ("index", "a.jpg"),
        ("index", "a.jpg", "-c", "c.ww", "--rank", "0"),
        ("index", "a.jpg", "-c", "c.ww", "--rank", "65"),
        ("index", "a.jpg", "-c", "c.ww", "--batch-size", "0"),
        ("index", "a.jpg", "-c", "c.ww", "--workers", "0"),
        ("index", "a.jpg", "-c", "c.ww", "--device", "abacus"),
        ("images", "-c", "c.ww", "--state", "lost"),
        ("images", "-c", "c.ww", "--limit", "0"),
        ("whiten", "a.jpg"),
        ("whiten", "a.jpg", "--output", "w", "--dimensions", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_has_an_exit_code_of_its_own(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line itself refuses ends with 2."""
    monkeypatch.delenv("WHATWHERE_COLLECTION", raising=False)

    assert CliRunner().invoke(cli.app, [*arguments]).exit_code == 2


# --- stopped ---------------------------------------------------------------------------------------------------

SHARD_SOURCES = 4
# The command itself, with shards so small that few pictures fill several.
CHILD = f"""
import whatwhere.indexer.pipeline.run
whatwhere.indexer.pipeline.run.SHARD_SOURCES = {SHARD_SOURCES}
"""
# So that the signal finds the run at work, however slow or fast the machine is.
WAITING_AFTER_TWO_SHARDS = """
import time
from whatwhere.indexer.catalog.catalog import Catalog
record = Catalog.record_chunk
def record_chunk(self, outcomes, shard):
    record(self, outcomes, shard)
    if shard is not None and shard.file_name == "00000002.safetensors":
        print("waiting", flush=True)
        time.sleep(60)
Catalog.record_chunk = record_chunk
"""


def indexing(patterns: Path, root: Path) -> list[str]:
    """Return the arguments of a command that indexes the patterns."""
    return ["index", str(patterns), "-c", str(root), "--batch-size", "2"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """Give the collection that one run without any trouble makes."""
    root = tmp_path_factory.mktemp("uninterrupted") / "c.ww"
    with commands.start(*indexing(patterns, root), before=CHILD) as process:
        process.communicate(240)
    assert process.wait() == 0
    return root


def continue_run(patterns: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> RunSummary:
    """Index again, with the same small shards."""
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", SHARD_SOURCES)
    return index_paths([patterns], root, IndexSettings(batch_size=2))


@pytest.fixture
def working(tmp_path: Path, patterns: Path) -> Iterator[tuple[commands.Process, Path]]:
    """Give a running command that has kept two chunks and not all, and its collection."""
    root = tmp_path / "c.ww"
    with commands.start(*indexing(patterns, root), before=CHILD + WAITING_AFTER_TWO_SHARDS) as process:
        assert process.stdout.readline() == "waiting\n"
        yield process, root
        process.kill()


@pytest.mark.parametrize(
    ("stop", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_run_keeps_what_it_finished(
    patterns: Path,
    uninterrupted: Path,
    working: tuple[commands.Process, Path],
    monkeypatch: pytest.MonkeyPatch,
    stop: signal.Signals,
    exit_code: int,
) -> None:
    """The command ends with a sentence and the signal's exit code; running it again gives what was to be."""
    process, root = working

    process.send_signal(stop)
    output, messages = process.communicate(timeout=60)
    kept = len(rows(root))
    published = Layout(root).current_number()
    continue_run(patterns, root, monkeypatch)

    assert process.returncode == exit_code
    assert output == ""
    assert messages.splitlines()[-1] == "stopped; finished images are kept: run again to continue"
    assert "Traceback" not in messages
    assert 2 * SHARD_SOURCES - 1 <= kept < 15
    assert published is None
    assert rows(root) == rows(uninterrupted)
    assert written(root) == written(uninterrupted)
