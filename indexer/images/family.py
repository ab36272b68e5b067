"""Define a format family: how decode.py recognizes and opens the formats that one library reads."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from whatwhere.indexer.images.limits import ImageLimits


def _no_check(_content: bytes, _picture: Image.Image, _limits: ImageLimits) -> None:
    pass


@dataclass(frozen=True)
class Family:
    """A family of formats; its functions raise UnreadableImage without the file's name, which decode.py adds.

    `recognizes` gets all bytes but judges by the first ones. `open` reads the header; it may leave the pixels to
    `load()`. `check` is called after the size was compared with the limit and before `load()`. `upright`: the decoder
    applies the orientation itself. An empty `mime_type`: the picture has one, `custom_mimetype`.
    """

    name: str
    mime_type: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[bytes], bool]
    open: Callable[[bytes], Image.Image]
    check: Callable[[bytes, Image.Image, ImageLimits], None] = _no_check
    upright: bool = False
