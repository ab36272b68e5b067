"""Localisation between official queries of real buildings, with the default network."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexer.backbones import Backbone, choose_device, load_backbone
from indexer.errors import BenchmarkUnreadable
from service.evaluation.benchmark import Benchmark
from service.evaluation.localisation import Localisation, localise_queries
from service.evaluation.oxford import read_oxford

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
def localised(paris: Benchmark, backbone: Backbone) -> Localisation:
    """Give what all methods find there."""
    found = localise_queries(paris, backbone, rank=8)
    assert found is not None
    return found


def test_the_subset_has_sixteen_pairs(localised: Localisation) -> None:
    """La Défense and Les Invalides have two queries each here, the Louvre four; the Triomphe's has no other."""
    assert localised.pairs == 2 + 2 + 4 * 3


@pytest.mark.parametrize(
    ("method", "percent"),
    [("whole image", 33.2), ("NMF stored", 54.8), ("NMF exact", 58.0), ("exhaustive windows", 52.3), ("AML", 51.8)],
)
def test_each_method_keeps_its_measured_overlap(localised: Localisation, method: str, percent: float) -> None:
    """Within 3 points, the noise of 16 pairs; 33.2, 54.8 and 58.0 were measured through a server, apart from this."""
    assert 100 * localised.mean_iou[method] == pytest.approx(percent, abs=3)


def test_a_picture_that_is_gone_is_named(paris: Benchmark, backbone: Backbone, tmp_path: Path) -> None:
    """The error says which file it was."""
    moved = {name: tmp_path / path.name for name, path in paris.query_images.items()}

    with pytest.raises(BenchmarkUnreadable, match=r"paris_defense_000056\.jpg"):
        localise_queries(replace(paris, query_images=moved), backbone, rank=8)


def test_one_query_a_building_makes_no_pair(paris: Benchmark, backbone: Backbone) -> None:
    """And no picture is opened for it."""
    alone = tuple(query for query in paris.queries if query.name in ("louvre_1", "defense_4"))

    found = localise_queries(replace(paris, queries=alone, query_images={}), backbone, rank=8)

    assert found is None
