"""Define a format family: how decode.py recognizes and opens the formats that one library reads."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from whatwhere.indexer.images.limits import ImageLimits


def _no_check(_content: bytes, _picture: Image.Image, _limits: ImageLimits) -> None:
    pass


def _none_missing(_content: bytes, _picture: Image.Image) -> float | None:
    return None


@dataclass(frozen=True)
class Family:
    """A family of formats; its functions raise UnreadableImage without the file's name, which decode.py adds.

    `recognizes` gets all bytes but judges by the first ones. `open` reads the header; it may leave the pixels to
    `load()`. `check` is called after the size was compared with the limit and before `load()`. `missing_rows` is called
    after it, and returns the share of rows that a truncated file lacks, None for a complete one. `upright`: the decoder
    applies the orientation itself. An empty `mime_type`: the picture has one, `custom_mimetype`.
    """

    name: str
    mime_type: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[bytes], bool]
    open: Callable[[bytes], Image.Image]
    check: Callable[[bytes, Image.Image, ImageLimits], None] = _no_check
    missing_rows: Callable[[bytes, Image.Image], float | None] = _none_missing
    upright: bool = False
