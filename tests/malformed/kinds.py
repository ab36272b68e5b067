"""Generate the odd kinds of PNG, JPEG and TIFF that photo libraries hold, and files that are no images."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.malformed.entries import Entry, Expected, entry_of
from tests.malformed.pictures import chunk, encoded, picture, png, replaced, tiff_values, with_tiff_entry

_MEBIBYTE = 1024 * 1024


def odd_pngs(random: np.random.Generator) -> Iterator[Entry]:
    """Yield PNGs whose pixels cannot be decoded, and good ones whose text or profile is damaged or too large."""
    garbage = png((64, 48), 8, 2, rows=1)
    start = garbage.index(b"IDAT")
    broken = chunk(b"IDAT", random.bytes(2000))
    yield entry_of("various/png/garbage.png", garbage[: start - 4] + broken + chunk(b"IEND", b""), Expected.FAILED)
    apple = chunk(b"CgBI", b"\x50\x00\x20\x02")
    yield entry_of("various/png/cgbi.png", garbage[:8] + apple + garbage[8:], Expected.FAILED)
    good = encoded(picture(random), "PNG")
    header = 8 + 25
    for name, kind, body in (
        ("text", b"tEXt", b"Comment\0" + b"x" * (2 * _MEBIBYTE)),
        ("packed-text", b"zTXt", b"Comment\0\0" + random.bytes(99)),
        ("profile", b"iCCP", b"profile\0\0" + random.bytes(999)),
        ("exif", b"eXIf", random.bytes(999)),
        ("time", b"tIME", b""),
        ("resolution", b"pHYs", b"\0"),
        ("orientation-text", b"zTXt", b"Raw profile type exif\0\0" + random.bytes(99)),
    ):
        for label, made in (("", chunk(kind, body)), ("-checksum", chunk(kind, body)[:-1] + b"?")):
            if name in ("time", "resolution") and not label:
                continue  # Pillow refuses these with a right checksum: nobody writes them so
            yield entry_of(f"various/png/{name}{label}.png", good[:header] + made + good[header:], Expected.GOOD)
            yield entry_of(f"various/png/{name}{label}-behind.png", good[:-12] + made + good[-12:], Expected.GOOD)
    palette = encoded(picture(random, "P"), "PNG")
    place = palette.index(b"PLTE") + 9
    yield entry_of("various/png/palette.png", replaced(palette, place, bytes([palette[place] ^ 1])), Expected.FAILED)


def odd_jpegs(random: np.random.Generator) -> Iterator[Entry]:
    """Yield JPEGs that are cut, with and without an end marker, and rare kinds."""
    large = picture(random).resize((640, 480))
    for name, options in (("jpeg", {}), ("gray", {}), ("progressive", {"progressive": True})):
        content = encoded(large.convert("L" if name == "gray" else "RGB"), "JPEG", quality=90, **options)
        for ending, label in ((b"", "cut"), (b"\xff\xd9", "cut-ended")):
            yield entry_of(
                f"various/jpeg/{name}-{label}-97.jpg", content[: len(content) * 97 // 100] + ending, Expected.GOOD
            )
            yield entry_of(
                f"various/jpeg/{name}-{label}-20.jpg", content[: len(content) // 5] + ending, Expected.FAILED
            )
        yield entry_of(f"various/jpeg/{name}-no-end.jpg", content[:-2], Expected.GOOD)
    samples = np.asarray(picture(random))
    twelve = imagecodecs.jpeg8_encode(samples.astype(np.uint16) * 16, bitspersample=12)
    yield entry_of("various/jpeg/12-bit.jpg", twelve, Expected.GOOD)
    yield entry_of("various/jpeg/12-bit-cut.jpg", twelve[: len(twelve) // 2], Expected.FAILED)
    yield entry_of("various/jpeg/lossless.jpg", imagecodecs.jpeg8_encode(samples, lossless=True), Expected.GOOD)
    yield entry_of("various/jpeg/jpeg-ls.jpg", imagecodecs.jpegls_encode(samples), Expected.GOOD)
    hierarchical = encoded(picture(random), "JPEG")
    place = hierarchical.index(b"\xff\xc0") + 1
    yield entry_of("various/jpeg/hierarchical.jpg", replaced(hierarchical, place, b"\xc5"), Expected.FAILED)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, broken in (
        ("noise", random.bytes(3000)),
        ("cut", profile[:300]),
        ("count", replaced(profile, 128, b"\x7f\xff\xff\xff")),
        ("offsets", replaced(profile, 136, b"\xff" * 8)),
        ("large", profile + bytes(5 * _MEBIBYTE)),
    ):
        content = encoded(picture(random), "JPEG", icc_profile=broken)
        yield entry_of(f"various/jpeg/profile-{name}.jpg", content, Expected.GOOD)


def odd_tiffs(random: np.random.Generator) -> Iterator[Entry]:
    """Yield layouts of TIFF that are rare, a thumbnail before the picture, and layouts that would fill the memory."""
    wide = np.asarray(picture(random)).astype(np.uint16) * 257
    planes = np.moveaxis(wide, -1, 0)
    for name, samples, options in (
        ("planar", planes, {"photometric": "rgb", "planarconfig": "separate"}),
        ("planar-tiles", planes, {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
        ("white", wide[..., 0], {"photometric": "miniswhite"}),
        ("32-bit", wide[..., 0].astype(np.uint32) << 16, {"photometric": "minisblack"}),
        ("signed", (wide[..., 0] // 2).astype(np.int16), {"photometric": "minisblack"}),
        ("12-bit", wide[..., 0] >> 4, {"photometric": "minisblack", "bitspersample": 12}),
        ("float16", (wide / 65535).astype(np.float16), {"photometric": "rgb"}),
        ("float64", wide / 65535, {"photometric": "rgb"}),
        ("nan", np.full((48, 64), np.nan), {"photometric": "minisblack"}),
        ("big", wide.astype(np.uint8), {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
        ("jpeg2000", (wide >> 8).astype(np.uint8), {"photometric": "rgb", "compression": "jpeg2000"}),
    ):
        expected = Expected.FAILED if name == "nan" else Expected.GOOD
        yield entry_of(f"various/tiff/{name}.tif", _tiff(samples, **options), expected)
    yield entry_of("various/tiff/thumbnail-first.tif", _with_thumbnail(wide), Expected.GOOD)
    base = _tiff(wide, photometric="rgb", byteorder="<")
    tiled = _tiff(wide, photometric="rgb", byteorder="<", tile=(16, 16))
    packed = _tiff(wide, photometric="rgb", byteorder="<", compression="jpeg2000")
    (start,) = tiff_values(packed, 273)
    size = packed.index(b"\xff\x51", start) + 6
    yield from (
        entry_of(f"various/tiff/{name}.tif", content, Expected.FAILED)
        for name, content in (
            ("raw-sensor", with_tiff_entry(base, 262, value=32803)),
            ("no-colors", with_tiff_entry(base, 262, value=4711)),
            ("tile-too-large", with_tiff_entry(tiled, 322, value=2**31)),
            ("tile-of-none", with_tiff_entry(tiled, 322, value=0)),
            ("many-strips", with_tiff_entry(base, 278, value=0)),
            ("cut", base[: len(base) // 2]),
            ("codestream-too-large", replaced(packed, size, struct.pack(">II", 2**30, 2**30))),
        )
    )


def _tiff(samples: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


def _with_thumbnail(samples: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(samples[::4, ::4], photometric="rgb", subfiletype=1, metadata=None, subifds=1)
        file.write(samples, photometric="rgb", metadata=None)
    return buffer.getvalue()


def no_images(random: np.random.Generator) -> Iterator[Entry]:
    """Yield what lies in photo folders under the names of images."""
    for name, content in (
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"),
        ("page", b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"),
        ("apple-double", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4000)),
        ("zeros", bytes(5000)),
        ("photoshop", b"8BPS\0\1" + random.bytes(100)),
        ("film", b"\0\0\0\x18ftypmp42" + random.bytes(100)),
        ("old-film", b"\0\0\0\x08wide" + random.bytes(100)),
        ("archive", b"\x1f\x8b" + zlib.compress(b"photographs")),
    ):
        yield entry_of(f"various/no-images/{name}.jpg", content, Expected.FAILED)
    pdf = encoded(Image.new("RGB", (8, 8)), "PDF")
    yield entry_of("various/no-images/document.png", pdf, Expected.FAILED)
