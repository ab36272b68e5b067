"""What scans passed over, in both databases."""

from tests.cataloguing import described, failed, keep, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import Outcome, SkippedRecord
from whatwhere.indexer.sources.kinds import Skip

VIDEO, HIDDEN = Skip(".mp4", "a video"), Skip("hidden folder", "hidden", by_rule=True)


def uris(catalog: Catalog) -> list[str]:
    return [found.uri.removeprefix("file:///") for found in catalog.skipped()]


def record(catalog: Catalog, *names: str, places: tuple[str, ...] = ("",), **more: tuple[str, ...]) -> None:
    """Record a scan of these places that passed over files of these names."""
    given = {name: [f"file:///{uri}" for uri in more.get(name, ())] for name in ("unlisted", "taken")}
    catalog.replace_skipped(
        [f"file:///{place}" for place in places],
        given["unlisted"],
        given["taken"],
        {f"file:///{n}": VIDEO for n in names},
    )


def test_a_scan_replaces_what_an_earlier_one_of_its_place_passed_over(catalog: Catalog) -> None:
    """Other places keep theirs, also those whose name begins alike."""
    record(catalog, "a/x.mp4", "a/y.mp4", "ab/z.mp4", "b/z.mp4")

    record(catalog, "a/y.mp4", "a/new.mp4", places=("a/",))

    assert uris(catalog) == ["a/new.mp4", "a/y.mp4", "ab/z.mp4", "b/z.mp4"]


def test_what_is_out_of_sight_stays_and_what_was_taken_goes(catalog: Catalog) -> None:
    """A folder that cannot be listed today says nothing; a file that is an image now was taken by name."""
    record(catalog, "a/closed/x.mp4", "a/y.mp4", "c/z.dat", "c/d.dat")

    record(catalog, places=("a/", "c/d.dat"), unlisted=("a/closed/",), taken=("c/z.dat",))

    assert uris(catalog) == ["a/closed/x.mp4"]


def test_a_reason_that_changed_is_written(catalog: Catalog) -> None:
    """Kind and reason are those of the last scan, and counted by kind, the most frequent first."""
    record(catalog, "a/", "b.mp4", "c.mp4")

    catalog.replace_skipped(
        ["file:///"], [], [], {"file:///a/": HIDDEN, "file:///b.mp4": VIDEO, "file:///c.mp4": VIDEO}
    )

    assert catalog.skipped(limit=1) == [SkippedRecord("file:///a/", "hidden folder", "hidden")]
    assert list(catalog.skipped_kinds().items()) == [(".mp4", 2), ("hidden folder", 1)]


def test_what_was_passed_over_is_no_image(catalog: Catalog) -> None:
    """Neither counted nor checked as one."""
    record(catalog, "a.mp4")

    assert (catalog.images(), catalog.check()) == ([], [])
    assert catalog.counts() == {"indexed": 0, "failed": 0, "removed": 0}


def test_failures_without_a_file_are_forgotten(catalog: Catalog) -> None:
    """Not those that a user removed, nor images that can return with their file."""
    keep(
        catalog,
        Outcome(source("torn"), image=failed("torn")),
        Outcome(source("closed"), image=failed(None)),
        Outcome(source("unwanted"), image=failed("unwanted")),
        Outcome(source("still"), image=failed("still")),
        Outcome(source("whole"), image=described("whole")),
    )
    catalog.set_metadata("file", {"file:///torn": {"label": "x"}})
    catalog.remove([3])
    catalog.forget_sources([f"file:///{name}" for name in ("torn", "closed", "unwanted", "whole")])

    count = catalog.forget_lost_failures()

    assert count == 2
    assert [(image.content_hash, image.state) for image in catalog.images()] == [
        ("unwanted", "removed"),
        ("still", "failed"),
        ("whole", "removed"),
    ]
    assert catalog.check() == []
