"""ROxford5k and RParis6k: a pickle to queries, without running what stands in the pickle."""

import codecs
import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, Judgment
from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
from whatwhere.service.evaluation.retrieval.pickles import read_plain_pickle
from whatwhere.service.evaluation.retrieval.revisited import read_revisited

SEARCHED = [f"paris_louvre_{number:06d}" for number in range(6)]
ASKED = ["paris_general_000001", "paris_louvre_000100", "paris_eiffel_000007"]


def labels(easy: Any, hard: Any, junk: Any, bbx: Any = (1.5, 2.0, 30.0, 40.0)) -> dict[str, Any]:
    return {"easy": easy, "hard": hard, "junk": junk, "bbx": bbx}


def truth(**changes: Any) -> dict[str, Any]:
    """Return what the pickle holds: two queries for one building, one for another."""
    whole = {
        "imlist": SEARCHED,
        "qimlist": ASKED,
        "gnd": [
            labels(np.array([0, 1]), np.array([2]), np.array([3])),
            labels([0], (1, 2, 3), [np.int64(5)], bbx=np.array([0.0, 0.0, 9.0, 9.0])),
            labels(np.array([]), np.array([4], dtype=np.uint16), []),
        ],
    }
    return whole | changes


def with_query(**changes: Any) -> dict[str, Any]:
    return truth(qimlist=ASKED[:1], gnd=[labels([0], [1], [2]) | changes])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Give files called like all pictures, and one that is in no list."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in [*SEARCHED, *ASKED, "other"]:
        (folder / f"{name}.jpg").touch()
    return folder


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    path = folder / "gnd_rparis6k.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def names(*positions: int) -> frozenset[str]:
    return frozenset(SEARCHED[position] for position in positions)


@pytest.mark.parametrize("protocol", range(6))
def test_each_reading_counts_and_skips_what_revisitop_does(images: Path, tmp_path: Path, protocol: int) -> None:
    """Easy, medium and hard, from arrays, lists and scalars in every pickle protocol."""
    benchmark = load_benchmark("rparis6k", [images], written(tmp_path, truth(), protocol))

    first, second, third = benchmark.queries
    assert first.judgments == {
        "easy": Judgment(names(0, 1), names(2, 3)),
        "medium": Judgment(names(0, 1, 2), names(3)),
        "hard": Judgment(names(2), names(0, 1, 3)),
    }
    assert second.judgments["medium"] == Judgment(names(0, 1, 2, 3), names(5))
    assert set(third.judgments) == {"medium", "hard"}
    assert (first.box, second.box) == ((1.5, 2.0, 30.0, 40.0), (0.0, 0.0, 9.0, 9.0))


def test_the_queries_pictures_are_not_searched(images: Path, tmp_path: Path) -> None:
    """They are in no list of positives; pictures in neither list are distractors."""
    benchmark = load_benchmark("rparis6k", [images], written(tmp_path, truth()))

    assert set(benchmark.images) == {*SEARCHED, str(images / "other.jpg")}
    assert set(benchmark.query_images) == set(ASKED)
    assert benchmark.coverage.sentence.startswith("3 of 70 queries over 6 of 6322 images and 1 distractors: a subset")
    assert (benchmark.readings, benchmark.metrics[0]) == (("easy", "medium", "hard"), "mAP")


def test_queries_for_one_building_are_one_group(images: Path, tmp_path: Path) -> None:
    """Known by their lists, since the name of a picture can be that of another place."""
    benchmark = load_benchmark("rparis6k", [images], written(tmp_path, truth()))

    assert [query.group for query in benchmark.queries] == [ASKED[0], ASKED[0], ASKED[2]]
    assert len({query.name for query in benchmark.queries}) == 3


def test_the_folder_of_the_pickle_can_be_given(images: Path, tmp_path: Path) -> None:
    """The file has the name of the set."""
    written(tmp_path, truth())

    assert len(load_benchmark("rparis6k", [images], tmp_path).queries) == 3
    with pytest.raises(BenchmarkUnreadable, match=r"gnd_roxford5k.pkl cannot be read"):
        load_benchmark("roxford5k", [images], tmp_path)


def test_a_query_whose_picture_is_absent_is_left_out(images: Path, tmp_path: Path) -> None:
    """And said."""
    (images / f"{ASKED[0]}.jpg").unlink()

    benchmark = load_benchmark("rparis6k", [images], written(tmp_path, truth()))

    assert [query.image for query in benchmark.queries] == ASKED[1:]
    assert benchmark.coverage.left_out[0].reason == f"its picture {ASKED[0]} was not found"


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Strings of bytes, NumPy's old module, an array's memory in a string; written out by hand."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xe9\\x01\\x00\\x00\\x00\\x00\\x00\\x00'\ntb"
    )
    path = tmp_path / "old.pkl"
    path.write_bytes(b"(dS'easy'\n" + array + b"sS'name'\nS'louvre'\ns.")

    assert read_plain_pickle(path) == {"easy": [5, 489], "name": "louvre"}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i4", "u2", "f8", "U3", "S3"])
