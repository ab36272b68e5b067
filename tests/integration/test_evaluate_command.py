"""`whatwhere evaluate` as people run it: on a few photographs, stopped, refused, and on real data sets."""

import json
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import whatwhere.service.evaluation.retrieval.datasets
import whatwhere.service.evaluation.retrieval.run
from tests import commands
from tests.conftest import INDEXED_PHOTOGRAPHS, corel
from whatwhere.service import cli
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, Coverage
from whatwhere.service.evaluation.retrieval.run import Evaluation, EvaluationSettings, MethodScore

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.takes(120),
    pytest.mark.timeout(600),  # where other processes compete for the cores
]

SKY, TABLE = ("rocket", "china", "astronaut"), ("coffee", "flower", "chelsea")


def run_here(*arguments: str | Path) -> str:
    """Run the command in this process and return what it prints."""
    result = CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def kept(cache: Path) -> dict[str, int]:
    """Return the finished files of a cache, with the times at which they were written."""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that all these tests keep features in."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Give six photographs in two folders, one for each class."""
    for path in INDEXED_PHOTOGRAPHS:
        for kind, names in (("sky", SKY), ("table", TABLE)):
            if path.stem in names:
                (tmp_path / "mine" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "mine" / kind)
    return tmp_path / "mine"


# --- what comes out -----------------------------------------------------------------------------------------------


def test_a_folder_for_each_class_is_scored_and_reported(mine: Path, features: Path, tmp_path: Path) -> None:
    """The table is printed, and written with all numbers and the picture where they were asked for."""
    files = [tmp_path / name for name in ("scores.json", "report.md", "scores.png")]
    flags = [
        word for flag, path in zip(("--json", "--markdown", "--picture"), files, strict=True) for word in (flag, path)
    ]

    arguments = ("--images", mine, "--descriptors", "what, mac", "--cache", features)
    done = commands.run_afresh("evaluate", "folders", *arguments, *flags)
    printed = done.stdout

    assert (done.returncode, done.stderr) == (0, "")
    assert printed.startswith("## folders\n\n6 queries over 6 images.\n")
    assert "| descriptor | AP@30 | mAP | bytes per image |" in printed
    assert [line.split(" | ")[0] for line in printed.splitlines()[-2:]] == ["| MAC", "| NMF V (what)"]
    assert files[1].read_text() == printed
    scores = json.loads(files[0].read_text())["scores"]
    assert [(score["descriptor"], score["expansion"]) for score in scores] == [
        *(("mac", 0), ("mac", 5)),
        *(("what", 0), ("what", 5)),
    ]
    assert set(scores[0]["queries"]["same class"]) == {path.relative_to(mine).as_posix() for path in mine.glob("*/*")}
    with Image.open(files[2]) as picture:
        assert picture.format == "PNG"


def test_a_second_run_of_other_descriptors_describes_nothing(mine: Path, features: Path) -> None:
    """The photographs were moved, too: their content is known."""
    run_here("folders", "--images", mine, "--descriptors", "gem", "--cache", features)
    before = kept(features)
    moved = mine.rename(mine.with_name("moved"))

    printed = run_here("folders", "--images", moved, "--preset", "thesis", "--cache", features)

    assert "| fused | " in printed
    assert kept(features) == before


# --- stopped ------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Give twenty small pictures of two classes: two batches and a half."""
    random = np.random.default_rng(5)
    for number in range(20):
        path = tmp_path / "many" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    return tmp_path / "many"


