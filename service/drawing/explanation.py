"""Draw explanations: photographs under the heatmaps of their factors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from whatwhere.service.drawing.defaults import OPACITY
from whatwhere.service.drawing.tiles import Tile, draw_tiles, with_legend
from whatwhere.service.results import Factor
from whatwhere.service.search.heatmaps import (
    blended_layer,
    color_of,
    laid_over,
    layer_of,
    principal_colors,
    signed_layer,
)

if TYPE_CHECKING:  # torch takes seconds to import, and drawing needs only arrays
    from whatwhere.service.search.factor_maps import FactorMap
    from whatwhere.service.search.principal_maps import PrincipalMaps

Drawn: TypeAlias = "FactorMap | Factor"  # computed here, or answered by a server
FACTORS_IN_A_ROW = 4  # of explanations: further factors continue in the next row
_EXPLAINED_HEIGHT, _COMPARED_HEIGHT = 225, 180
_NARROWEST, _WIDEST = 0.7, 4 / 3  # width over height of a tile: room for the caption, and no wider than photographs


@dataclass(frozen=True)
class Photograph:
    """A photograph to explain: `pixels` uint8 [height, width, 3], white if its file cannot be read."""

    name: str
    pixels: NDArray[np.uint8]

    @property
    def aspect(self) -> float:
        """Width over height."""
        height, width, _ = self.pixels.shape
        return float(width / height)


def draw_explanation(
    photograph: Photograph,
    by_rank: Mapping[int, Sequence[Drawn]],
    principal: "PrincipalMaps | None" = None,
    opacity: float = OPACITY,
) -> Image.Image:
    """Draw one row for each rank: the photograph, all factors in one tile, and each factor with share, color and box.

    `principal` adds a last row with principal components. `opacity` in [0, 1] is that of a heatmap's maximum.
    """
    size = _tile_size([photograph], _EXPLAINED_HEIGHT)
    pixels = _fitted(photograph, size)
    rows: list[list[Tile | None]] = []
    for rank, factors in by_rank.items():
        rows += _rank_rows(rank, photograph.name, pixels, factors, opacity)
    if principal is not None:
        rows.append(_principal_row(photograph.name, pixels, principal, opacity))
    return draw_tiles(rows, size)


def draw_comparison(
    photographs: Sequence[Photograph], compared: Sequence[Sequence[Drawn]], opacity: float = OPACITY
) -> Image.Image:
    """Draw one row for each photograph: the photograph, all factors in one tile, and one column for each factor.

    The legend gives each factor's mean share of the photographs' energy.
    """
    size = _tile_size(photographs, _COMPARED_HEIGHT)
    rows = []
    for photograph, factors in zip(photographs, compared, strict=True):
        pixels = _fitted(photograph, size)
        head = (Tile(pixels, photograph.name), _blended_tile(pixels, factors, opacity))
        rows.append([*head, *(_factor_tile(pixels, factor, opacity, boxed=False) for factor in factors)])
    shares = np.mean([[factor.energy_share for factor in factors] for factors in compared], axis=0)
    legend = [(color_of(index), f"factor {index}: {share:.0%} on average") for index, share in enumerate(shares)]
    return with_legend(draw_tiles(rows, size), legend)


def _tile_size(photographs: Sequence[Photograph], height: int) -> tuple[int, int]:
    """Return the smallest tile (width, height) for all photographs and their captions, within `height` x WIDEST."""
    width = height * min(max(photograph.aspect for photograph in photographs), _WIDEST)
    tallest = max(min(height, width / photograph.aspect) for photograph in photographs)
    return round(max(width, height * _NARROWEST)), round(tallest)


def _fitted(photograph: Photograph, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a photograph down to its tile, so that heatmaps are scaled only once."""
    picture = Image.fromarray(photograph.pixels)
    picture.thumbnail(size)
    return np.asarray(picture)


def _size_of(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _rank_rows(
    rank: int, name: str, pixels: NDArray[np.uint8], factors: Sequence[Drawn], opacity: float
) -> list[list[Tile | None]]:
    head = (Tile(pixels, f"rank {rank}", name), _blended_tile(pixels, factors, opacity))
    tiles = [_factor_tile(pixels, factor, opacity, boxed=True) for factor in factors]
    return [
        [*(head if start == 0 else (None, None)), *tiles[start : start + FACTORS_IN_A_ROW]]
        for start in range(0, len(tiles), FACTORS_IN_A_ROW)
    ]


def _blended_tile(pixels: NDArray[np.uint8], factors: Sequence[Drawn], opacity: float) -> Tile:
    colors = [color_of(factor.index) for factor in factors]
    layer = blended_layer([factor.heat for factor in factors], colors, _size_of(pixels), opacity)
    return Tile(laid_over(pixels, layer), "all factors", "the strongest at each pixel")


def _factor_tile(pixels: NDArray[np.uint8], factor: Drawn, opacity: float, *, boxed: bool) -> Tile:
    color = color_of(factor.index)
    return Tile(
        laid_over(pixels, layer_of(factor.heat, color, _size_of(pixels), opacity)),
        f"factor {factor.index}",
        "absent" if factor.box is None else f"{factor.energy_share:.0%} of the energy",
        (factor.box,) if boxed and factor.box is not None else (),
        color,
        swatch=True,
    )


def _principal_row(
    name: str, pixels: NDArray[np.uint8], principal: "PrincipalMaps", opacity: float
) -> list[Tile | None]:
    size = _size_of(pixels)
    row: list[Tile | None] = [
        Tile(pixels, "principal components", name),
        Tile(principal_colors(principal.maps, size), "all three", "as red, green, blue"),
    ]
    for number, share in enumerate(principal.variance_shares):
        colored = laid_over(pixels, signed_layer(principal.maps[..., number], size, opacity))
        row.append(Tile(colored, f"component {number}", f"{share:.0%} of the variance"))
    return row
