"""Localization between official queries of real buildings, with the default network."""

from dataclasses import replace
from pathlib import Path

import pytest

from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark
from whatwhere.service.evaluation.retrieval.localization import Localization, localize_queries
from whatwhere.service.evaluation.retrieval.oxford import read_oxford

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Give the default network."""
    return load_backbone("efficientnet-lite0", choose_device("cpu"))


@pytest.fixture(scope="module")
def paris(data: Path) -> Benchmark:
    """Give the subset of Paris6k."""
    return read_oxford("paris6k", [data / "paris-mini/jpg"], data / "paris-mini/gt")


@pytest.fixture(scope="module")
def localized(paris: Benchmark, backbone: Backbone) -> Localization:
    """Give what all methods find there."""
    found = localize_queries(paris, backbone, rank=8)
    assert found is not None
    return found


def test_the_subset_has_sixteen_pairs(localized: Localization) -> None:
    """La Défense and Les Invalides have two queries each here, the Louvre four; the Triomphe's has no other."""
    assert localized.pairs == 2 + 2 + 4 * 3


@pytest.mark.parametrize(
    ("method", "percent"),
    [("whole image", 33.2), ("NMF stored", 54.8), ("NMF exact", 58.0), ("exhaustive windows", 52.3), ("AML", 51.8)],
)
def test_each_method_keeps_its_measured_overlap(localized: Localization, method: str, percent: float) -> None:
    """Within 3 points, the noise of 16 pairs; 33.2, 54.8 and 58.0 were measured through a server, apart from this."""
    assert 100 * localized.mean_iou[method] == pytest.approx(percent, abs=3)


def test_a_picture_that_is_gone_is_named(paris: Benchmark, backbone: Backbone, tmp_path: Path) -> None:
    """The error says which file it was."""
    moved = {name: tmp_path / path.name for name, path in paris.query_images.items()}

    with pytest.raises(BenchmarkUnreadable, match=r"paris_defense_000056\.jpg"):
        localize_queries(replace(paris, query_images=moved), backbone, rank=8)


def test_one_query_a_building_makes_no_pair(paris: Benchmark, backbone: Backbone) -> None:
    """And no picture is opened for it."""
    alone = tuple(query for query in paris.queries if query.name in ("louvre_1", "defense_4"))

    found = localize_queries(replace(paris, queries=alone, query_images={}), backbone, rank=8)

    assert found is None
