"""Factors as heatmaps: shares and maps by hand, shared concepts by construction and on photographs of elephants."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.features.nmf import Factors, quantize
from whatwhere.indexer.images.decode import decode_image
from whatwhere.service.search.factor_maps import FactorMap, compare_exact, compare_stored, factor_maps
from whatwhere.service.search.principal_maps import principal_maps

CHANNELS = 30
UPPER_LEFT, LOWER_RIGHT, LOWER_LEFT = (0, 0, 5, 6), (7, 10, 12, 16), (8, 0, 12, 4)
# Around the elephants, by hand, in the order of the files' names.
ELEPHANTS = (
    Box(0.24, 0.37, 0.62, 0.77),
    Box(0.05, 0.03, 0.84, 0.98),
    Box(0.15, 0.13, 0.57, 0.78),
    Box(0.15, 0.23, 0.84, 0.95),
    Box(0.10, 0.38, 0.94, 0.95),
)


def three_factors() -> QuantizedFactors:
    """Return, on 2 x 3 cells, U of lengths 5, 5 and 0, V of lengths 10, 2 and 0."""
    where = np.array([[30, 0, 0], [40, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 50, 0]], dtype=np.uint8)
    what = np.array([[60, 80], [20, 0], [0, 0]], dtype=np.uint8)
    scale = np.full(3, 0.1, dtype=np.float32)
    return QuantizedFactors(where, scale, what, scale, height=2, width=3)


def test_a_heatmap_is_scaled_by_its_own_maximum() -> None:
    """3 and 4 become 0.75 and 1, in the cells where they stand; index 0 is the first."""
    first, second, _ = factor_maps(three_factors())

    assert [first.index, second.index] == [0, 1]
    assert np.allclose(first.heat, [[0.75, 1, 0], [0, 0, 0]])
    assert np.allclose(second.heat, [[0, 0, 0], [0, 0, 1]])


def test_a_share_is_the_square_of_both_lengths_product() -> None:
    """(5 · 10)² = 2500 and (5 · 2)² = 100 of 2600."""
    first, second, _ = factor_maps(three_factors())

    assert first.energy_share == pytest.approx(2500 / 2600)
    assert second.energy_share == pytest.approx(100 / 2600)


def test_a_box_is_around_the_hot_cells() -> None:
    """The second factor is hot in the lower right cell of 2 x 3 alone."""
    _, second, _ = factor_maps(three_factors())

    assert second.box is not None
    assert second.box.x_max == second.box.y_max == 1
    assert second.box.x_min > 1 / 3
    assert second.box.y_min > 0.2


def test_a_dead_factor_has_neither_heat_nor_share_nor_box() -> None:
    """The third factor is zero on both sides."""
    *_, dead = factor_maps(three_factors())

    assert not dead.heat.any()
    assert (dead.energy_share, dead.box) == (0, None)


def test_an_image_without_activations_has_only_dead_factors() -> None:
    """Nothing is divided by a sum of zero."""
    nothing = quantize(Factors(torch.zeros(6, 2), torch.zeros(2, 5)), 2, 3)

    maps = factor_maps(nothing)

    assert [(factor.energy_share, factor.box) for factor in maps] == [(0, None), (0, None)]


def blob(height: int, width: int, place: tuple[int, int, int, int]) -> Tensor:
    """Return a map that is 1 in the cells [top, left, bottom, right) and 0 elsewhere."""
    top, left, bottom, right = place
    heatmap = torch.zeros(height, width)
    heatmap[top:bottom, left:right] = 1
    return heatmap


def concepts() -> Tensor:
    """Return three concepts that share no channel, of lengths 3, 2 and 1."""
    three = torch.zeros(3, CHANNELS)
    for number, length in enumerate((3.0, 2.0, 1.0)):
        three[number, 10 * number : 10 * number + 9] = length / 3
    return three


# Two images of different shapes: concepts 0 and 1 change places, concept 2 is in the first image alone.
PLACES = ((12, 16, (UPPER_LEFT, LOWER_RIGHT, LOWER_LEFT)), (14, 16, (LOWER_RIGHT, UPPER_LEFT)))


def scenes() -> list[Factors]:
    return [
        Factors(
            torch.stack([blob(height, width, place).flatten() for place in places], dim=1), concepts()[: len(places)]
        )
        for height, width, places in PLACES
    ]


def compared(setting: str, rank: int = 3) -> list[tuple[FactorMap, ...]]:
    grids = [(height, width) for height, width, _ in PLACES]
    if setting == "stored":
        return compare_stored([quantize(scene, *grid) for scene, grid in zip(scenes(), grids, strict=True)], rank)
    activations = [(scene.where @ scene.what).reshape(*grid, -1) for scene, grid in zip(scenes(), grids, strict=True)]
    return compare_exact(activations, rank)


def shown(maps: tuple[FactorMap, ...], place: tuple[int, int, int, int]) -> int:
    """Return the index of the factor whose heat is that of the place, and no other."""
    found = [factor.index for factor in maps if np.allclose(factor.heat, blob(*factor.heat.shape, place), atol=0.03)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("setting", ["stored", "exact"])
def test_one_index_is_one_concept_in_all_images(setting: str) -> None:
    """A concept that moves from one corner to another keeps its index, the other one too."""
    first, second = compared(setting)

    assert shown(first, UPPER_LEFT) == shown(second, LOWER_RIGHT)
    assert shown(first, LOWER_RIGHT) == shown(second, UPPER_LEFT)


@pytest.mark.parametrize("setting", ["stored", "exact"])
def test_a_concept_is_dead_where_it_is_not(setting: str) -> None:
    """The third concept is in the first image alone; shares still sum to 1 over those that are there."""
    first, second = compared(setting)

    absent = second[shown(first, LOWER_LEFT)]
    assert (absent.energy_share, absent.box) == (0, None)
    assert not absent.heat.any()
    assert sum(factor.energy_share for factor in second) == pytest.approx(1)


@pytest.mark.parametrize(("strength", "living"), [(0.2, False), (0.8, True)])
def test_less_than_a_hundredth_of_the_energy_is_noise(strength: float, living: bool) -> None:
    """The third concept in 16 cells of the second image too, beside 390: of 0.64, or of 10.24."""
    first, second = scenes()
    faint = torch.cat([second.where, strength * blob(14, 16, LOWER_LEFT).flatten().unsqueeze(1)], dim=1)
    images = [quantize(first, 12, 16), quantize(Factors(faint, concepts()), 14, 16)]

    maps, other = compare_stored(images, 3)

    third = other[shown(maps, LOWER_LEFT)]
    assert (third.box is not None) == bool(third.heat.any()) == (third.energy_share > 0) == living
    assert sum(factor.energy_share for factor in other) == pytest.approx(1)


def test_joint_shares_are_those_of_the_image_alone() -> None:
    """30, 30 and 16 cells of squared lengths 9, 4 and 1; in the second image 30 and 30 of 9 and 4."""
    first, second = compared("stored")

    expected = np.array([270, 120, 16]) / 406
    shares = [first[shown(first, place)].energy_share for place in (UPPER_LEFT, LOWER_RIGHT, LOWER_LEFT)]
    assert shares == pytest.approx(expected, abs=0.01)
    assert second[shown(second, LOWER_RIGHT)].energy_share == pytest.approx(9 / 13, abs=0.01)


@pytest.mark.parametrize("setting", ["stored", "exact"])
def test_as_many_maps_as_asked_for(setting: str) -> None:
    """More than there are concepts: the others are dead in both."""
    first, second = compared(setting, rank=5)

    assert [factor.index for factor in first] == [factor.index for factor in second] == [0, 1, 2, 3, 4]
    assert [sum(factor.box is not None for factor in maps) for maps in (first, second)] == [3, 2]


def test_cells_that_differ_in_one_way_have_one_principal_component() -> None:
    """Activations t · v: the first map is t about its mean, and explains all there is."""
    steps = torch.linspace(1, 3, 12).reshape(3, 4)
    grid = steps.unsqueeze(2) * torch.linspace(1, 2, 8)

    principal = principal_maps(grid)

    about_mean = (steps - steps.mean()).numpy()
    ratio = principal.maps[..., 0] / about_mean
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-3)
    assert principal.variance_shares == pytest.approx((1, 0, 0), abs=1e-6)


@pytest.fixture(scope="module")
def elephants(data: Path, describer: Describer) -> tuple[list[Tensor], list[QuantizedFactors]]:
    """Give activations and stored factors of five photographs of elephants."""
    files = sorted((data / "coseg" / "elephants").glob("*.jpg"))
    if len(files) != len(ELEPHANTS):
        pytest.skip(f"{data}/coseg/elephants is absent: photographs are not part of the repository")
    activations = describer.backbone.activations([decode_image(file.read_bytes(), file.name).pixels for file in files])
    stored = Describer(describer.backbone, 8).describe_activations(activations)
    return activations, [description.factors for description in stored]


@pytest.mark.parametrize("rank", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("setting", ["stored", "exact"])
def test_one_factor_is_the_elephants_in_every_photograph(
    setting: str, rank: int, elephants: tuple[list[Tensor], list[QuantizedFactors]]
) -> None:
    """The strongest factor is hottest on them in all five, its boxes have a mean IoU with them of 0.51 to 0.56."""
    activations, stored = elephants

    maps = compare_stored(stored, rank) if setting == "stored" else compare_exact(activations, rank)

    strongest = [factors[0] for factors in maps]
    for factor, box in zip(strongest, ELEPHANTS, strict=True):
        row, column = np.unravel_index(factor.heat.argmax(), factor.heat.shape)
        y, x = (row + 0.5) / factor.heat.shape[0], (column + 0.5) / factor.heat.shape[1]
        assert box.x_min < x < box.x_max
        assert box.y_min < y < box.y_max
    found = [factor.box for factor in strongest if factor.box is not None]
    overlaps = [box.intersection_over_union(truth) for box, truth in zip(found, ELEPHANTS, strict=True)]
    assert np.mean(overlaps) > 0.45
