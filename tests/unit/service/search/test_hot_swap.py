"""The live generation is followed, swapped and released; one that cannot be opened leaves the old one serving."""

import gc
import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generations import Publisher
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.errors import CollectionReplaced
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.maintenance.transfer import copy_collection
from whatwhere.service.search.hot_swap import LiveSearcher
from whatwhere.service.search.searcher import Query, Searcher

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(collection: Path, tmp_path: Path) -> Path:
    """Give a copy of the collection of photographs, at generation 1."""
    copied = tmp_path / "photographs.ww"
    shutil.copytree(collection, copied)
    return copied


@pytest.fixture
def reported() -> list[bool]:
    """Give the list of what is reported."""
    return []


@pytest.fixture
def live(root: Path, describer: Describer, reported: list[bool]) -> Iterator[LiveSearcher]:
    """Give a searcher that looks for a newer generation when it is told to."""
    with LiveSearcher(Searcher(open_collection(root), describer), report=reported.append) as opened:
        yield opened


def mapped(root: Path) -> set[str]:
    """Return the vector files of a collection that this process has mapped, deleted ones with a note."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.rpartition("/")[2] for line in lines if f"{root}/segments/" in line}


def found(searcher: Searcher) -> list[tuple[str, float]]:
    return [(hit.image.name, hit.score) for hit in searcher.search(Query(image_id=1, count=100)).hits]


def publish_one_more(root: Path) -> None:
    with Publisher(root) as publisher:
        publisher.add(1)
        publisher.publish()


def test_where_nothing_is_new_nothing_is_opened(live: LiveSearcher, reported: list[bool]) -> None:
    """The same searcher goes on."""
    before = live.searcher

    live.refresh()

    assert live.searcher is before
    assert reported == [True]


def test_a_newer_generation_takes_the_place_of_the_old(live: LiveSearcher, root: Path) -> None:
    """What was added is found, and the number is the new one."""
    publish_one_more(root)
    before = found(live.searcher)

    live.refresh()

    assert (live.searcher.generation, len(before), len(found(live.searcher))) == (2, 8, 9)


def test_what_is_newest_is_known_before_it_is_served(live: LiveSearcher, root: Path) -> None:
    """A caller sees that there is something newer."""
    publish_one_more(root)

    before = live.searcher.info()
    live.refresh()
    after = live.searcher.info()

    assert (before.generation, before.latest_generation) == (1, 2)
    assert (after.generation, after.latest_generation) == (2, 2)


def test_a_request_ends_on_the_generation_it_began_on(live: LiveSearcher, root: Path) -> None:
    """What was taken before the swap answers as before it, to the last bit."""
    searcher = live.searcher
    before = found(searcher)
    publish_one_more(root)

    live.refresh()

    assert live.searcher is not searcher
    assert found(searcher) == before


def test_the_old_generation_goes_with_its_last_request(live: LiveSearcher, root: Path) -> None:
    """Nothing holds it: its files leave the memory of the process, without waiting for the garbage collector."""
    with Publisher(root) as publisher:
        publisher.add(20)  # more than half of what there was: written as one new file
        publisher.publish()
    request = live.searcher
    old = weakref.ref(request.collection)
    files = mapped(root)

    gc.disable()
    live.refresh()
    held = mapped(root)
    del request
    released = old() is None
    left = mapped(root)
    gc.enable()

    assert files <= held
    assert released
    assert left.isdisjoint(files)
    assert len(left) == 4  # one for each descriptor


def test_what_both_generations_have_is_mapped_once(live: LiveSearcher, root: Path) -> None:
    """The segments of the old generation are taken over as they are."""
    before = live.searcher.collection.segments
    publish_one_more(root)

    live.refresh()

    after = live.searcher.collection.segments
    assert len(after) == 8
    assert all(after[name] is segment for name, segment in before.items())


def test_what_was_removed_is_not_found_before_the_next_generation(live: LiveSearcher, root: Path) -> None:
    """A hit whose row says removed is left out, of a list too, and its page keeps its place."""
    before = found(live.searcher)
    with Publisher(root) as publisher:
        publisher.remove([int(before[1][0].removeprefix("images/"))])

        hits = live.searcher.search(Query(image_id=1, count=3))
        listed, last_id = live.searcher.images(after_id=0, count=8)

    assert [(hit.image.name, hit.score) for hit in hits.hits] == [before[0], before[2]]
    assert hits.has_more
    assert (len(listed), last_id) == (7, 0)
    assert before[1][0] not in {image.name for image in listed}


def remove_and_copy(live: Path, other: Path) -> None:
    shutil.rmtree(live)
    shutil.copytree(other, live)


def rename(live: Path, other: Path) -> None:
    live.rename(live.with_name("old"))
    other.rename(live)


def turn_the_link(live: Path, other: Path) -> None:
    link = live.with_name("link")
    link.symlink_to(other)
    link.replace(live)


@pytest.mark.parametrize("replaced", [remove_and_copy, rename, turn_the_link])
def test_a_collection_in_the_place_of_another_is_opened_whole(
    root: Path, describer: Describer, caplog: pytest.LogCaptureFixture, replaced: Callable[[Path, Path], None]
) -> None:
    """It has the same generation. Its images have its names; a request that began before ends on the old, or fails."""
    caplog.set_level(logging.INFO)
    at, other = root, root.with_name("other")
    copy_collection(root, other)
    with Publisher(other) as publisher:
        publisher.add(8)
        publisher.remove(range(1, 9))
        publisher.publish()
    publish_one_more(root)
    if replaced is turn_the_link:
        at = root.with_name("live")
        at.symlink_to(root)
    with LiveSearcher(Searcher(open_collection(at), describer)) as live:
        names = {number: live.searcher.image(number).uri for number in range(1, 9)}
        request = live.searcher

        replaced(at, other)
        for number in range(1, 9):
            with suppress(CollectionReplaced):
                assert request.search(Query(image_id=number, count=1)).hits[0].image.uri == names[number]
        live.refresh()

        hits = live.searcher.search(Query(image_id=9, count=100)).hits
        assert (live.searcher.generation, live.searcher.info().latest_generation) == (2, 2)
        assert [hit.image.name for hit in hits][:1] == ["images/9"]
        assert {hit.image.uri for hit in hits} == {f"file:///made/{number:06d}.jpg" for number in range(9, 17)}
        assert f"of another collection, id={live.searcher.collection.identity.id}" in caplog.text


def test_a_removed_collection_is_reported_and_said_where_its_files_are_needed(
    live: LiveSearcher, root: Path, reported: list[bool]
) -> None:
    """What is open answers; a stored image's factors are gone, which is an error to try again and no damage."""
    before = live.searcher.image(1)
    shutil.rmtree(root)

    live.refresh()

    assert live.searcher.image(1) == before
    assert reported == [False]
    with pytest.raises(CollectionReplaced, match="removed or replaced"):
        live.searcher.search(Query(image_id=1))


