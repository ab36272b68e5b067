"""Generate hostile files: bombs, invalid EXIF, names that are hard to print, and special files."""

import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.malformed.entries import Entry, Expected, entry_of
from tests.malformed.pictures import (
    chunk,
    encoded,
    encoded_as,
    packed_zeros,
    picture,
    png,
    replaced,
    tiff_values,
    with_tiff_entry,
)

_MEBIBYTE = 1024 * 1024
_ORIENTATION = 0x0112


def bombs(random: np.random.Generator) -> Iterator[Entry]:
    """Yield small files that could take much memory or time: they fail, or are decoded within limits."""
    for size, depth, color in (((20_001, 10_000), 1, 0), ((40_000, 40_000), 1, 3), ((4_000_000, 51), 1, 0)):
        content = png(size, depth, color)
        yield entry_of(f"bombs/{size[0]}x{size[1]}.png", content, Expected.FAILED, "IMAGE_TOO_MANY_PIXELS")
    plain = encoded(Image.new("1", (15_000, 15_000)), "TIFF", compression="group4")
    yield entry_of("bombs/pixels.tif", plain, Expected.FAILED, "IMAGE_TOO_MANY_PIXELS")
    yield entry_of("bombs/pixels.webp", plain_webp(16_384), Expected.FAILED, "IMAGE_TOO_MANY_PIXELS")
    # Very many pixels, with what costs most memory, several files at once.
    yield entry_of("bombs/largest.webp", plain_webp(10_000), Expected.GOOD)
    yield entry_of("bombs/largest.png", png((10_000, 10_000), 8, 6), Expected.GOOD)
    # Memory is taken for all rows before the last ones turn out to be torn.
    large = encoded(Image.new("RGB", (5_000, 5_000)), "TIFF", compression="tiff_deflate")
    last = tiff_values(large, 273)[-1]
    for number in range(8):
        content = replaced(large, last + 2 + number, b"\xaa")
        yield entry_of(f"bombs/torn-{number:02}.tif", content, Expected.FAILED)
    yield from _compression_bombs()
    yield from _lengthy(random)


def plain_webp(side: int) -> bytes:
    """Return 34 bytes of WebP: a square of one half-transparent color, with no bits per pixel."""
    content = encoded(Image.new("RGBA", (8, 8), (0, 80, 160, 128)), "WEBP", lossless=True, exact=True)
    assert content[12:16] == b"VP8L"
    (header,) = struct.unpack_from("<I", content, 21)
    return replaced(content, 21, struct.pack("<I", header >> 28 << 28 | (side - 1) << 14 | (side - 1)))


def _compression_bombs() -> Iterator[Entry]:
    zeros = packed_zeros(100 * _MEBIBYTE)
    for name, extra in (
        ("text", chunk(b"zTXt", b"Comment\0\0" + zeros)),
        ("international-text", chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros)),
        ("profile", chunk(b"iCCP", b"profile\0\0" + zeros)),
    ):
        yield entry_of(f"bombs/{name}.png", png((64, 48), 8, 2, extra=extra), Expected.GOOD)
    overfull = png((64, 48), 8, 2, rows=500_000)  # as many rows as are announced, and then 95 MB more
    yield entry_of("bombs/overfull.png", overfull, Expected.EITHER)
    tiff = encoded(Image.new("RGB", (64, 48)), "TIFF", compression="tiff_deflate")
    moved = with_tiff_entry(with_tiff_entry(tiff, 273, value=len(tiff)), 279, value=len(zeros))
    yield entry_of("bombs/overfull.tif", moved + zeros, Expected.EITHER)


