"""One question from the command line: to a server, or to one started for it in this process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.boxes import Box, box_from_pixels, checked_box
from whatwhere.indexer.errors import InvalidRegion, InvalidRequest
from whatwhere.indexer.images.decode import decode_image
from whatwhere.service.client.client import Client
from whatwhere.service.drawing.search import draw_search
from whatwhere.service.drawing.tiles import check_picture_path, load_pixels, save_picture
from whatwhere.service.results import SearchResult, stored_id
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.settings import ServerSettings

_FREE_PORT = "127.0.0.1:0"


@dataclass(frozen=True)
class Question:
    """What was asked: `image` is a file or a stored image's name; `options` are those of `Client.search`."""

    image: str
    regions: Sequence[str] = ()
    mask: Path | None = None
    picture: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def ask(question: Question, whom: Client | Path | str, weights: Path | None = None) -> SearchResult:
    """Ask a server, or the collection in a folder, and draw the picture where one is wanted.

    `weights` is the checkpoint that the collection was made with, where that is one's own.
    """
    if question.picture is not None:
        check_picture_path(question.picture)
    with _client(whom, weights) as client:
        query: str | bytes
        if stored_id(question.image) is not None and not Path(question.image).exists():
            stored = client.image(question.image)
            size, query, pixels = (stored.width, stored.height), stored.name, load_pixels(stored)
        else:
            query, pixels = _read(
                Path(question.image), "give an image file, or a stored image's name such as images/12"
            )
            size = (pixels.shape[1], pixels.shape[0])
        regions = [parse_region(text, *size) for text in question.regions]
        mask = b"" if question.mask is None else _read(question.mask, "give a picture that is white inside")[0]
        result = client.search(query, SearchOptions(region=regions, mask=mask, **question.options))
    if question.picture is not None:
        save_picture(draw_search(pixels, regions, result), question.picture)
    return result


def parse_region(text: str, width: int, height: int) -> Box:
    """Parse x1,y1,x2,y2 in fractions, or in pixels of the `width` x `height` picture with the suffix px."""
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


@contextmanager
def _client(whom: Client | Path | str, weights: Path | None) -> Iterator[Client]:
    if isinstance(whom, Client):
        yield whom
        return
    from whatwhere.service.server import create_server  # noqa: PLC0415 - brings torch, which asking a server does without

    server, port = create_server(ServerSettings(whom, listen=_FREE_PORT, weights=weights, refresh_s=0))
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        server.stop(grace=None)


def _read(path: Path, remedy: str) -> tuple[bytes, NDArray[np.uint8]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}; {remedy}", field="image") from error
    return content, decode_image(content, path.name, shorter_side=None).pixels
