"""Encode small pictures, and write PNG and TIFF files that no encoder writes."""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

_FOLDER = Path(skimage.data.__file__).parent
_PIECE = 1024 * 1024
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_right")

FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", ".jpg", {"quality": 90}),
    "progressive-jpeg": ("JPEG", ".jpeg", {"quality": 90, "progressive": True}),
    "png": ("PNG", ".png", {}),
    "webp": ("WEBP", ".webp", {"quality": 90}),
    "lossless-webp": ("WEBP", ".webp", {"lossless": True}),
    "gif": ("GIF", ".gif", {}),
    "tiff": ("TIFF", ".tif", {}),
    "lzw-tiff": ("TIFF", ".tiff", {"compression": "tiff_lzw"}),
    "deflate-tiff": ("TIFF", ".tiff", {"compression": "tiff_deflate"}),
    "bmp": ("BMP", ".bmp", {}),
}


def picture(random: np.random.Generator, mode: str = "RGB") -> Image.Image:
    """Cut 64 x 48 pixels from a photograph and add a little noise, so that no two pictures are the same."""
    photograph = _photograph(random.choice(_PHOTOGRAPHS))
    left, top = random.integers(0, 150, 2).tolist()
    pixels = np.asarray(photograph.crop((left, top, left + 192, top + 144)).resize((64, 48)))
    noisy = pixels.astype(int) + random.integers(-8, 9, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


@functools.cache
def _photograph(name: str) -> Image.Image:
    return Image.open(_FOLDER / f"{name}.png").convert("RGB")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded_as(name: str, random: np.random.Generator) -> tuple[bytes, str]:
    """Return a picture in one of FORMATS, and the suffix of its file."""
    kind, suffix, options = FORMATS[name]
    return encoded(picture(random), kind, **options), suffix


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@functools.cache
def packed_zeros(count: int) -> bytes:
    """Return `count` zeros compressed by zlib: what follows a full flush is the same bytes for each piece."""
    packer = zlib.compressobj(6)
    begin = packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(bytes(count % _PIECE)) + packer.flush()
    checksum = (count % 65_521) << 16 | 1  # Adler-32 of zeros, of which the packer has seen some alone
    return begin + count // _PIECE * piece + end[:-4] + struct.pack(">I", checksum)


def png(size: tuple[int, int], depth: int, color: int, *, extra: bytes = b"", rows: int | None = None) -> bytes:
    """Return a PNG of zeros; depth and color type are PNG's numbers, `rows` is the number of rows in the data."""
    width, height = size
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    pixels = packed_zeros((1 + (width * depth * channels + 7) // 8) * (height if rows is None else rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def replaced(content: bytes, position: int, values: bytes) -> bytes:
    """Overwrite bytes."""
    return content[:position] + values + content[position + len(values) :]


def with_png_header(content: bytes, **fields: int) -> bytes:
    """Change the fields of a PNG's header, and correct its checksum."""
    names = ("width", "height", "depth", "color", "compression", "filter", "interlace")
    header = dict(zip(names, struct.unpack(">IIBBBBB", content[16:29]), strict=True)) | fields
    return replaced(content, 8, chunk(b"IHDR", struct.pack(">IIBBBBB", *header.values())))


def tiff_values(content: bytes, tag: int) -> tuple[int, ...]:
    """Return the values of an entry of LONGs in the first directory of a little-endian TIFF."""
    position = _tiff_entry(content, tag)
    count, value = struct.unpack_from("<II", content, position + 4)
    return struct.unpack_from(f"<{count}I", content, value if count > 1 else position + 8)


def _tiff_entry(content: bytes, tag: int) -> int:
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    positions = range(directory + 2, directory + 2 + 12 * entries, 12)
    return next(position for position in positions if struct.unpack_from("<H", content, position) == (tag,))


def with_tiff_entry(content: bytes, tag: int, *, count: int | None = None, value: int | None = None) -> bytes:
    """Change the count, or the value (as a LONG), of an entry in the first directory of a little-endian TIFF."""
    position = _tiff_entry(content, tag)
    found_type, found_count, found_value = struct.unpack_from("<HII", content, position + 2)
    kind = found_type if value is None else 4
    changed = (kind, found_count if count is None else count, found_value if value is None else value)
    return replaced(content, position + 2, struct.pack("<HII", *changed))
