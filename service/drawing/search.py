"""Draw the result of a search: the query and the hits with their boxes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.sources.remote import BRIEF, Remote
from whatwhere.service.drawing.tiles import COLUMNS, Tile, draw_tiles, load_pixels
from whatwhere.service.results import Hit, SearchResult

_QUERY_COLOR, _HIT_COLOR = "#d55e00", "#0072b2"  # Okabe and Ito: distinguishable for color-blind people


def draw_search(query: NDArray[np.uint8] | None, regions: Sequence[Box], result: SearchResult) -> Image.Image:
    """Draw the query and its hits, best first, four to a row.

    `query` is uint8 [height, width, 3]; None if its file cannot be read. The hits' files are read; if a
    file cannot be read, its tile shows a note.
    """
    detail = "query region" if regions else "whole image"
    tiles = [Tile(query, "query", detail, tuple(regions), _QUERY_COLOR)]
    remote = Remote(BRIEF)
    for position, hit in enumerate(result.hits, start=1):
        tiles.append(_hit_tile(position, hit, remote))
    return draw_tiles([tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)])


def _hit_tile(position: int, hit: Hit, remote: Remote) -> Tile:
    return Tile(
        load_pixels(hit.image, remote),
        f"{position}  {hit.image.file_name}",
        f"score {hit.score:.3f}",
        () if hit.box is None else (hit.box,),
        _HIT_COLOR,
    )