def break_a_vector(layout: Layout) -> None:
    path = max(layout.segments.iterdir())
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def cut_a_segment(layout: Layout) -> None:
    path = max(layout.segments.iterdir())
    path.write_bytes(path.read_bytes()[:-1])


def tear_the_manifest(layout: Layout) -> None:
    path = layout.generation(2) / "manifest.json"
    path.write_bytes(path.read_bytes()[:-100])


def lose_the_generation(layout: Layout) -> None:
    shutil.rmtree(layout.generation(2))


def lose_a_whitener(layout: Layout) -> None:
    for path in layout.whiteners.iterdir():
        path.unlink()


def tear_current(layout: Layout) -> None:
    layout.current.write_text("0000")


def lose_current(layout: Layout) -> None:
    layout.current.unlink()


BREAKS = [
    (break_a_vector, "CollectionCorrupt"),
    (cut_a_segment, "CollectionCorrupt"),
    (tear_the_manifest, "CollectionCorrupt"),
    (lose_the_generation, "CollectionCorrupt"),
    (lose_a_whitener, "CollectionCorrupt"),
    (tear_current, "CollectionCorrupt"),
    (lose_current, "CollectionNotFound"),
]


@pytest.mark.parametrize(("damage", "reason"), BREAKS, ids=lambda value: getattr(value, "__name__", value))
def test_a_generation_that_cannot_be_opened_leaves_the_old_one(
    live: LiveSearcher,
    root: Path,
    reported: list[bool],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Layout], None],
    reason: str,
) -> None:
    """It is logged once with its reason, reported, tried again, and served as soon as it is whole."""
    before = found(live.searcher)
    publish_one_more(root)
    good = root.with_name("good")
    shutil.copytree(root, good)
    damage(Layout(root))

    for _ in range(3):
        live.refresh()
    broken = live.searcher.generation, found(live.searcher)
    shutil.copytree(good, root, dirs_exist_ok=True)
    live.refresh()

    (logged,) = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert reason in logged
    assert "still serving generation 1" in logged
    assert broken == (1, before)
    assert reported == [False, False, False, True]
    assert live.searcher.generation == 2


