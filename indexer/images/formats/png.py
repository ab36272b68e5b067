"""Open PNG pictures: what is not pixels is left out where it is damaged, and pixels are verified."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.formats.common import opener, recognizer
from whatwhere.indexer.images.limits import ImageLimits

_SIGNATURE_BYTES = 8
_MAX_EXPANDED_BYTES = 1024 * 1024 - 1  # of a profile or text: Pillow refuses the picture above
# What decides about pixels: a wrong checksum here is damage. Everything else is left out if it is damaged.
_PIXEL_KINDS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"tRNS"})
_TEXT_KINDS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_READ_TEXTS = (b"Raw profile type ", b"XML:com.adobe.xmp\0")  # Pillow finds the orientation in these

is_png = recognizer("PNG")
_open = opener("PNG")


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # of its length field
    end: int  # behind its checksum


def open_png(content: bytes) -> Image.Image:
    """Read the header of a PNG; text, and other chunks beside pixels that are damaged, are left out.

    Raises UnreadableImage for Apple's variant of the format, and SyntaxError or another error for a damaged header.
    """
    if content[_SIGNATURE_BYTES + 4 : _SIGNATURE_BYTES + 8] == b"CgBI":
        raise UnreadableImage(
            "PNG in Apple's CgBI variant, from an iPhone app; convert it with `pngcrush -revert-iphone-optimizations`"
        )
    return _open(_cleaned(content))


def check_png(content: bytes, _picture: Image.Image, _limits: ImageLimits) -> None:
    """Verify the checksums of the pixel data, which Pillow skips: corruption would go unnoticed."""
    for chunk in _chunks(content):
        if chunk.kind in _PIXEL_KINDS and not _is_intact(content, chunk):
            raise UnreadableImage(
                f"PNG checksum mismatch in {chunk.kind.decode()}, the pixel data is corrupt: restore the file, or save "
                "it again"
            )


def _chunks(content: bytes) -> Iterator[_Chunk]:
    """Yield the chunks up to IEND; the last may end behind the content."""
    position = _SIGNATURE_BYTES
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"IEND":
            return
        yield _Chunk(kind, position, position + 12 + length)
        position += 12 + length


def _is_intact(content: bytes, chunk: _Chunk) -> bool:
    body = memoryview(content)[chunk.start + 4 : chunk.end - 4]
    return zlib.crc32(body) == int.from_bytes(content[chunk.end - 4 : chunk.end], "big")


def _cleaned(content: bytes) -> bytes:
    view, kept, position = memoryview(content), [], 0
    for chunk in _chunks(content):
        if _is_left_out(content, chunk):
            kept.append(view[position : chunk.start])
            position = chunk.end
    return b"".join((*kept, view[position:])) if kept else content


def _is_left_out(content: bytes, chunk: _Chunk) -> bool:
    is_beside_pixels = bool(chunk.kind[0] & 0x20) and chunk.kind not in _PIXEL_KINDS  # lower case: ancillary
    if not is_beside_pixels:
        return False
    body = content[chunk.start + 8 : chunk.end - 4]
    if chunk.kind in _TEXT_KINDS and not body.startswith(_READ_TEXTS):
        return True
    return not _is_intact(content, chunk) or not _expands_within_limit(chunk.kind, body)


def _expands_within_limit(kind: bytes, body: bytes) -> bool:
    _, _, rest = body.partition(b"\0")  # behind the keyword
    compressed = rest[1:]  # behind the method
    if kind == b"iTXt" and rest[:1] == b"\1":
        compressed = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
    elif kind not in (b"iCCP", b"zTXt"):
        return len(body) <= _MAX_EXPANDED_BYTES
    try:
        return len(zlib.decompressobj().decompress(compressed, _MAX_EXPANDED_BYTES + 1)) <= _MAX_EXPANDED_BYTES
    except zlib.error:
        return False
