"""Oxford5k and Paris6k: text files to queries, and what is missing or torn."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.errors import BenchmarkUnreadable, UnknownName
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, Judgment, LeftOut
from whatwhere.service.evaluation.retrieval.datasets import BENCHMARKS, load_benchmark
from whatwhere.service.evaluation.retrieval.oxford import PARIS_CORRUPT, read_oxford


def louvre(number: int) -> str:
    return f"paris_louvre_{number:06d}"


def touch(folder: Path, *names: str) -> Path:
    """Make files that are called like pictures; no reader of ground truth opens them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Give five pictures of the Louvre, in folders and with suffixes as they come."""
    names = (f"a/{louvre(1)}.jpg", f"a/{louvre(2)}.JPG", f"b/{louvre(3)}.jpg", f"{louvre(4)}.jpeg", f"{louvre(5)}.jpg")
    return touch(tmp_path / "images", *names)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Give one query for the Louvre: its own picture is good, one is ok, one junk; one of each is not there."""
    folder = tmp_path / "gt"
    folder.mkdir()
    write_query(folder, "louvre_1", f"{louvre(1)} 10 20.5 300 400\n", [1], [2, 9], [3, 8])
    return folder


def write_query(folder: Path, name: str, query: str, good: list[int], ok: list[int], junk: list[int]) -> None:
    (folder / f"{name}_query.txt").write_text(query)
    for kind, numbers in (("good", good), ("ok", ok), ("junk", junk)):
        (folder / f"{name}_{kind}.txt").write_text("".join(f"{louvre(number)}\n" for number in numbers))


def judged(positives: set[int], junk: set[int]) -> Judgment:
    return Judgment(frozenset(map(louvre, positives)), frozenset(map(louvre, junk)))


def test_a_query_has_its_picture_its_box_and_its_building(images: Path, truth: Path) -> None:
    """From the name of the file and the line in it."""
    (query,) = load_benchmark("paris6k", [images], truth).queries

    assert (query.name, query.image, query.group) == ("louvre_1", louvre(1), "louvre")
    assert query.box == (10, 20.5, 300, 400)


def test_the_two_readings_differ_in_the_querys_own_picture(images: Path, truth: Path) -> None:
    """A positive in the original one, junk in the other; pictures that are not there are in neither."""
    (query,) = load_benchmark("paris6k", [images], truth).queries

    assert query.judgments == {"original": judged({1, 2}, {3}), "query excluded": judged({2}, {1, 3})}


def test_pictures_are_found_in_folders_and_by_any_suffix(images: Path, truth: Path) -> None:
    """Names are stems; the query's picture is searched too."""
    benchmark = load_benchmark("paris6k", [images], truth)

    assert set(benchmark.images) == {louvre(number) for number in range(1, 6)}
    assert benchmark.images[louvre(2)].samefile(images / "a" / f"{louvre(2)}.JPG")
    assert benchmark.query_images == {louvre(1): benchmark.images[louvre(1)]}
    assert (benchmark.readings, benchmark.metrics) == (("original", "query excluded"), ("mAP",))


