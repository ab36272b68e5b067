"""Heatmaps in colour: pixels by hand, colours as people with other eyes see them."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from whatwhere.service.search.heatmaps import (
    PALETTE,
    blended_layer,
    color_of,
    heatmap_png,
    laid_over,
    layer_of,
    principal_colors,
    signed_layer,
    upsampled,
)

VERMILION, BLUE = (213, 94, 0), (0, 114, 178)
# Machado, Oliveira and Fernandes, 2009, severity 1: linear RGB as it is seen.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def heat(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def test_cells_tile_the_picture_and_values_stand_at_their_centers() -> None:
    """Two cells over four pixels, whose centres lie at 1/4, 3/4, 5/4 and 7/4 of a cell: 0, 1/4, 3/4 and 1."""
    scaled = upsampled(heat([0, 1]), 4, 1)

    assert np.allclose(scaled, [[0, 0.25, 0.75, 1]])


def test_both_directions_are_scaled_alike() -> None:
    """One hot corner of 2 x 2 cells on 4 x 6 pixels is the product of both ramps."""
    scaled = upsampled(heat([0, 0], [0, 1]), 6, 4)

    rows, columns = [0, 0.25, 0.75, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]
    assert np.allclose(scaled, np.outer(rows, columns), atol=1e-6)


def test_a_size_of_one_cell_each_changes_nothing() -> None:
    """The grid's own size gives the grid's own values."""
    values = heat([0.1, 0.9, 0.3], [0.5, 0.2, 1.0])

    assert np.allclose(upsampled(values, 3, 2), values)


def test_a_layer_is_the_color_with_the_heat_as_alpha() -> None:
    """Heat 0, 1/5 and 1 at opacity 1/2: alpha 0, 25.5 and 127.5 of 255, rounded to even."""
    layer = layer_of(heat([0, 0.2, 1]), "#d55e00", (3, 1), opacity=0.5)

    assert (layer[..., :3] == VERMILION).all()
    assert layer[0, :, 3].tolist() == [0, 26, 128]


def test_of_several_heatmaps_the_hottest_is_seen() -> None:
    """Left the first, right the second, each as strong as it is there."""
    layer = blended_layer([heat([1, 0.2]), heat([0.4, 0.6])], ["#d55e00", "#0072b2"], (2, 1))

    assert layer[0].tolist() == [[*VERMILION, 255], [*BLUE, 153]]


def test_signs_have_colors_of_their_own() -> None:
    """The largest size of either sign is opaque, zero transparent."""
    layer = signed_layer(heat([-4, 0, 2]), (3, 1))

    assert layer[0, 0].tolist() == [*BLUE, 255]
    assert layer[0, 1, 3] == 0
    assert layer[0, 2].tolist() == [*VERMILION, 128]


def test_maps_without_anything_are_transparent() -> None:
    """Nothing is divided by zero."""
    assert not signed_layer(np.zeros((2, 2), dtype=np.float32), (4, 4))[..., 3].any()


def test_three_maps_are_red_green_and_blue() -> None:
    """Each from its own smallest value, black, to its own largest; a constant one stays black."""
    maps = np.stack([heat([-1, 3]), heat([5, 1]), heat([2, 2])], axis=2)

    pixels = principal_colors(maps, (2, 1))

    assert pixels[0].tolist() == [[0, 255, 0], [255, 0, 0]]


def test_a_photograph_is_gray_but_for_the_layer() -> None:
    """Luma 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124 where the layer is transparent, its colour where opaque."""
    photograph = np.array([[[200, 100, 50], [200, 100, 50]]], dtype=np.uint8)
    layer = np.array([[[*VERMILION, 0], [*VERMILION, 255]]], dtype=np.uint8)

    assert laid_over(photograph, layer)[0].tolist() == [[124, 124, 124], list(VERMILION)]


@pytest.mark.parametrize(
    ("aspect", "size"), [(2.0, (100, 50)), (0.5, (50, 100)), (1.0, (100, 100)), (1000.0, (100, 1))]
)
def test_a_png_has_the_proportions_of_its_picture(aspect: float, size: tuple[int, int]) -> None:
    """Its longer side is the one asked for, the other never less than a pixel."""
    written = heatmap_png(heat([0.5]), "#0072b2", 100, aspect)

    with Image.open(io.BytesIO(written)) as picture:
        assert picture.format == "PNG"
        assert picture.size == size


def test_a_png_is_one_color_with_the_heat_as_alpha() -> None:
    """To be laid over the photograph as it is."""
    written = heatmap_png(heat([0, 1]), "#0072b2", 4, 4.0)

    with Image.open(io.BytesIO(written)) as picture:
        pixels = np.asarray(picture)
    assert picture.mode == "RGBA"
    assert (pixels[..., :3] == BLUE).all()
    assert pixels[0, :, 3].tolist() == [0, 64, 191, 255]


def test_colors_come_again_after_the_last() -> None:
    """The palette has sixteen; stored factors may be more."""
    assert len(set(PALETTE)) == 16
    assert [color_of(index) for index in (0, 15, 16, 33)] == [PALETTE[0], PALETTE[15], PALETTE[0], PALETTE[1]]


@pytest.mark.parametrize(("count", "least"), [(4, 19.0), (8, 10.0), (16, 6.5)])
@pytest.mark.parametrize("sight", SIGHTS)
def test_colors_are_told_apart_by_everyone(sight: str, count: int, least: float) -> None:
    """CIEDE2000 between any two; 2.3 is just noticeable."""
    colors = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in PALETTE[:count]])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = (linear @ SIGHTS[sight].T).clip(0, 1)
    encoded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)

    lab = rgb2lab(encoded[np.newaxis])[0]

    distances = deltaE_ciede2000(lab[:, np.newaxis], lab[np.newaxis])
    assert distances[np.triu_indices(count, 1)].min() >= least