def _lengthy(random: np.random.Generator) -> Iterator[Entry]:
    """Yield files that could take a decoder long."""
    progressive = encoded(Image.new("RGB", (4_000, 4_000)), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield entry_of("bombs/scans.jpg", progressive[:-2] + 50_000 * scan + b"\xff\xd9", Expected.FAILED)
    yield entry_of("bombs/chunks.png", png((64, 48), 8, 0, extra=50_000 * chunk(b"abCd", b"")), Expected.GOOD)
    animation = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield entry_of("bombs/frames.png", png((64, 48), 8, 0, extra=animation), Expected.EITHER)
    tiff = encoded(picture(random), "TIFF")
    (directory,) = struct.unpack_from("<I", tiff, 4)
    (entries,) = struct.unpack_from("<H", tiff, directory)
    looping = replaced(tiff, directory + 2 + 12 * entries, struct.pack("<I", directory))
    yield entry_of("bombs/looping.tif", looping, Expected.GOOD)
    tags = b"".join(struct.pack("<HHII", tag, 4, 2**30, 8) for tag in range(60_000))
    directory = b"II*\0" + struct.pack("<IH", 8, 60_000) + tags + bytes(4)
    yield entry_of("bombs/tags.tif", directory, Expected.FAILED)
    large = 512 * _MEBIBYTE + 1
    yield Entry("bombs/bytes.jpg", Expected.FAILED, lambda path: _sparse(path, large), "IMAGE_TOO_MANY_BYTES")
    yield Entry("bombs/zeros.jpg", Expected.FAILED, lambda path: _sparse(path, large // 8), "UNREADABLE_IMAGE")


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


# --- EXIF -------------------------------------------------------------------------------------------------------


def odd_exif(random: np.random.Generator) -> Iterator[Entry]:
    """Yield good pictures with EXIF that is truncated, has loops or impossible values."""
    upright, zero = _exif((_ORIENTATION, 3, 1, 6)), _exif((_ORIENTATION, 3, 1, 0))
    blocks = {
        "orientation-6": upright,
        "orientation-0": zero,
        "orientation-65535": _exif((_ORIENTATION, 3, 1, 65_535)),
        "orientation-text": _exif((_ORIENTATION, 2, 4, 0x006B6F)),
        "orientation-many": _exif((_ORIENTATION, 3, 2**31, 8)),
        "orientation-fraction": _exif((_ORIENTATION, 5, 1, 8)),
        "orientation-unknown-type": _exif((_ORIENTATION, 99, 1, 6)),
        "loop": _exif((_ORIENTATION, 3, 1, 1), following=8),
        "loop-below": _exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8)),
        "cut-in-header": upright[:8],
        "cut-in-entries": upright[:-10],
        "no-header": b"garbage",
        "outside": b"II*\0\xff\xff\xff\xff",
        "zeros": bytes(60_000),
    }
    for name, block in blocks.items():
        content = encoded(picture(random), "JPEG", exif=b"Exif\0\0" + block)
        yield entry_of(f"exif/{name}.jpg", content, Expected.GOOD)
    for name in ("loop", "outside", "cut-in-entries"):
        for kind in ("PNG", "WEBP"):
            content = encoded(picture(random), kind, exif=b"Exif\0\0" + blocks[name])
            yield entry_of(f"exif/{name}.{kind.lower()}", content, Expected.GOOD)


def _exif(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """Return a directory of (tag, type, count, value) with the offset of the next one."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following)


# --- names and kinds of files -----------------------------------------------------------------------------------


def odd_names(random: np.random.Generator) -> Iterator[Entry]:
    """Yield names that are not UTF-8, have several lines, or have special characters of shells, terminals or URIs."""
    for name in (
        b"not-utf-8-\xff\xfe.png",
        b"latin-\xe9.png",
        b"two\nlines.png",
        b"terminal-\x1b[31mred\x07.png",
        b"percent-%41%00%2f.png",
        b"query?a=b#c&d.png",
        b"spaces  and\ttabs .png",
        b"quotes'\"`$(true);|.png",
        b"back\\slash.png",
        b"-c.png",
        b"[bold]brackets[/bold].png",
        "umlaut-u\u0308-\U0001f4f7-\u202egnp.png".encode(),
        b"n" * 251 + b".png",
        b"UPPER.PNG",
    ):
        yield entry_of("names/" + os.fsdecode(name), encoded(picture(random), "PNG"), Expected.GOOD)
    for name in (b"torn-\xff\xfe.png", b"torn\nlines.png", b"torn-\x1b[31mred.png", b"folder-\xff/torn.png"):
        content = encoded(picture(random), "PNG")[:200]
        yield entry_of("names/" + os.fsdecode(name), content, Expected.FAILED)


def special_files(random: np.random.Generator) -> Iterator[Entry]:
    """Yield links, pipes, devices, folders named like images, unreadable files, and files that vanish."""
    yield from _links()
    content = encoded_as("png", random)[0]
    yield entry_of("special/folder.jpg/inside.png", content, Expected.GOOD)
    for name, make in (
        ("pipe.jpg", os.mkfifo),
        ("socket.jpg", _socket),
        ("device.jpg", _device),
        ("secret.png", lambda path: (path.write_bytes(content), path.chmod(0))),
    ):
        yield Entry(f"special/{name}", Expected.FAILED, make, "UNREADABLE_IMAGE")
    for number in range(8):
        content = encoded_as("jpeg", random)[0]
        made = entry_of(f"zz-vanishing/{number}.jpg", content, Expected.FAILED)
        yield Entry(made.name, made.expected, made.make, made.reason, vanishes=True)


def _links() -> Iterator[Entry]:
    for name, target in (
        ("loop.jpg", "loop.jpg"),
        ("there.jpg", "back.jpg"),
        ("back.jpg", "there.jpg"),
        ("dangling.png", "nowhere.png"),
        ("memory.png", "/proc/self/mem"),
        ("messages.png", "/proc/kmsg"),  # a regular file, it says, of which reading waits for ever
        ("zeros.png", "/dev/zero"),
    ):
        yield Entry(f"special/{name}", Expected.FAILED, _link_to(target), "UNREADABLE_IMAGE")
    yield Entry("special/link.png", Expected.GOOD, _link_to("../good/png.png"))
    yield Entry("special/hard-link.png", Expected.GOOD, lambda path: os.link(path.parent.parent / "good/png.png", path))
    yield Entry("special/upwards", Expected.IGNORED, _link_to(".."))
    yield Entry("special/folder-link.jpg", Expected.IGNORED, _link_to("../good"))


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        before = Path.cwd()
        os.chdir(path.parent)  # the address has no room for a long path
        try:
            bound.bind(path.name)
        finally:
            os.chdir(before)


def _device(path: Path) -> None:
    """Make a device if that is allowed, else a link to one."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")
