"""Draw photographs with boxes, captions and a legend on one sheet; shared by all pictures of this package."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import BRIEF, Remote
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.results import StoredImage

TILE_SIZE = (300, 225)
COLUMNS = 4
_CAPTION_HEIGHT = 44
_SWATCH = 11
_LEGEND_HEIGHT = 22
_MARGIN = 16
_BACKGROUND, _INK, _FAINT = "#ffffff", "#1b1b1b", "#6a6a6a"


@dataclass(frozen=True)
class Tile:
    """One photograph of a sheet, with a caption, a detail line and boxes.

    `pixels` is uint8 [height, width, 3]; None if the file cannot be read. `color` (#rrggbb) is that of the boxes
    and, if `swatch` is set, of a square before the caption.
    """

    pixels: NDArray[np.uint8] | None
    caption: str
    detail: str = ""
    boxes: tuple[Box, ...] = ()
    color: str = _FAINT
    swatch: bool = False


def load_pixels(image: StoredImage, remote: Remote | None = None) -> NDArray[np.uint8] | None:
    """Read a stored image, uint8 [height, width, 3], from its first readable URI; None if no URI is readable.

    Without `remote`, remote URIs are read with few retries and short timeouts: a person waits.
    """
    remote = remote or Remote(BRIEF)
    for uri in image.uris:
        try:
            return decode_image(read(uri, ImageLimits(), remote).content, uri, shorter_side=None).pixels
        except (OSError, WhatwhereError):
            continue  # moved, or on another machine: the tile shows a note
    return None


def draw_tiles(rows: Sequence[Sequence[Tile | None]], tile_size: tuple[int, int] = TILE_SIZE) -> Image.Image:
    """Draw rows of tiles; None leaves a cell empty.

    `tile_size` (width, height) in pixels bounds each photograph, which keeps its aspect ratio.
    """
    step_x, step_y = tile_size[0] + _MARGIN, tile_size[1] + _CAPTION_HEIGHT + _MARGIN
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, len(rows) * step_y + _MARGIN), _BACKGROUND)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            if tile is not None:
                frame = (_MARGIN + column * step_x, _MARGIN + row * step_y, *tile_size)
                _draw_tile(sheet, tile, frame)
    return sheet


def _draw_tile(sheet: Image.Image, tile: Tile, frame: tuple[int, int, int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    left, top, width, height = frame
    if tile.pixels is None:
        draw.rectangle((left, top, left + width, top + height), outline=_FAINT)
        draw.text((left + 12, top + 12), "file cannot be read", _FAINT, _font(14))
    else:
        photograph = Image.fromarray(tile.pixels)
        photograph.thumbnail((width, height))
        x, y = left + (width - photograph.width) // 2, top + (height - photograph.height) // 2
        sheet.paste(photograph, (x, y))
        for box in tile.boxes:
            draw_box(sheet, box, (x, y, photograph.width, photograph.height), tile.color)
    indent = 0
    if tile.swatch:
        indent = _SWATCH + 6
        draw.rectangle((left, top + height + 7, left + _SWATCH, top + height + 7 + _SWATCH), tile.color)
    caption = _shortened(tile.caption, width - indent, _font(15))
    draw.text((left + indent, top + height + 4), caption, _INK, _font(15))
    draw.text((left, top + height + 23), _shortened(tile.detail, width, _font(13)), _FAINT, _font(13))


def with_legend(sheet: Image.Image, entries: Sequence[tuple[str, str]]) -> Image.Image:
    """Return the sheet with a legend below it: one color swatch and text for each entry (#rrggbb, text)."""
    placed, left, line = [], _MARGIN, 0
    for color, text in entries:
        width = _SWATCH + 6 + round(_font(13).getlength(text)) + 2 * _MARGIN
        if left > _MARGIN and left + width > sheet.width:
            left, line = _MARGIN, line + 1
        placed.append((color, text, left, sheet.height + line * _LEGEND_HEIGHT))
        left += width
    taller = Image.new("RGB", (sheet.width, sheet.height + (line + 1) * _LEGEND_HEIGHT + _MARGIN), _BACKGROUND)
    taller.paste(sheet)
    draw = ImageDraw.Draw(taller)
    for color, text, x, y in placed:
        draw.rectangle((x, y + 3, x + _SWATCH, y + 3 + _SWATCH), color)
        draw.text((x + _SWATCH + 6, y), text, _INK, _font(13))
    return taller


def draw_box(sheet: Image.Image, box: Box, frame: tuple[int, int, int, int], color: str) -> None:
    """Draw a box (fractions) on the photograph at `frame` (left, top, width, height in pixels) of the sheet.

    The line is 4 pixels wide, with a white outline.
    """
    left, top, width, height = frame
    corners = (
        left + round(box.x_min * (width - 1)),
        top + round(box.y_min * (height - 1)),
        left + round(box.x_max * (width - 1)),
        top + round(box.y_max * (height - 1)),
    )
    draw = ImageDraw.Draw(sheet)
    draw.rectangle(corners, outline="#ffffff", width=6)
    draw.rectangle(corners, outline=color, width=4)


def check_picture(output: Output, inputs: Iterable[Path] = ()) -> None:
    """Check that a picture can be written, and that it replaces none of the `inputs`.

    Raises InvalidRequest if the suffix is not a writable format, and the errors of `Output.check` and `Output.spare`.
    """
    if _format_of(output.path) not in Image.SAVE:
        raise InvalidRequest(f"{output.path}: the suffix chooses the format: use .png or .jpg", field=output.field)
    output.check()
    output.spare(inputs)


def save_picture(picture: Image.Image, output: Output) -> None:
    """Write a picture in the format of the path's suffix. Raises InvalidRequest if writing fails."""
    try:
        output.write(lambda path: picture.save(path, format=_format_of(output.path)))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write the picture {output.path}: {error}", field=output.field) from error


def _format_of(path: Path) -> str | None:
    return Image.registered_extensions().get(path.suffix.lower())


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
