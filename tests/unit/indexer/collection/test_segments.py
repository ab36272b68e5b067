"""Which files of vectors a generation takes over, writes anew, writes together."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import whatwhere.indexer.collection.segments
import whatwhere.indexer.vectors.factories
from tests.made_up import DIMENSIONS, RECIPE, append, fill, stored, take_away, vector_of
from whatwhere.indexer.collection.derivation import derived_vectors
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.segments import Planned, SegmentWriter, plan_segments
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.vectors.conditions import Facts
from whatwhere.indexer.vectors.store import SegmentEntry, VectorSource


def held(*sizes: int) -> list[tuple[SegmentEntry, NDArray[np.int64]]]:
    """Return segments of so many ids each, one after the other from 1."""
    ends = np.cumsum([0, *sizes])
    return [
        (SegmentEntry(f"{place}", "Flat", size, 0, ""), np.arange(ends[place], ends[place + 1]) + 1)
        for place, size in enumerate(sizes)
    ]


def no_facts(_: NDArray[np.int64]) -> list[Facts]:
    """Stand for the facts that files keep none of."""
    return []


def up_to(count: int, *gone: int) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(1, count + 1), gone)


def shape(
    segments: Sequence[tuple[SegmentEntry, NDArray[np.int64]]], live: NDArray[np.int64], *, merged: bool = False
) -> list[tuple[int, bool]]:
    """Return of each planned segment how many ids it has and whether the file stays; together they are all live ids."""
    planned = plan_segments(segments, live, merged=merged)
    np.testing.assert_array_equal(np.sort(np.concatenate([[], *(each.ids for each in planned)])), live)
    return [(len(each.ids), each.entry is not None) for each in planned]


@pytest.mark.parametrize(
    ("sizes", "live", "expected"),
    [
        ((), up_to(0), []),
        ((), up_to(10), [(10, False)]),
        ((100,), up_to(100), [(100, True)]),
        ((100,), up_to(101), [(100, True), (1, False)]),
        ((100,), up_to(150), [(100, True), (50, False)]),
        ((100,), up_to(151), [(151, False)]),
        ((100, 50), up_to(160), [(100, True), (50, True), (10, False)]),
        ((100, 50), up_to(176), [(176, False)]),
        ((1000, 50, 20), up_to(1081), [(1000, True), (81, False)]),
    ],
    ids=["nothing", "first", "no change", "one more", "half as many", "more", "a third", "cascade", "only the small"],
)
def test_small_segments_are_written_together_before_large_ones(
    sizes: tuple[int, ...], live: NDArray[np.int64], expected: list[tuple[int, bool]]
) -> None:
    """A file is written again with the next one when that is more than half as large."""
    assert shape(held(*sizes), live) == expected


def test_a_collection_that_grows_daily_writes_each_vector_a_few_times() -> None:
    """A hundred days of one percent: at most log2 files, and log2 writings of a vector on the average."""
    files: list[tuple[SegmentEntry, NDArray[np.int64]]] = held(1000)
    written = 0
    for day in range(1, 101):
        planned = plan_segments(files, up_to(1000 + 10 * day))
        written += sum(len(each.ids) for each in planned if each.entry is None)
        files = [(SegmentEntry(f"{day}", "Flat", len(each.ids), 0, ""), each.ids) for each in planned]
        assert len(files) <= 8

    assert written <= 8 * 1000  # rebuilding every day: 150 000


@pytest.mark.parametrize(
    ("gone", "expected"),
    [(25, [(75, True)]), (26, [(74, False)]), (100, [])],
    ids=["a quarter", "more than a quarter", "all"],
)
def test_a_segment_is_written_anew_when_a_quarter_of_it_is_gone(gone: int, expected: list[tuple[int, bool]]) -> None:
    """Less than that is only remembered as gone, nothing is left of an empty one."""
    assert shape(held(100), up_to(100, *range(1, gone + 1))) == expected


def test_what_comes_back_is_where_it_was() -> None:
    """An id that is live again is found in the segment that held it all along."""
    assert shape(held(100), up_to(100, 5)) == [(99, True)]
    assert shape(held(100), up_to(100)) == [(100, True)]


def test_all_can_be_written_together() -> None:
    """Compaction: one segment; one that is alone and whole stays."""
    assert shape(held(100, 40, 3), up_to(143, 7), merged=True) == [(142, False)]
    assert shape(held(100), up_to(100), merged=True) == [(100, True)]


@pytest.mark.parametrize("at_once", [1024, 3])
def test_vectors_come_through_all_of_it_unchanged(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added one by one, some removed, one brought back: each equals what its shard gives, however many a block has."""
    monkeypatch.setattr(whatwhere.indexer.collection.segments, "_READ_AT_ONCE", at_once)
    monkeypatch.setattr(whatwhere.indexer.collection.derivation, "_READ_AT_ONCE", at_once)
    root = tmp_path / "c.ww"
    for seed in range(1, 14):
        fill(root, [seed])
        if seed % 4 == 0:
            take_away(root, seed - 2)
    fill(root)

    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    assert 1 < len(manifest.indexes["what"].segments) < 6
    with open_collection(root) as reader:
        for image in reader.catalog.images(state="indexed"):
            for name in RECIPE.descriptors:
                expected = vector_of(stored(int(image.content_hash or "")), name)
                np.testing.assert_allclose(reader.index(name).vectors.vector(image.id), expected, rtol=0, atol=1e-6)


