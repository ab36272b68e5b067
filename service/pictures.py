"""Answers to look at: the query with its box, the hits with theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from indexer.boxes import Box
from indexer.errors import WhatwhereError
from indexer.files import path_of_uri
from indexer.images import decode_image
from service.results import Hit, SearchResult, StoredImage

TILE_WIDTH, TILE_HEIGHT = 300, 225
COLUMNS = 4
_CAPTION_HEIGHT = 44
_MARGIN = 16
_BACKGROUND, _INK, _FAINT = "#ffffff", "#1b1b1b", "#6a6a6a"
_QUERY_COLOUR, _HIT_COLOUR = "#d55e00", "#0072b2"  # vermilion and blue of Okabe and Ito: told apart by everyone


@dataclass(frozen=True)
class Tile:
    """One photograph of the picture; `pixels` None where its file is not on this machine."""

    pixels: NDArray[np.uint8] | None
    caption: str
    detail: str
    box: Box | None
    colour: str


def draw_search(query: NDArray[np.uint8] | None, region: Box | None, result: SearchResult) -> Image.Image:
    """Draw a query and its hits, best first, four to a row; the hits' files are read where they are on this machine."""
    tiles = [Tile(query, "query", "the region asked for" if region else "whole image", region, _QUERY_COLOUR)]
    for rank, hit in enumerate(result.hits, start=1):
        tiles.append(_hit_tile(rank, hit))
    return _sheet(tiles)


def load_pixels(image: StoredImage) -> NDArray[np.uint8] | None:
    """Read a stored image from the first of its files that is on this machine; None when there is none."""
    for uri in image.uris:
        try:
            return decode_image(path_of_uri(uri).read_bytes(), uri, shorter_side=None).pixels
        except (OSError, WhatwhereError):
            continue  # moved, or on another machine: the tile says so
    return None


def _hit_tile(rank: int, hit: Hit) -> Tile:
    name = Path(unquote(urlsplit(hit.image.uri).path)).name
    return Tile(load_pixels(hit.image), f"{rank}  {name}", f"score {hit.score:.3f}", hit.box, _HIT_COLOUR)


def _sheet(tiles: Sequence[Tile]) -> Image.Image:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    step_x, step_y = TILE_WIDTH + _MARGIN, TILE_HEIGHT + _CAPTION_HEIGHT + _MARGIN
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN), _BACKGROUND)
    for position, tile in enumerate(tiles):
        row, column = divmod(position, columns)
        _draw_tile(sheet, tile, _MARGIN + column * step_x, _MARGIN + row * step_y)
    return sheet


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    if tile.pixels is None:
        draw.rectangle((left, top, left + TILE_WIDTH, top + TILE_HEIGHT), outline=_FAINT)
        draw.text((left + 12, top + 12), "its file is not on this machine", _FAINT, _font(14))
    else:
        photograph = Image.fromarray(tile.pixels)
        photograph.thumbnail((TILE_WIDTH, TILE_HEIGHT))
        x, y = left + (TILE_WIDTH - photograph.width) // 2, top + (TILE_HEIGHT - photograph.height) // 2
        sheet.paste(photograph, (x, y))
        if tile.box is not None:
            draw_box(sheet, tile.box, (x, y, photograph.width, photograph.height), tile.colour)
    caption = _shortened(tile.caption, _font(15))
    draw.text((left, top + TILE_HEIGHT + 4), caption, _INK, _font(15))
    draw.text((left, top + TILE_HEIGHT + 23), tile.detail, _FAINT, _font(13))


def draw_box(sheet: Image.Image, box: Box, frame: tuple[int, int, int, int], colour: str) -> None:
    """Draw a box on the photograph at `frame` (left, top, width, height) of the sheet, 4 pixels wide on white."""
    left, top, width, height = frame
    corners = (
        left + round(box.x_min * (width - 1)),
        top + round(box.y_min * (height - 1)),
        left + round(box.x_max * (width - 1)),
        top + round(box.y_max * (height - 1)),
    )
    draw = ImageDraw.Draw(sheet)
    draw.rectangle(corners, outline="#ffffff", width=6)
    draw.rectangle(corners, outline=colour, width=4)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= TILE_WIDTH:
        return text
    while text and font.getlength(text + "…") > TILE_WIDTH:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