def test_what_stays_broken_is_tried_less_often_but_a_newer_one_at_once(root: Path, describer: Describer) -> None:
    """Opening reads every byte: the same generation waits, another does not."""
    with LiveSearcher(Searcher(open_collection(root), describer), refresh_s=60) as live:
        publish_one_more(root)
        good = root.with_name("good")
        shutil.copytree(root, good)
        tear_the_manifest(Layout(root))
        live.refresh()
        shutil.copytree(good, root, dirs_exist_ok=True)

        live.refresh()
        waiting = live.searcher.generation
        publish_one_more(root)
        live.refresh()

        assert waiting == 1
        assert live.searcher.generation == 3


def test_images_described_by_another_network_are_refused(
    live: LiveSearcher, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The network of this server cannot describe queries for them: the old generation goes on."""
    recipe = replace(live.searcher.collection.recipe, weights_sha256="f" * 64)
    with Publisher(root) as publisher:
        recipe.save(Layout(root))
        publisher.add(1)
        publish(Layout(root), publisher.catalog, recipe, publisher.whiteners)

    live.refresh()

    assert live.searcher.generation == 1
    assert "restart the server" in caplog.text


def test_vectors_derived_in_another_way_are_followed(live: LiveSearcher, root: Path) -> None:
    """A rebuild changes the descriptors under the running server; uploads are described for the new ones."""
    with Publisher(root) as publisher:
        publisher.rebuild(("what", "r-mac"))

    live.refresh()

    assert live.searcher.info().descriptors == ("what", "r-mac")
    assert live.searcher.describer.pooled == ("r-mac",)
    assert found(live.searcher)[0][0] == "images/1"


def test_a_follower_serves_what_is_published_and_ends(root: Path, describer: Describer) -> None:
    """A thread of its own looks by itself; closing ends it, and no file of the collection stays open."""
    before = set(threading.enumerate())
    with LiveSearcher(Searcher(open_collection(root), describer), refresh_s=0.02) as live:
        live.follow()
        publish_one_more(root)
        deadline = time.monotonic() + 20
        while live.searcher.generation == 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        served = live.searcher.generation

    assert served == 2
    assert not set(threading.enumerate()) - before
    assert not [link for link in Path("/proc/self/fd").iterdir() if root in link.resolve().parents]


def test_without_an_interval_a_newer_generation_is_reported_and_not_served(
    live: LiveSearcher, root: Path, reported: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says it once, and a refresh by hand ends it."""
    live.look()
    publish_one_more(root)
    live.look()
    live.look()
    before = live.searcher.generation
    live.refresh()
    live.look()

    assert reported == [True, False, False, True, True]
    assert (before, live.searcher.generation) == (1, 2)
    assert caplog.text.count("still serving generation 1, although it is not the newest") == 1