@pytest.mark.parametrize(("stop", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"])
def test_a_stopped_run_keeps_what_it_described(
    many: Path, tmp_path: Path, stop: signal.Signals, exit_code: int
) -> None:
    """It ends with a sentence and the signal's exit code; run again, it describes only the rest."""
    cache = tmp_path / "cache"
    flags = ("folders", "--images", many, "--cache", cache, "--descriptors", "mac")

    with commands.start("evaluate", *flags) as process:
        while process.poll() is None and not kept(cache):
            time.sleep(0.01)
        process.send_signal(stop)
        printed, messages = process.communicate(timeout=60)
    before = kept(cache)
    again = run_here(*flags)

    assert (process.returncode, printed) == (exit_code, "")
    assert messages.splitlines()[-1] == "stopped; features are cached: run again to continue"
    assert "Traceback" not in messages
    assert 0 < len(before) < 20
    assert "20 queries over 20 images" in again
    assert len(kept(cache)) == 20
    assert before.items() <= kept(cache).items()


# --- flags --------------------------------------------------------------------------------------------------------

BENCHMARK = Benchmark("towers", {}, {}, (), ("all",), ("mAP",), Coverage(5, 2, None, None, 0, ()))
DEFAULT = EvaluationSettings(Path.home() / ".cache/whatwhere/features")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what the command asks for: the data set, then the settings."""
    calls: list[Any] = []

    def load(*arguments: object) -> Benchmark:
        calls.append(arguments)
        return BENCHMARK

    def evaluate(benchmark: Benchmark, settings: EvaluationSettings, _report: object) -> Evaluation:
        assert benchmark is BENCHMARK
        calls.append(settings)
        told = dict.fromkeys(("backbone", "layer", "precision", "preset", "rank", "whitened_on", "expansion"), "-")
        scores = tuple(MethodScore("mac", expansion, {"all": {"mAP": 0.5}}, {}) for expansion in (0, 5))
        return Evaluation(benchmark, told | {"dimensions": {"mac": 4}}, scores, None, {"mac": 9})

    monkeypatch.setattr(whatwhere.service.evaluation.retrieval.datasets, "load_benchmark", load)
    monkeypatch.setattr(whatwhere.service.evaluation.retrieval.run, "evaluate", evaluate)
    monkeypatch.delenv("WHATWHERE_FEATURES", raising=False)
    return calls


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), DEFAULT),
        (("--descriptors", "all"), DEFAULT),
        (("--descriptors", "what, r-mac"), replace(DEFAULT, descriptors=("what", "r-mac"))),
        (("--preset", "thesis"), replace(DEFAULT, preset="thesis")),
        (("--backbone", "some-net:layer"), replace(DEFAULT, backbone="some-net:layer")),
        (("--weights", "some/file.pth"), replace(DEFAULT, weights=Path("some/file.pth"))),
        (("--precision", "bfloat16"), replace(DEFAULT, precision="bfloat16")),
        (("--rank", "5"), replace(DEFAULT, rank=5)),
        (("--dimensions", "7"), replace(DEFAULT, dimensions=7)),
        (("--whiten-on", "a", "--whiten-on", "b"), replace(DEFAULT, whiten_on=(Path("a"), Path("b")))),
        (("--whiten-on", "collection"), replace(DEFAULT, whiten_on_collection=True)),
        (("--no-localization",), replace(DEFAULT, localization=False)),
        (("--cache", "some/folder"), replace(DEFAULT, cache=Path("some/folder"))),
        (("--cache", "~/folder"), replace(DEFAULT, cache=Path.home() / "folder")),
        (("--device", "cuda"), replace(DEFAULT, device="cuda")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value else "",
)
def test_every_flag_arrives(asked: list[Any], flags: Sequence[str], expected: EvaluationSettings) -> None:
    """A flag sets its setting and no other; without flags the settings are the function's defaults."""
    run_here("towers", "--images", "a", *flags)

    assert asked == [("towers", [Path("a")], None), expected]


def test_image_folders_and_ground_truth_arrive(asked: list[Any]) -> None:
    """Several folders in their order."""
    run_here("towers", "--images", "a", "--images", "b", "--ground-truth", "gt")

    assert asked[0] == ("towers", [Path("a"), Path("b")], Path("gt"))


def test_the_cache_may_come_from_the_environment(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For all runs of a shell."""
    monkeypatch.setenv("WHATWHERE_FEATURES", "elsewhere")

    run_here("towers", "--images", "a")

    assert asked[1].cache == Path("elsewhere")


@pytest.mark.usefixtures("asked")
def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flags the table is printed and that is all."""
    monkeypatch.chdir(tmp_path)

    printed = run_here("towers", "--images", "a")

    assert "| MAC | **50.0** / **50.0** | 9 |" in printed
    assert list(tmp_path.iterdir()) == []


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Give a cache that nothing is to be kept in."""
    return tmp_path / "cache"


def refused(*arguments: str | Path) -> str:
    """Return the message of a command that ended with a named error: one line on standard error, nothing else."""
    done = commands.run("evaluate", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def refused_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the message of an error that needs no process of its own to be seen."""
    monkeypatch.setattr(sys, "argv", ["whatwhere", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (1, "")
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("folders", "--images", "{mine}/nowhere"), "{mine}/nowhere is not a folder: give the folder"),
        (("folders", "--images", "{mine}", "--ground-truth", "{mine}/no.csv"), "{mine}/no.csv cannot be read"),
        (("paris6k", "--images", "{mine}", "--ground-truth", "{mine}/gt"), "{mine}/gt is not a folder: give the"),
        (("paris6k", "--images", "{mine}"), "paris6k needs its ground truth: give its path"),
        (("paris", "--images", "{mine}"), "unknown data set 'paris': choose from oxford5k, paris6k, roxford5k"),
        (("folders", "--images", "{mine}", "--descriptors", "what,why"), "descriptor 'why' is unknown; there are: "),
        (("folders", "--images", "{mine}", "--backbone", "why"), "backbone 'why' is unknown; there are: "),
        (("folders", "--images", "{mine}", "--whiten-on", "{mine}/no"), "{mine}/no does not exist: use a folder"),
        (
            ("folders", "--images", "{mine}", "--whiten-on", "{mine}", "--whiten-on", "collection"),
            "whiten on the searched collection or on folders, not both",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_named_before_anything_is_described(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mine: Path,
    cache: Path,
    arguments: Sequence[str],
    words: str,
) -> None:
    """One line says which value is wrong and what to do."""
    given = [argument.format(mine=mine) for argument in arguments]

    message = refused_here(monkeypatch, capsys, *given, "--cache", cache)

    assert message.startswith(words.format(mine=mine))
    assert not cache.exists()


def test_a_picture_is_refused_by_its_suffix_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not after an hour's work; the folder of the pictures does not even exist."""
    arguments = ("folders", "--images", tmp_path / "nowhere", "--picture", tmp_path / "scores.svg")

    message = refused_here(monkeypatch, capsys, *arguments)

    assert message == f"{tmp_path / 'scores.svg'}: unsupported format, use .png, .jpg, .jpeg"


def test_a_torn_query_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mine: Path, tmp_path: Path
) -> None:
    """With what is left in it."""
    (mine / "sky/rocket.jpg").rename(mine / "paris_louvre_000001.jpg")
    truth = tmp_path / "gt"
    truth.mkdir()
    (truth / "louvre_1_query.txt").write_text("paris_louvre_000001 10.5 20")

    message = refused_here(monkeypatch, capsys, "paris6k", "--images", mine, "--ground-truth", truth)

    assert message == f"{truth}/louvre_1_query.txt: the box ['10.5', '20'] is not four numbers; fetch the file again"


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(mine: Path, tmp_path: Path) -> None:
    """Nothing of it runs."""
    trap = tmp_path / "trap"
    truth = tmp_path / "gnd_rparis6k.pkl"
    truth.write_bytes(pickle.dumps({"imlist": _Trap(trap), "qimlist": [], "gnd": []}))

    message = refused("rparis6k", "--images", mine, "--ground-truth", truth)

    assert message.startswith(f"{truth} names posix.mkdir, which lists of numbers do not need; no code ran")
    assert not trap.exists()


def test_a_corrupt_photograph_ends_the_run_with_its_name(mine: Path, features: Path) -> None:
    """No score is better than a wrong one."""
    path = mine / "sky/china.jpg"
    path.write_bytes(path.read_bytes()[:5000])

    message = refused("folders", "--images", mine, "--cache", features)

    assert message.startswith("china.jpg cannot be described (china.jpg: not a complete JPEG")


def test_a_torn_feature_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mine: Path, features: Path, cache: Path
) -> None:
    """With what to do; done so, the run completes."""
    flags = ("folders", "--images", mine, "--descriptors", "mac")
    run_here(*flags, "--cache", features)
    shutil.copytree(features, cache)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:100])

    message = refused_here(monkeypatch, capsys, *flags, "--cache", cache)

    torn = Path(message.partition(" is corrupt: delete it; ")[0])
    assert torn.parent == cache
    assert torn.is_file()


# --- real data sets -----------------------------------------------------------------------------------------------

VOC = Path("coco128-voc/VOCdevkit/VOC2010")


@pytest.fixture(scope="module")
def paris(data: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the numbers of 150 pictures of Paris among 50 others, with the ready-made whiteners."""
    folder = tmp_path_factory.mktemp("paris")
    for path in corel(data)[0]:
        (folder / path.name).symlink_to(path)
    pictures = ("--images", data / "paris-mini/jpg", "--images", folder)
    flags = ("--ground-truth", data / "paris-mini/gt", "--cache", features)

    printed = run_here("paris6k", *pictures, *flags, "--json", folder / "scores.json")

    assert "8 of 55 queries over 150 of 6392 images and 50 distractors: a subset" in printed
    numbers: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return numbers


@pytest.mark.parametrize("reading", ["original", "query excluded"])
@pytest.mark.parametrize("descriptor", ["what-and-where", "fused"])
def test_paris_is_found_as_well_as_by_the_best_baseline(paris: dict[str, Any], descriptor: str, reading: str) -> None:
    """In a single pass, half a point below R-MAC at the least."""
    means = {
        score["descriptor"]: 100 * score["means"][reading]["mAP"]
        for score in paris["scores"]
        if score["expansion"] == 0
    }

    assert means[descriptor] >= means["r-mac"] - 0.5


def test_paris_is_localized(paris: dict[str, Any]) -> None:
    """From stored factors ten points above the whole picture."""
    overlaps = paris["localization"]["mean_iou"]

    assert paris["localization"]["pairs"] == 16
    assert 100 * overlaps["NMF stored"] >= 100 * overlaps["whole image"] + 10


def test_pictures_in_the_form_of_voc_are_scored(data: Path, features: Path, tmp_path: Path) -> None:
    """By AP@30 first; nothing is localized between pictures of a class. There are 40 of the pictures."""
    folder = tmp_path / "VOC2010"
    shutil.copytree(data / VOC, folder, ignore=shutil.ignore_patterns("JPEGImages", "Segmentation*"))
    (folder / "JPEGImages").mkdir()
    for path in sorted((data / VOC / "JPEGImages").iterdir())[:40]:
        (folder / "JPEGImages" / path.name).symlink_to(path)

    printed = run_here("voc2010", "--images", folder, "--descriptors", "what-and-where", "--cache", features)

    assert "| descriptor | AP@30 | mAP | bytes per image |" in printed
    assert "17 of 100 queries over 40 of 10103 images: a subset" in printed
    assert "IoU" not in printed


def test_classes_of_a_csv_are_found(data: Path, features: Path, tmp_path: Path) -> None:
    """Ten pictures ask 50 others of ten classes; by chance one of ten would be of the class."""
    rows = [
        f"{path.relative_to(data / 'corel1k')},{place * 10 // len(paths)},{use}"
        for paths, use in zip(corel(data), ("database", "query"), strict=True)
        for place, path in enumerate(paths)
    ]
    listed = tmp_path / "corel.csv"
    listed.write_text("\n".join(["name,class,use", *rows]))
    flags = (
        "--ground-truth",
        listed,
        "--descriptors",
        "fused",
        "--cache",
        features,
        "--json",
        tmp_path / "scores.json",
    )

    printed = run_here("folders", "--images", data / "corel1k", *flags)

    assert "All 10 queries over all 50 images" in printed
    (single, _) = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert single["means"]["same class"]["AP@30"] > 0.7
