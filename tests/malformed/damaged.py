"""Generate good files and damaged files: truncated, bits flipped, wrong sizes, wrong file extensions."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.malformed.entries import Entry, Expected, entry_of
from tests.malformed.pictures import (
    FORMATS,
    encoded,
    encoded_as,
    picture,
    png,
    replaced,
    with_png_header,
    with_tiff_entry,
)

# A JPEG may lack some rows, or the last bits of its coefficients: from about this share on it is read.
_ENOUGH = {"jpeg": 0.8, "progressive-jpeg": 0.35}

# --- good files -------------------------------------------------------------------------------------------------


def good(random: np.random.Generator) -> Iterator[Entry]:
    """Yield every supported format and pixel type, the smallest and the narrowest picture, and animations."""
    for name in FORMATS:
        content, suffix = encoded_as(name, random)
        yield entry_of(f"good/{name}{suffix}", content, Expected.GOOD)
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        image = picture(random, "L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        yield entry_of(f"good/{mode.replace(';', '')}.png", encoded(image, "PNG"), Expected.GOOD)
    for kind in ("JPEG", "TIFF"):
        yield entry_of(f"good/cmyk.{kind.lower()[:4]}", encoded(picture(random, "CMYK"), kind), Expected.GOOD)
    yield entry_of(
        "good/16-bit.tif", encoded(Image.fromarray(np.eye(48, dtype=np.uint16) * 999), "TIFF"), Expected.GOOD
    )
    yield entry_of("good/16-bit-colour.png", png((64, 48), 16, 2), Expected.GOOD)
    for size in ((1, 1), (20_000, 3), (3, 2_000)):
        yield entry_of(f"good/{size[0]}x{size[1]}.png", encoded(Image.new("RGB", size, "teal"), "PNG"), Expected.GOOD)
    frames = [picture(random) for _ in range(3)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield entry_of(f"good/animated.{kind.lower()}", content, Expected.GOOD)
    interlaced = with_png_header(png((1, 1), 8, 2), interlace=1)  # one pixel is the same in seven passes
    yield entry_of("good/interlaced.png", interlaced, Expected.GOOD)


# --- damaged files ----------------------------------------------------------------------------------------------


def truncated(random: np.random.Generator) -> Iterator[Entry]:
    """Yield each format truncated in its signature, in its header, and at every tenth of the rest."""
    seen: set[bytes] = set()
    for name in FORMATS:
        content, suffix = encoded_as(name, random)
        ends = [1, 3, 7, 11, 19, 27, *(round(len(content) * share / 100) for share in (5, *range(10, 96, 10), 95))]
        for end in ends:
            if content[:end] in seen:  # formats of one family begin alike: in another chunk it would be a duplicate
                continue
            seen.add(content[:end])
            is_enough = end > len(content) * _ENOUGH.get(name, 1)
            expected = Expected.EITHER if is_enough else Expected.FAILED
            yield entry_of(f"truncated/{name}-{end:05}{suffix}", content[:end], expected)


def flipped(random: np.random.Generator) -> Iterator[Entry]:
    """Yield files with one flipped bit: they fail if a checksum (PNG) or a signature has the bit, else either."""
    for name in FORMATS:
        content, suffix = encoded_as(name, random)
        covered = name == "png"
        for number, position in enumerate(random.integers(40, len(content) - 40, 20 if covered else 3).tolist()):
            damaged = replaced(content, position, bytes([content[position] ^ 1 << int(random.integers(8))]))
            expected = Expected.FAILED if covered else Expected.EITHER
            yield entry_of(f"flipped/{name}-{number:02}-{position}{suffix}", damaged, expected)
        damaged = replaced(content, 0, bytes([content[0] ^ 0x10]))
        yield entry_of(f"flipped/{name}-signature{suffix}", damaged, Expected.FAILED)


def lying(random: np.random.Generator) -> Iterator[Entry]:
    """Yield files whose headers announce wrong sizes, lengths and types."""
    content, _ = encoded_as("png", random)
    for fields in (
        {"width": 6400},
        {"height": 4800},
        {"width": 0},
        {"height": 0},
        {"depth": 3},
        {"color": 5},
        {"color": 6},
        {"interlace": 1},
        {"interlace": 9},
        {"compression": 1},
        {"filter": 7},
    ):
        ((field, value),) = fields.items()
        # the checksum is that of the header, so that nothing but missing rows tells; some decoders leave them black
        lenient = fields == {"color": 6} or field in ("height", "interlace", "compression", "filter")
        expected = Expected.EITHER if lenient else Expected.FAILED
        yield entry_of(f"lying/png-{field}-{value}.png", with_png_header(content, **fields), expected)
    for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
        announced = replaced(content, content.index(b"IDAT") - 4, struct.pack(">I", value))
        yield entry_of(f"lying/png-data-length-{value}.png", announced, Expected.FAILED)
    yield from _lying_jpegs(random)
    yield from _lying_others(random)


def _lying_jpegs(random: np.random.Generator) -> Iterator[Entry]:
    for name, frame in (("jpeg", b"\xff\xc0"), ("progressive-jpeg", b"\xff\xc2")):
        content, _ = encoded_as(name, random)
        sizes = content.index(frame) + 5
        # A height that is too large leaves rows without data: libjpeg paints them grey and warns, no more.
        for height, width, expected in (
            (0, 64, Expected.FAILED),
            (48, 0, Expected.FAILED),
            (480, 64, Expected.EITHER),
            (48, 640, Expected.EITHER),
        ):
            announced = replaced(content, sizes, struct.pack(">HH", height, width))
            yield entry_of(f"lying/{name}-{width}x{height}.jpg", announced, expected)
        announced = replaced(content, sizes, struct.pack(">HH", 65_500, 65_500))
        yield entry_of(f"lying/{name}-65500x65500.jpg", announced, Expected.FAILED, "IMAGE_TOO_MANY_PIXELS")
        for label, position, value, expected in (
            ("precision", sizes - 1, b"\x0d", Expected.FAILED),
            ("channels", sizes + 4, b"\xff", Expected.FAILED),
            ("frame-length", sizes - 3, b"\xff\xff", Expected.FAILED),
            ("tables", content.index(b"\xff\xc4") + 2, b"\x00\x02", Expected.EITHER),
        ):
            yield entry_of(f"lying/{name}-{label}.jpg", replaced(content, position, value), expected)


def _lying_others(random: np.random.Generator) -> Iterator[Entry]:
    gif, bmp, webp, tiff = (encoded_as(name, random)[0] for name in ("gif", "bmp", "webp", "tiff"))
    huge = with_tiff_entry(with_tiff_entry(tiff, 256, value=2**30), 257, value=2**30)
    first_frame = gif.index(b",") if gif[13 + 768 : 13 + 769] != b"," else 13 + 768
    for label, content, reason in (
        ("gif-screen.gif", replaced(gif, 6, b"\xff\xff\xff\xff"), "IMAGE_TOO_MANY_PIXELS"),
        ("gif-frame.gif", replaced(gif, first_frame + 5, b"\xff\xff\xff\xff"), "IMAGE_TOO_MANY_PIXELS"),
        ("bmp-width.bmp", replaced(bmp, 18, struct.pack("<i", 640)), None),
        ("bmp-height.bmp", replaced(bmp, 22, struct.pack("<i", 480)), None),
        ("bmp-zero-width.bmp", replaced(bmp, 18, bytes(4)), None),
        ("bmp-minus-width.bmp", replaced(bmp, 18, struct.pack("<i", -64)), "IMAGE_TOO_MANY_PIXELS"),
        ("bmp-huge.bmp", replaced(bmp, 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)), "IMAGE_TOO_MANY_PIXELS"),
        ("bmp-offset.bmp", replaced(bmp, 10, struct.pack("<I", 2**31)), None),
        ("bmp-header-length.bmp", replaced(bmp, 14, struct.pack("<I", 7)), None),
        ("bmp-depth.bmp", replaced(bmp, 28, struct.pack("<H", 5)), None),
        ("bmp-compression.bmp", replaced(bmp, 30, struct.pack("<I", 77)), None),
        ("webp-length.webp", replaced(webp, 4, struct.pack("<I", 8)), None),
        ("webp-chunk-length.webp", replaced(webp, 16, struct.pack("<I", 2**31)), None),
        ("tiff-directory.tif", replaced(tiff, 4, struct.pack("<I", 2**31)), None),
        ("tiff-no-directory.tif", replaced(tiff, 4, bytes(4)), None),
        ("tiff-entries.tif", with_tiff_entry(tiff, 256, count=0), None),
        ("tiff-wide.tif", with_tiff_entry(tiff, 256, value=6400), None),
        ("tiff-huge.tif", huge, "IMAGE_TOO_MANY_PIXELS"),
        ("tiff-compression.tif", with_tiff_entry(tiff, 259, value=9999), None),
        ("tiff-samples.tif", with_tiff_entry(tiff, 277, value=60_000), None),
        ("tiff-strip-offset.tif", with_tiff_entry(tiff, 273, value=2**31), None),
    ):
        yield entry_of(f"lying/{label}", content, Expected.FAILED, reason)
    yield entry_of("lying/tiff-high.tif", with_tiff_entry(tiff, 257, value=4800), Expected.EITHER)


def disguised(random: np.random.Generator) -> Iterator[Entry]:
    """Yield files with wrong extensions: images are indexed, other files fail."""
    for name, suffix in (("png", ".jpg"), ("jpeg", ".png"), ("gif", ".tiff"), ("webp", ".bmp"), ("bmp", ".webp")):
        yield entry_of(f"disguised/{name}{suffix}", encoded_as(name, random)[0], Expected.GOOD)
    image = picture(random)
    others = {
        "empty": b"",
        "one-byte": b"\x00",
        "zeros": bytes(4096),
        "noise": random.bytes(4096),
        "text": b"once upon a time " * 50,
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "script": b"#!/bin/sh\nexit 1\n",
        "zip": b"PK\x03\x04" + random.bytes(200),
        "ppm": encoded(image, "PPM"),
        "ico": encoded(image, "ICO"),
        "tga": encoded(image, "TGA"),
        "eps": encoded(image, "EPS"),
        "pdf": encoded(image, "PDF"),
        "photoshop": b"8BPS\x00\x01" + bytes(200),
        "signature": b"\x89PNG\r\n\x1a\n",
        "riff": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24),
    }
    for number, (name, content) in enumerate(others.items()):
        suffix = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp")[number % 6]
        yield entry_of(f"disguised/{name}{suffix}", content, Expected.FAILED)
    yield entry_of("disguised/notes.txt", b"notes", Expected.IGNORED)
    yield entry_of("disguised/picture.jpg.bak", encoded(image, "PNG"), Expected.GOOD)
    yield entry_of("disguised/.jpg", encoded(image, "PNG"), Expected.IGNORED)  # a hidden file without a suffix
