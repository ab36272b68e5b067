"""A set of one's own: classes from folders or from a CSV file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, Judgment
from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
from whatwhere.service.evaluation.retrieval.folders import READING, read_folders


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Give three cats, one of them deeper down, and two dogs."""
    folder = tmp_path / "images"
    for name in ("cat/1.jpg", "cat/2.png", "more/cat/3.jpg", "dog/1.jpg", "dog/2.jpg", "dog/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path, text: str) -> Path:
    path = folder / "classes.csv"
    path.write_text(text)
    return path


def test_the_class_is_the_folder_that_holds_the_picture(images: Path) -> None:
    """Every picture asks for the others of its class; its own is skipped."""
    benchmark = load_benchmark("folders", [images])

    judged = {query.name: query.judgments[READING] for query in benchmark.queries}
    assert (
        set(judged) == set(benchmark.images) == {"cat/1.jpg", "cat/2.png", "more/cat/3.jpg", "dog/1.jpg", "dog/2.jpg"}
    )
    assert judged["cat/1.jpg"] == Judgment(frozenset({"cat/2.png", "more/cat/3.jpg"}), frozenset({"cat/1.jpg"}))
    assert {(query.group, query.box) for query in benchmark.queries} == {("cat", None), ("dog", None)}
    assert benchmark.metrics == ("AP@30", "mAP")


def test_a_csv_says_the_class_and_the_use(images: Path, tmp_path: Path) -> None:
    """What only asks is not searched, what is only searched does not ask, and what is not named does neither."""
    rows = "cat/1.jpg,feline,query\ncat/2.png,feline,database\ndog/1.jpg,canine,both\ndog/2.jpg,canine,\n"

    benchmark = load_benchmark("folders", [images], listed(tmp_path, "name,class,use\n" + rows))

    assert set(benchmark.images) == {"cat/2.png", "dog/1.jpg", "dog/2.jpg"}
    assert set(benchmark.query_images) == {"cat/1.jpg", "dog/1.jpg", "dog/2.jpg"}
    assert benchmark.queries[0].judgments[READING] == Judgment(frozenset({"cat/2.png"}), frozenset())
    assert benchmark.coverage.sentence == "all 3 queries over all 3 images"


def test_a_csv_without_uses_lets_every_picture_ask(images: Path, tmp_path: Path) -> None:
    """With a byte order mark, Windows' line ends and quotes, as spreadsheets write them."""
    path = tmp_path / "classes.csv"
    path.write_bytes('\ufeffname,class\r\n"cat/1.jpg","a ""cat"", small"\r\ncat/2.png,"a ""cat"", small"\r\n'.encode())

    benchmark = load_benchmark("folders", [images], path)

    assert [query.group for query in benchmark.queries] == ['a "cat", small'] * 2


def test_pictures_that_a_csv_names_in_vain_make_a_subset(images: Path, tmp_path: Path) -> None:
    """The query is left out with its reason, and the counts say how much is there."""
    text = "name,class\ncat/1.jpg,cat\ncat/2.png,cat\ncat/9.jpg,cat\n../classes.csv,cat\n"

    coverage = load_benchmark("folders", [images], listed(tmp_path, text)).coverage

    assert coverage.is_subset
    assert coverage.sentence.startswith("2 of 4 queries over 2 of 4 images: a subset")
    assert coverage.left_out[0].reason == "its picture cat/9.jpg was not found"


def test_the_only_picture_of_a_class_has_nothing_to_find(images: Path) -> None:
    """It is searched, but does not ask."""
    (images / "dog/2.jpg").unlink()

    benchmark = load_benchmark("folders", [images])

    assert "dog/1.jpg" in benchmark.images
    assert "dog/1.jpg" not in {query.name for query in benchmark.queries}
    assert [(left.query, left.reading) for left in benchmark.coverage.left_out] == [("dog/1.jpg", READING)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: the header is ''"),
        ("file,class\na,b\n", "line 1: the header is 'file,class'"),
        ("name;class\n", "line 1"),
        ("name,class\ncat/1.jpg,cat\ncat/2.png\n", "line 3: 1 columns, the header has 2"),
        ("name,class\ncat/1.jpg,cat,query\n", "line 2: 3 columns"),
        ("name,class\n,cat\n", "line 2: the name is empty"),
        ("name,class\ncat/1.jpg,\n", "line 2: the class is empty"),
        ("name,class,use\ncat/1.jpg,cat,test\n", "line 2: the use 'test' is not one of query, database, both"),
        ("name,class\ncat/1.jpg,cat\n\ncat/1.jpg,dog\n", "line 4: 'cat/1.jpg' is listed twice"),
        ('name,class\n"cat/1.jpg"x,cat\n', "line 2"),
        ('name,class\n"cat/1.jpg,cat\n', "line 2"),
        ("name,class\ncat/9.jpg,cat\n", "no query is left"),
    ],
)
def test_a_wrong_csv_is_an_error_that_names_the_line(images: Path, tmp_path: Path, text: str, says: str) -> None:
    """What is wrong, and where."""
    with pytest.raises(BenchmarkUnreadable, match=says):
        load_benchmark("folders", [images], listed(tmp_path, text))


def test_a_picture_outside_all_classes_is_an_error(images: Path) -> None:
    """The folder of all classes is no class."""
    (images / "stray.jpg").touch()

    with pytest.raises(BenchmarkUnreadable, match=r"stray.jpg has no class"):
        load_benchmark("folders", [images])


def test_one_name_in_two_folders_is_an_error(images: Path, tmp_path: Path) -> None:
    """Names are paths below the folders that were given."""
    (tmp_path / "other/cat").mkdir(parents=True)
    (tmp_path / "other/cat/1.jpg").touch()

    with pytest.raises(BenchmarkUnreadable, match=r"are both cat/1.jpg below their folders"):
        load_benchmark("folders", [images, tmp_path / "other"])


@given(content=st.binary(max_size=80), has_header=st.booleans())
def test_any_bytes_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, has_header: bool
) -> None:
    """Never a traceback from below."""
    folder = tmp_path_factory.mktemp("torn")
    (folder / "1.jpg").touch()
    path = folder / "classes.csv"
    path.write_bytes(b"name,class\n" * has_header + content)

    try:
        found: object = read_folders([folder], path)
    except BenchmarkUnreadable as error:
        found = error

    assert isinstance(found, Benchmark | BenchmarkUnreadable)


def test_corel_is_read_through_a_csv(data: Path, tmp_path: Path) -> None:
    """900 pictures of ten classes searched by 100 others: ninety positives each."""
    searched = "".join(f"images/{number}.jpg,{number // 90},database\n" for number in range(900))
    asking = "".join(f"queries/{number}.jpg,{number // 10},query\n" for number in range(100))

    benchmark = load_benchmark("folders", [data / "corel1k"], listed(tmp_path, "name,class,use\n" + searched + asking))

    assert (len(benchmark.images), len(benchmark.queries)) == (900, 100)
    assert {len(query.judgments[READING].positives) for query in benchmark.queries} == {90}
    assert not benchmark.coverage.is_subset