def test_arrays_of_either_byte_order_keep_their_entries(tmp_path: Path, order: str, kind: str) -> None:
    """Numbers and texts."""
    array = np.array([1, 20, 3]).astype(order + kind)

    assert read_plain_pickle(written(tmp_path, [array, array[:0]])) == [array.tolist(), []]


class Malicious:
    """Makes a file when it is unpickled the ordinary way."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "call", [os.mkdir, eval, codecs.lookup, np.load, np.lib.format.open_memmap], ids=lambda call: call.__name__
)
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, call: Any) -> None:
    """The call that would leave a mark leaves none; the error names it."""
    mark = tmp_path / "mark"
    argument = f"__import__('os').mkdir({str(mark)!r})" if call is eval else str(mark)
    path = written(tmp_path, truth(gnd=[Malicious(call, argument)]))

    with pytest.raises(BenchmarkUnreadable, match=f"names .*{call.__name__}.*no code ran"):
        read_plain_pickle(path)

    assert not mark.exists()


def test_the_same_pickle_leaves_its_mark_when_loaded_the_ordinary_way(tmp_path: Path) -> None:
    """So the test above could fail."""
    mark = tmp_path / "mark"

    pickle.loads(pickle.dumps(Malicious(os.mkdir, str(mark))))

    assert mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",  # a call of what is named
        b"\x8c\x05numpy\x8c\x07ndarray.tofile\x93.",  # a name within an allowed one
        b"cnumpy\nndarray\n}S'__class__'\nI1\nsb.",  # attributes set on a stand-in
        b"cnumpy\nndarray\n(N}S'__class__'\nI1\nstb.",
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",  # any codec
        b"cnumpy\ndtype\n(S'O'\ntR(I3\nS'|'\ntb.(cnumpy.core.multiarray\nscalar\n",
        b"(lp0\ng0\na",  # no end
        b"\x80\xff.",
        b"",
    ],
)
def test_hand_made_programs_are_refused_or_harmless(tmp_path: Path, program: bytes) -> None:
    """Whatever a pickle does with the allowed names, arrays read afterwards are right."""
    path = tmp_path / "hand.pkl"
    path.write_bytes(program)

    with contextlib.suppress(BenchmarkUnreadable):
        read_plain_pickle(path)

    assert read_plain_pickle(written(tmp_path, np.array([4, 5]))) == [4, 5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "is a list: expected a dictionary with imlist, qimlist, gnd"),
        ({"imlist": SEARCHED, "gnd": []}, "lacks qimlist"),
        (truth(imlist=7), "imlist is a int"),
        (truth(imlist=[*SEARCHED, 7]), "imlist: 7 is not a picture name"),
        (truth(imlist=[*SEARCHED, SEARCHED[0]]), "imlist has a picture twice"),
        (truth(gnd=7), "gnd is not a list"),
        (truth(gnd=[labels([0], [], [])]), "one entry per query in qimlist"),
        (with_query(easy=[6]), r"easy: 6 is not a position in imlist, 0 to 5"),
        (with_query(easy=[-1]), "-1 is not a position"),
        (with_query(hard=["one"]), "hard: 'one' is not a position"),
        (with_query(hard=[True]), "True is not a position"),
        (with_query(hard=np.array([1.5])), "1.5 is not a whole number"),
        (with_query(hard=np.array([np.nan])), "nan is not a position"),
        (with_query(junk=None), "junk is a NoneType"),
        (with_query(junk=[1]), "is in more than one of easy, hard and junk"),
        (with_query(bbx=[1, 2, 3]), "not four numbers"),
        (with_query(bbx=[1, 2, None, 4]), "not four numbers"),
        (with_query(bbx=[5, 2, 1, 4]), "has no area"),
        (truth(gnd=[7, 7, 7]), f"gnd of {ASKED[0]} is a int"),
        (truth(gnd=[{"easy": []}] * 3), "lacks hard, junk, bbx"),
        (with_query(easy=np.array([[0, 1]])), "is not a pickle of lists and arrays"),
    ],
)
def test_a_wrong_structure_is_an_error_that_says_where(images: Path, tmp_path: Path, content: Any, says: str) -> None:
    """The field, the query and the value."""
    with pytest.raises(BenchmarkUnreadable, match=says):
        load_benchmark("rparis6k", [images], written(tmp_path, content))


@given(cut=st.integers(0, 2000), wrong=st.binary(max_size=3), at=st.integers(0, 2000))
def test_torn_pickles_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, cut: int, wrong: bytes, at: int
) -> None:
    """Cut off, or with other bytes in the middle: never a traceback from below."""
    folder = tmp_path_factory.mktemp("torn")
    for name in [*SEARCHED, *ASKED]:
        (folder / f"{name}.jpg").touch()
    whole = pickle.dumps(truth(), protocol=2)
    path = folder / "gnd.pkl"
    path.write_bytes((whole[:at] + wrong + whole[at + len(wrong) :])[: cut or None])

    try:
        found: object = read_revisited("rparis6k", [folder], path)
    except BenchmarkUnreadable as error:
        found = error

    assert isinstance(found, Benchmark | BenchmarkUnreadable)
