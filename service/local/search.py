"""Ask one question from the command line, of a server or of a collection opened in this process."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.boxes import Box, box_from_pixels, checked_box
from whatwhere.indexer.errors import InvalidRegion
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.sources.uris import scheme_of
from whatwhere.indexer.storage.files import file_named, printable
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.drawing.search import draw_search
from whatwhere.service.drawing.tiles import check_picture, load_pixels, save_picture
from whatwhere.service.local.originals import spare_originals, spare_stored
from whatwhere.service.local.queries import A_FILE_OR_STORED, read_query
from whatwhere.service.results import SearchResult, stored_id
from whatwhere.service.search_options import SearchOptions

if TYPE_CHECKING:  # a server is asked without torch, a collection without gRPC
    from whatwhere.service.client.client import Client
    from whatwhere.service.local.collection import LocalCollection

Answering: TypeAlias = "Client | LocalCollection"


@dataclass(frozen=True)
class Question:
    """A search. `image` is a file or a stored image's name; `regions` and `mask` replace those of `options`."""

    image: str
    regions: Sequence[str] = ()
    mask: Path | None = None
    picture: Output | None = None
    options: SearchOptions = field(default_factory=SearchOptions)


def ask(question: Question, answering: Answering) -> SearchResult:
    """Ask a server or an open collection, and draw the answer if `picture` names a file for it.

    Raises InvalidRequest for a file that cannot be read or written, or if the picture would replace the query, the
    mask or an indexed image; and the errors of `Client.search`.
    """
    check_files(question)
    if question.picture is not None:
        spare_originals(question.picture, answering)
    query: str | bytes
    if is_stored(question.image):
        stored = answering.image(question.image)
        size, query, pixels = (stored.width_px, stored.height_px), stored.name, load_pixels(stored)
        if question.picture is not None:
            spare_stored(question.picture, [stored])
    else:
        path = file_named(question.image)
        query, pixels = _read(path, A_FILE_OR_STORED)
        size = (pixels.shape[1], pixels.shape[0])
    regions = [parse_region(text, *size) for text in question.regions]
    mask = b"" if question.mask is None else _read(question.mask, "give an image that is white inside", "mask")[0]
    result = answering.search(query, replace(question.options, region=regions, mask=mask))
    if question.picture is not None:
        spare_stored(question.picture, (hit.image for hit in result.hits))
        save_picture(draw_search(pixels, regions, result), question.picture)
    return result


def check_files(question: Question) -> None:
    """Raise InvalidRequest if the picture cannot be written, or would replace the query or the mask."""
    if question.picture is not None:
        files = [file_named(question.image)] + ([] if question.mask is None else [question.mask])
        check_picture(question.picture, files)


def is_stored(image: str) -> bool:
    """Tell whether `image` is a stored image's name, images/ID, or a URI; a file of that name comes first."""
    return bool(stored_id(image) or scheme_of(image)) and not file_named(image).exists()


def parse_region(text: str, width: int, height: int) -> Box:
    """Parse x1,y1,x2,y2 in fractions, or in pixels of the `width` x `height` image with the suffix px.

    Raises InvalidRegion.
    """
    numbers = text.strip().lower()
    in_pixels = numbers.endswith("px")
    try:
        x_min, y_min, x_max, y_max = (float(part.removesuffix("px")) for part in numbers.split(","))
    except ValueError:
        raise InvalidRegion(
            f"region {text!r} is not four numbers: give x1,y1,x2,y2 as fractions (0.1,0.2,0.8,0.9) or pixels "
            "(40,80,320,360px)",
            field="region",
        ) from None
    if in_pixels:
        return box_from_pixels(x_min, y_min, x_max, y_max, width=width, height=height)
    return checked_box(x_min, y_min, x_max, y_max)


def _read(path: Path, remedy: str, field: str = "image") -> tuple[bytes, NDArray[np.uint8]]:
    content = read_query(path, remedy, field)
    return content, decode_image(content, printable(path), shorter_side=None).pixels