def test_oxfords_prefix_in_query_files_is_no_part_of_the_name(tmp_path: Path) -> None:
    """The lists and the files lack it."""
    images = touch(tmp_path / "images", "all_souls_000013.jpg", "all_souls_000026.jpg")
    truth = touch(tmp_path / "gt", "all_souls_1_ok.txt", "all_souls_1_junk.txt")
    (truth / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 136.5 34.1 648.5 955.7")
    (truth / "all_souls_1_good.txt").write_text("all_souls_000013\nall_souls_000026\n")

    (query,) = load_benchmark("oxford5k", [images], truth).queries

    assert (query.image, query.group) == ("all_souls_000013", "all_souls")


def test_other_pictures_are_distractors_from_any_folder(images: Path, truth: Path, tmp_path: Path) -> None:
    """They are searched, and counted apart; the same file by two ways is one."""
    further = touch(tmp_path / "further", "one/1.jpg", "two/1.jpg", "notes.txt", "._hidden.jpg")

    benchmark = load_benchmark("paris6k", [images, further, further / "one"], truth)

    assert benchmark.coverage.distractor_count == 2
    assert len(benchmark.images) == 7
    assert benchmark.coverage.sentence.startswith("1 of 55 queries over 5 of 6392 images and 2 distractors: a subset")


def test_the_corrupt_files_of_paris_are_not_searched(images: Path, truth: Path) -> None:
    """6412 files less 20."""
    touch(images, *(f"{name}.jpg" for name in PARIS_CORRUPT))

    benchmark = load_benchmark("paris6k", [images], truth)

    assert len(PARIS_CORRUPT) == 6412 - 6392
    assert len(benchmark.images) == 5


def test_a_query_without_its_picture_is_left_out_and_said(images: Path, truth: Path) -> None:
    """So is one in the reading in which nothing is left to find."""
    write_query(truth, "louvre_2", f"{louvre(9)} 0 0 5 5", [1], [], [])
    write_query(truth, "louvre_3", f"{louvre(4)} 0 0 5 5", [4], [8], [])

    benchmark = load_benchmark("paris6k", [images], truth)

    assert [query.name for query in benchmark.queries] == ["louvre_1", "louvre_3"]
    assert set(benchmark.queries[1].judgments) == {"original"}
    assert benchmark.coverage.left_out == (
        LeftOut("louvre_2", None, f"its picture {louvre(9)} was not found"),
        LeftOut("louvre_3", "query excluded", "none of its positives was found"),
    )
    assert benchmark.coverage.is_subset


def test_the_whole_set_is_no_subset(tmp_path: Path) -> None:
    """5063 pictures and 55 queries."""
    names = [f"oxford_{number:06d}" for number in range(5063)]
    images = touch(tmp_path / "images", *(f"{name}.jpg" for name in names))
    truth = tmp_path / "gt"
    for number in range(55):
        touch(truth, f"keble_{number}_good.txt", f"keble_{number}_junk.txt")
        (truth / f"keble_{number}_query.txt").write_text(f"oxc1_{names[number]} 0 0 9 9")
        (truth / f"keble_{number}_ok.txt").write_text("\n".join(names[:60]))

    coverage = load_benchmark("oxford5k", [images], truth).coverage

    assert not coverage.is_subset
    assert coverage.sentence == "all 55 queries over all 5063 images"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("louvre_1_query.txt", b"", "louvre_1_query.txt is empty"),
        ("louvre_1_query.txt", f"{louvre(1)} 1 2 3".encode(), "not four numbers"),
        ("louvre_1_query.txt", f"{louvre(1)} 1 2 3 4 5".encode(), "not four numbers"),
        ("louvre_1_query.txt", f"{louvre(1)} 1 2 3 wide".encode(), "not four numbers"),
        ("louvre_1_query.txt", f"{louvre(1)} 1 2 3 nan".encode(), "no area"),
        ("louvre_1_query.txt", f"{louvre(1)} 30 2 30 4".encode(), "no area"),
        ("louvre_1_query.txt", f"{louvre(1)} 1 9 3 4".encode(), "no area"),
        ("louvre_1_query.txt", b"all_souls_000013 1 2 3 4", "'all_souls_000013' is not a picture of paris6k"),
        ("louvre_1_ok.txt", b"paris_lou", "louvre_1_ok.txt: 'paris_lou' is not a picture"),
        ("louvre_1_ok.txt", b"\xff\xfe", "louvre_1_ok.txt: byte 0 is not UTF-8"),
        ("louvre_1_ok.txt", f"{louvre(3)}\n".encode(), f"louvre_1: {louvre(3)} is both positive and junk"),
    ],
)
def test_torn_ground_truth_is_an_error_that_names_the_file(
    images: Path, truth: Path, file: str, content: bytes, says: str
) -> None:
    """What is wrong, and where."""
    (truth / file).write_bytes(content)

    with pytest.raises(BenchmarkUnreadable, match=says):
        load_benchmark("paris6k", [images], truth)


@pytest.mark.parametrize("kind", ["good", "ok", "junk"])
def test_a_missing_list_is_an_error(images: Path, truth: Path, kind: str) -> None:
    """An empty file would say that there are none; no file says nothing."""
    (truth / f"louvre_1_{kind}.txt").unlink()

    with pytest.raises(BenchmarkUnreadable, match=f"louvre_1_{kind}.txt cannot be read"):
        load_benchmark("paris6k", [images], truth)


