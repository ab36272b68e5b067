"""Give Pillow a picture whose pixels another library decodes, when they are asked for."""

from collections.abc import Callable
from typing import Any

from PIL import Image


class DeferredImage(Image.Image):
    """A picture of known size and mode that is decoded by `decode` at the first `load()`."""

    def __init__(self, size: tuple[int, int], mode: str, decode: Callable[[], Image.Image]) -> None:
        super().__init__()
        self._size = size
        self._mode = mode
        self._decode: Callable[[], Image.Image] | None = decode

    def load(self) -> Any:  # Pillow has no public name for its type
        """Decode the pixels. Raises what `decode` raises; AssertionError if its picture has another size or mode."""
        if self._decode is not None:
            decoded = self._decode()
            assert (decoded.size, decoded.mode) == (self._size, self._mode), (decoded.size, decoded.mode)
            decoded.load()
            self.im = decoded.im
            self._decode = None
        return super().load()
