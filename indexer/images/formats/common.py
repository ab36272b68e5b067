"""Recognize and open a format by Pillow's own class for it."""

import io
from collections.abc import Callable

from PIL import (  # each plugin registers its format
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

_MAGIC_BYTES = 16  # of the file: Pillow recognizes a format by them


def recognizer(name: str) -> Callable[[bytes], bool]:
    """Return the predicate of a format, by the name that Pillow has for it."""

    def recognizes(content: bytes) -> bool:
        accepts = Image.OPEN[name][1]
        return accepts is None or accepts(content[:_MAGIC_BYTES]) is True  # a text where Pillow was built without it

    return recognizes


def opener(name: str) -> Callable[[bytes], Image.Image]:
    """Return the function that reads a header.

    By the format's own class: `PIL.Image.open` would also compare the picture's size with the limit of the process,
    and warn above it.
    """
    return lambda content: Image.OPEN[name][0](io.BytesIO(content), "")
