"""A picture whose header is read and whose pixels are decoded later, as Pillow's own are."""

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.contents import printable_reason


class LazyPicture(Image.Image):
    """A picture of a known size; `load()` calls `decode` once and takes its pixels.

    Any error of `decode` becomes UnreadableImage with the name of the format. `mime_type` overrides the family's.
    """

    def __init__(
        self,
        format_name: str,
        size: tuple[int, int],
        decode: Callable[[], Image.Image],
        *,
        info: Mapping[str | tuple[int, int], Any] | None = None,
        mime_type: str = "",
    ) -> None:
        super().__init__()
        self.format = format_name
        self.custom_mimetype = mime_type
        self.info = dict(info or {})
        self._mode, self._size = "RGB", size  # the mode until it is loaded
        self._decode: Callable[[], Image.Image] | None = decode

    def load(self) -> Any:
        """Decode the pixels; raise UnreadableImage if they are damaged."""
        if self._decode is not None:
            decoded = self._decoded(self._decode)
            self._decode = None
            self.im, self._mode, self._size = decoded.im, decoded.mode, decoded.size
        return super().load()

    def _decoded(self, decode: Callable[[], Image.Image]) -> Image.Image:
        try:
            decoded = decode()
            decoded.load()
        except UnreadableImage:
            raise
        except Exception as error:  # decoders raise any type on invalid bytes
            raise UnreadableImage(
                f"{self.format} that cannot be decoded, {printable_reason(error)}; restore the file, or save it again"
            ) from error
        if decoded.size != self._size:
            raise UnreadableImage(f"{self.format} of {decoded.size} pixels, its header says {self._size}")
        return decoded