def test_each_file_has_the_factory_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed above the size that is compared one by one, the manifest says so; every image finds itself."""
    monkeypatch.setattr(whatwhere.indexer.vectors.factories, "EXACT_AT_MOST", 70)
    root = tmp_path / "c.ww"
    fill(root, range(1, 81))
    manifest = fill(root, range(81, 91))

    assert manifest is not None
    found = {name: [segment.factory for segment in entry.segments] for name, entry in manifest.indexes.items()}
    assert found == {
        "what": ["IVF64,PQ2x4fs,RFlat", "Flat"],
        "what-and-where": ["IVF64,PQ2x4fs,RFlat", "Flat"],
        "fused": ["IVF64,PQ4x4fs,RFlat", "Flat"],
        "r-mac": ["IVF64,PQ2x4fs,RFlat", "Flat"],
    }
    with open_collection(root) as reader:
        for image in reader.catalog.images():
            vector = vector_of(stored(int(image.content_hash or "")), "fused")
            scores, ids = reader.index("fused").vectors.search(vector, 1)
            assert ids.tolist() == [image.id]
            assert scores[0] == pytest.approx(1, abs=1e-5)


def test_vectors_on_their_way_lie_in_a_file_without_a_name(tmp_path: Path) -> None:
    """So a kill leaves nothing of them."""
    layout = Layout(tmp_path / "c.ww")
    seen: list[tuple[list[str], bool]] = []

    def describe(description: Description) -> NDArray[np.float32]:
        beside = [path.name for path in layout.segments.iterdir()]
        seen.append((beside, any(name.startswith(f"{layout.segments}/") for name in open_files())))
        return vector_of(description, "what")

    with open_for_writing(layout.root, RECIPE) as writer:
        append(writer, 1)
        origin = VectorSource("what", DIMENSIONS, partial(derived_vectors, layout, writer.catalog, describe), no_facts)
        SegmentWriter(layout, origin, "1", "Flat").write_all([Planned(np.array([1]))])

    assert seen == [([], True)]
    assert [path.name for path in layout.segments.iterdir()] == ["1.0.faiss"]


def open_files() -> Iterator[str]:
    """Yield the names of this process's open files."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing itself
            yield os.readlink(f"/proc/self/fd/{number}")


def test_a_full_disk_is_found_before_any_vector_is_derived(tmp_path: Path) -> None:
    """Room is taken for all of them first, here 40 MB of the one that a file may have."""

    def describe(_: Description) -> NDArray[np.float32]:
        pytest.fail("a vector was derived")

    with open_for_writing(tmp_path / "c.ww", RECIPE) as writer:
        append(writer, 1)
        origin = VectorSource("what", 1024, partial(derived_vectors, writer.layout, writer.catalog, describe), no_facts)
        segments = SegmentWriter(writer.layout, origin, "1", "Flat")
        with file_sizes_up_to(1_000_000), pytest.raises(OSError, match="File too large"):
            segments.write_all([Planned(np.arange(1, 10_001))])

        assert list(writer.layout.segments.iterdir()) == []


@contextmanager
def file_sizes_up_to(byte_count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (byte_count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_damaged_segment_is_not_written_on(tmp_path: Path) -> None:
    """Merging would give a changed vector a good checksum."""
    root = tmp_path / "c.ww"
    fill(root, [1, 2])
    path = Layout(root).segments / "000001.what.0.faiss"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)

    with pytest.raises(CollectionCorrupt, match=r"000001\.what\.0\.faiss is missing or damaged"):
        fill(root, [3, 4])

    assert Layout(root).current_number() == 1
