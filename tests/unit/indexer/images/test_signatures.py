"""Formats are recognized by their first bytes."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    """Return the first box of an ISO container."""
    return (16 + 4 * len(compatible)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + b"".join(compatible)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("JPEG", "JPEG"), ("PNG", "PNG"), ("GIF", "GIF"), ("TIFF", "TIFF"), ("BMP", "BMP"), ("WEBP", "WebP")),
        *(("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000")),
    ],
)
def test_a_written_image_is_recognized(kind: str, name: str) -> None:
    """What Pillow writes is named, by `MAGIC_BYTES` bytes."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, kind)

    assert looks_like_image(file.getvalue()[:MAGIC_BYTES]) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"mif1", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"mif1", b"miaf", b"avif"), "AVIF"),
        (ftyp(b"mif1", b"mif1", b"miaf"), "HEIF"),
        (ftyp(b"msf1", b"msf1", b"hevc"), "HEIC"),
        (ftyp(b"crx ", b"crx ", b"isom"), "RAW"),
        (ftyp(b"isom", b"iso2", b"avc1", b"mp41"), None),
        (ftyp(b"qt  "), None),
        (ftyp(b"isom") + b"heic", None),  # after the box
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x4f\xff\x51\0\x29", "JPEG 2000"),
        (b"II*\0\x10\0\0\0CR\x02\0", "RAW"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (b"FUJIFILMCCD-RAW 0201", "RAW"),
        (b"IIRO\x08\0\0\0", "RAW"),
        (b"IIU\0\x18\0\0\0", "RAW"),
        (b"BMW is no bitmap, but it is a long text", None),
        (b"<!DOCTYPE html>", None),
        (b"RIFF\x10\0\0\0WAVE", None),
        (b"BM", None),
        (b"", None),
    ],
)
def test_first_bytes_name_the_format(head: bytes, name: str | None) -> None:
    """Containers are named by their brands, camera files by their own signatures; videos and texts are no images."""
    assert looks_like_image(head) == name


def test_importing_needs_no_image_library() -> None:
    """A scan recognizes images without Pillow."""
    code = "import sys, whatwhere.indexer.images.signatures; sys.exit('PIL' in sys.modules or 'numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
