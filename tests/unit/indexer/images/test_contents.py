"""Files that are no images are named by what they are, damaged ones by their format and what is wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.malformed.pictures import chunk
from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.contents import content_kind
from whatwhere.indexer.images.decode import decode_image, upright_size


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (bytes(100), "a file of zeros"),
        (bytes(2000) + b"x", "a file that begins with zeros"),
        (b"<!DOCTYPE HTML>\n<html>", "an HTML page"),
        (b"\xef\xbb\xbf  <html lang='en'>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "an AppleDouble file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "an SVG drawing"),
        (b"<?xml version='1.0'?><note/>", "an XML document"),
        (b"\0\0\0\x18ftypmp42", "a video (MP4)"),
        (b"\0\0\0\x14ftypqt  ", "a video (QuickTime)"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "a video (QuickTime)"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video (AVI)"),
        (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"\0\0\0\x18ftypcrx ", "a Canon CR3 photograph (raw)"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"P6\n4 4\n255\n", "a Netpbm image"),
        (b"P5\n4 4\n255\n" + bytes(16), "a Netpbm image"),
        ("Grüße".encode(), "a text file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x01\x02\x03\xff\xfe", "an unknown format, it starts with the bytes 01 02 03 ff fe"),
    ],
)
def test_content_is_named(content: bytes, kind: str) -> None:
    """By its first bytes."""
    assert content_kind(content).startswith(kind)


def encoded(kind: str) -> bytes:
    """Encode noise of 60 x 40 pixels."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WebP", "GIF", "BMP", "TIFF", "JPEG"])
def test_a_damaged_image_is_named_with_its_format(kind: str) -> None:
    """With its size where the header has it."""
    content = encoded(kind)
    half = content[: len(content) // 2] if kind != "TIFF" else content[:8] + bytes(len(content) - 8)

    with pytest.raises(UnreadableImage, match=rf"^x\.y: .*{kind}"):
        decode_image(half, "x.y")


# --- PNG ----------------------------------------------------------------------------------------------------------

HEADER = 8 + 25  # bytes up to the end of the first chunk
BOMB = zlib.compress(bytes(2**27), 1)  # this module is imported by every process that runs tests


def with_chunk(kind: bytes, body: bytes, *, damaged: bool = False, behind: bool = False) -> bytes:
    """Put a chunk before or behind the pixels of a PNG."""
    made, content = chunk(kind, body), encoded("PNG")
    made = made[:-1] + bytes([made[-1] ^ 1]) if damaged else made
    place = len(content) - 12 if behind else HEADER
    return content[:place] + made + content[place:]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("kind", "body", "damaged"),
    [
        (b"tEXt", b"Comment\0hello", True),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>", True),
        (b"tEXt", b"Comment\0" + b"x" * 2**21, False),
        (b"zTXt", b"Comment\0\0" + BOMB, False),
        (b"zTXt", b"Raw profile type exif\0\0" + BOMB, False),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB, False),
        (b"iCCP", b"profile\0\0" + BOMB, False),
        (b"iCCP", b"profile\0\0garbage", False),
        (b"iCCP", b"profile\0\0garbage", True),
        (b"gAMA", b"\0\1", True),
    ],
)
def test_what_lies_beside_the_pixels_costs_no_picture(kind: bytes, body: bytes, damaged: bool, behind: bool) -> None:
    """Text and profiles that are damaged or too large are left out."""
    content = with_chunk(kind, body, damaged=damaged, behind=behind)

    found = decode_image(content, "x", shorter_side=None).pixels

    np.testing.assert_array_equal(found, decode_image(encoded("PNG"), "x", shorter_side=None).pixels)


@pytest.mark.parametrize("kind", [b"tRNS", b"PLTE"])
def test_what_decides_about_pixels_is_checked(kind: bytes) -> None:
    """A palette or transparency with a wrong checksum would change the picture."""
    with pytest.raises(UnreadableImage, match=rf"^x: PNG .*checksum.*{kind.decode()}"):
        decode_image(with_chunk(kind, bytes(6), damaged=True), "x")


def test_pixels_that_cannot_be_decoded_are_no_blank_picture() -> None:
    """Right checksums, and a stream that is none: reading the orientation must not hide it."""
    content = encoded("PNG")
    start = content.index(b"IDAT") - 4
    garbage = content[:start] + chunk(b"IDAT", b"\x17" * 5000) + chunk(b"IEND", b"")

    with pytest.raises(UnreadableImage, match=r"^x: not a complete PNG \(60 x 40 pixels: broken data stream"):
        decode_image(garbage, "x")
    assert upright_size(garbage, "x") == (60, 40)


def test_apples_variant_of_png_is_named() -> None:
    """Its pixels are packed otherwise."""
    content = encoded("PNG")

    with pytest.raises(UnreadableImage, match=r"^x: PNG in Apple's CgBI variant"):
        decode_image(content[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + content[8:], "x")


def test_an_orientation_in_text_is_applied() -> None:
    """ImageMagick writes EXIF as a text, which is kept if it is intact."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n")

    assert decode_image(with_chunk(b"zTXt", text), "x", shorter_side=None).pixels.shape == (60, 40, 3)