def test_what_is_missing_altogether_is_an_error_with_a_remedy(images: Path, truth: Path, tmp_path: Path) -> None:
    """Folders, ground truth, pictures, a query to ask."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for folders, ground_truth, says in (
        ([tmp_path / "none"], truth, "none is not a folder"),
        ([empty], truth, "no picture below"),
        ([], truth, "no image folder was given"),
        ([images], empty, "has no \\*_query.txt"),
        ([images], tmp_path / "none", "none is not a folder"),
        ([images], None, "needs its ground truth"),
        ([touch(tmp_path / "others", "1.jpg")], truth, "no query is left"),
    ):
        with pytest.raises(BenchmarkUnreadable, match=says):
            load_benchmark("paris6k", folders, ground_truth)


def test_two_pictures_of_one_name_are_an_error(images: Path, truth: Path) -> None:
    """Which one was meant is not ours to guess."""
    touch(images, f"c/{louvre(1)}.jpg")

    with pytest.raises(BenchmarkUnreadable, match="have the same name"):
        load_benchmark("paris6k", [images], truth)


def test_an_unknown_data_set_is_told_which_there_are(images: Path) -> None:
    """Every name is in the message."""
    with pytest.raises(UnknownName) as refused:
        load_benchmark("paris5k", [images])

    assert all(name in str(refused.value) for name in BENCHMARKS)


@given(content=st.binary(max_size=60), file=st.sampled_from(["query", "ok", "junk"]))
def test_any_bytes_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, file: str
) -> None:
    """Never a traceback from below."""
    root = tmp_path_factory.mktemp("torn")
    images = touch(root / "images", f"{louvre(1)}.jpg")
    (root / "gt").mkdir()
    write_query(root / "gt", "louvre_1", f"{louvre(1)} 1 2 3 4", [1], [], [])
    (root / "gt" / f"louvre_1_{file}.txt").write_bytes(content)

    try:
        found: object = read_oxford("paris6k", [images], root / "gt")
    except BenchmarkUnreadable as error:
        found = error

    assert isinstance(found, Benchmark | BenchmarkUnreadable)


def test_the_subset_of_paris_asks_what_its_pictures_allow(data: Path) -> None:
    """Eight of nine queries whose picture is among the 150; of the positives of triomphe_5 only La Défense is there."""
    benchmark = load_benchmark("paris6k", [data / "paris-mini/jpg"], data / "paris-mini/gt")

    names = ["defense_4", "defense_5", "invalides_2", "invalides_5", *(f"louvre_{n}" for n in range(1, 5))]
    assert [query.name for query in benchmark.queries] == names
    assert len(benchmark.images) == 150
    assert all(set(query.judgments) == {"original", "query excluded"} for query in benchmark.queries)
    reasons = {left_out.query: left_out.reason for left_out in benchmark.coverage.left_out}
    assert len(reasons) == 55 - 8
    assert re.fullmatch(r"only \d of its 28\d positives were found", reasons["triomphe_5"])


def test_distractors_join_the_subset_of_paris(data: Path) -> None:
    """500 pictures of other things, searched with the 150."""
    folders = [data / "paris-mini/jpg", data / "distractors"]

    benchmark = load_benchmark("paris6k", folders, data / "paris-mini/gt")

    assert (len(benchmark.images), benchmark.coverage.distractor_count) == (650, 500)


@pytest.mark.parametrize("name", ["oxford-gt", "paris-mini/gt"])
def test_the_official_ground_truth_reads_whole(data: Path, tmp_path: Path, name: str) -> None:
    """55 queries, five for each of eleven buildings, each with its own picture as a positive."""
    named = {line.split()[0] for path in (data / name).glob("*.txt") for line in path.read_text().splitlines()}
    images = touch(tmp_path / "images", *(f"{image.removeprefix('oxc1_')}.jpg" for image in named))

    benchmark = load_benchmark("paris6k" if "paris" in name else "oxford5k", [images], data / name)

    groups = [query.group for query in benchmark.queries]
    assert (len(groups), {groups.count(group) for group in groups}) == (55, {5})
    assert all(query.image in query.judgments["original"].positives for query in benchmark.queries)
    assert benchmark.coverage.left_out == ()
