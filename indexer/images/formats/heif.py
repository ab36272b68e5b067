"""Open HEIC and other HEIF pictures with libheif and libde265 (pi-heif)."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.color_codes import to_srgb
from whatwhere.indexer.images.contents import printable_reason
from whatwhere.indexer.images.formats.iso_boxes import boxes, color_codes, descend
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

_one_header = threading.Lock()
# Globals of pi_heif, read with the header: one thread, and nothing that is not needed of a stranger's file.
_OPTIONS = {"DECODE_THREADS": 1, "THUMBNAILS": False, "DEPTH_IMAGES": False, "AUX_IMAGES": False}


def is_heif(content: bytes) -> bool:
    """Tell by the brands whether a file is HEIC or other HEIF."""
    return looks_like_image(content[:MAGIC_BYTES]) in ("HEIC", "HEIF")


def open_heif(content: bytes) -> Image.Image:
    """Read the header of the primary picture; `load()` decodes it, in sRGB if code points name its colors.

    libheif applies `irot`, `imir` and `clap`, and reduces 10 and 12 bits to 8. EXIF's orientation repeats that of
    `irot` and is ignored, as the standard demands. Raises UnreadableImage if the header is damaged, the codec is
    none of HEVC, or pi-heif is not installed.
    """
    name = looks_like_image(content[:MAGIC_BYTES]) or "HEIF"
    picture = _header(content, name)
    codes = None if "icc_profile" in picture.info else color_codes(content)
    info: dict[Any, Any] = {key: picture.info[key] for key in ("exif", "icc_profile") if picture.info.get(key)}
    return LazyPicture(
        name,
        picture.size,
        lambda: picture if codes is None else to_srgb(picture, *codes),
        info=info,
        mime_type=f"image/{name.lower()}",
    )


def _header(content: bytes, name: str) -> Any:
    try:
        import pi_heif  # noqa: PLC0415 - only for the pictures that need it
    except ImportError as error:
        raise UnreadableImage(f"{name} needs pi-heif: pip install 'whatwhere[formats]'") from error
    try:
        _check_item_names(content)
        with _one_header, _options_of(pi_heif.options):
            return pi_heif.HeifImageFile(io.BytesIO(content), "")
    except Exception as error:  # any type on invalid bytes
        raise UnreadableImage(f"{name} with a damaged header, {printable_reason(error)}; restore the file") from error


@contextmanager
def _options_of(options: Any) -> Iterator[None]:
    before = {name: getattr(options, name) for name in _OPTIONS}
    try:
        for name, value in _OPTIONS.items():
            setattr(options, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(options, name, value)


def _check_item_names(content: bytes) -> None:
    """Raise ValueError if the type of an item is no text: pi_heif 1.4 crashes at it (found by tests.fuzz_decoders)."""
    for box in descend(content, b"meta", b"iinf"):
        wide = content[box.start] > 0  # of a version after 0, the number of items has four bytes
        for item in boxes(content, box.start + (8 if wide else 6), box.end):
            start = 6 if content[item.start : item.start + 1] < b"\3" else 8  # after version, flags and number
            at = item.start + start + 2
            kind, texts = content[at : at + 4], content[at + 4 : item.end].split(b"\0")  # its name, its content type
            if not kind.isascii() or not kind.decode("ascii").isprintable():
                raise ValueError("the type of an item is no text")
            if kind == b"mime" and len(texts) > 1:
                texts[1].decode("utf-8")
