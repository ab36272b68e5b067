"""Tell camera files (RAW) from other files by their content, and read their EXIF. Needs no RAW library."""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from PIL import ExifTags, Image

from whatwhere.indexer.images.formats.iso_boxes import boxes
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

# Media types as the freedesktop.org database names them.
RAW_MIME_TYPES = {
    "DNG": "image/x-adobe-dng",
    "NEF": "image/x-nikon-nef",
    "CR2": "image/x-canon-cr2",
    "CR3": "image/x-canon-cr3",
    "CRW": "image/x-canon-crw",
    "ARW": "image/x-sony-arw",
    "RAF": "image/x-fuji-raf",
    "ORF": "image/x-olympus-orf",
    "RW2": "image/x-panasonic-rw2",
    "PEF": "image/x-pentax-pef",
    "SRW": "image/x-samsung-srw",
    "MRW": "image/x-minolta-mrw",
    "X3F": "image/x-sigma-x3f",
    "RAW": "image/x-dcraw",  # of other makers
}
_STARTS = (
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\0", "RW2"),
    (b"\0MRM", "MRW"),
    (b"FOVb", "X3F"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
)
_MAKERS = (("NIKON", "NEF"), ("SONY", "ARW"), ("PENTAX", "PEF"), ("RICOH", "PEF"), ("SAMSUNG", "SRW"))
_PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = 262, 271, 330, 50706
_CFA, _LINEAR_RAW = 32803, 34892  # photometric interpretations of a sensor's values
_MAX_DIRECTORIES, _MAX_TAGS = 16, 512
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4}  # bytes of a value, by its type: byte, text, short, long, offset


class _Directory(NamedTuple):
    texts: Mapping[int, bytes]
    numbers: Mapping[int, tuple[int, ...]]


def raw_kind(content: bytes) -> str | None:
    """Return the kind of a camera file, a key of `RAW_MIME_TYPES`; None if it is none.

    A TIFF is one if it has a DNG version, or a directory of a sensor's values (photometric interpretation CFA or
    linear raw): a scan or a thumbnail with its photograph in a sub-directory is none, whatever its name.
    """
    named = looks_like_image(content[:MAGIC_BYTES])
    if named == "TIFF":
        return _tiff_kind(content)
    if named != "RAW":
        return None
    for start, kind in _STARTS:
        if content.startswith(start):
            return kind
    return "CR3" if content[4:8] == b"ftyp" else "CR2"


def _tiff_kind(content: bytes) -> str | None:
    make, is_raw = b"", False
    for directory in _directories(content):
        if _DNG_VERSION in directory.numbers:
            return "DNG"
        make = make or directory.texts.get(_MAKE, b"")
        is_raw |= directory.numbers.get(_PHOTOMETRIC, (0,))[0] in (_CFA, _LINEAR_RAW)
    if not is_raw:
        return None
    maker = make.decode("latin-1").upper()
    return next((kind for name, kind in _MAKERS if maker.startswith(name)), "RAW")


def _directories(content: bytes) -> Iterator[_Directory]:
    """Yield the directories of a classic TIFF, sub-directories included, up to a number of them."""
    order = "<" if content[:1] == b"I" else ">"
    waiting, seen = [int.from_bytes(content[4:8], "little" if order == "<" else "big")], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        offset = waiting.pop(0)
        if offset in seen or not 8 <= offset <= len(content) - 6:
            continue
        seen.add(offset)
        (count,) = struct.unpack_from(order + "H", content, offset)
        directory = _read_directory(content, order, offset + 2, min(count, _MAX_TAGS))
        yield directory
        waiting += directory.numbers.get(_SUB_IFDS, ())
        end = offset + 2 + 12 * count
        if end + 4 <= len(content):
            waiting += struct.unpack_from(order + "I", content, end)


def _read_directory(content: bytes, order: str, start: int, count: int) -> _Directory:
    texts: dict[int, bytes] = {}
    numbers: dict[int, tuple[int, ...]] = {}
    for at in range(start, min(start + 12 * count, len(content) - 11), 12):
        tag, kind, length = struct.unpack_from(order + "HHI", content, at)
        if tag not in (_PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION) or kind not in _SIZES:
            continue
        length = min(length, 64)
        size = _SIZES[kind] * length
        place = at + 8 if size <= 4 else struct.unpack_from(order + "I", content, at + 8)[0]
        if place + size > len(content):
            continue
        if kind == 2:
            texts[tag] = content[place : place + size].partition(b"\0")[0]
        else:
            letter = {1: "B", 2: "H", 4: "I"}[_SIZES[kind]]
            numbers[tag] = struct.unpack_from(f"{order}{length}{letter}", content, place)
    return _Directory(texts, {tag: values for tag, values in numbers.items() if values})


def raw_exif(content: bytes) -> Image.Exif:
    """Read the EXIF block of a camera file; an empty one if it has none that is understood."""
    block = Image.Exif()
    if content[4:8] == b"ftyp":
        _load_cr3(block, content)
    elif content.startswith(b"FUJIFILMCCD-RAW"):
        block.load(_fuji_exif(content))
    elif content.startswith((b"II", b"MM")) and not content.startswith(b"II\x1a"):
        # Olympus and Panasonic have a number of their own where TIFF has 42.
        block.load((b"II*\0" if content[:1] == b"I" else b"MM\0*") + content[4:])
    return block


def _fuji_exif(content: bytes) -> bytes:
    """Return the EXIF segment of the JPEG that a RAF holds; its place is at byte 84."""
    at = int.from_bytes(content[84:88], "big") + 2
    for _ in range(16):
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == b"\xff\xe1" and content[at + 4 : at + 10] == b"Exif\0\0":
            return content[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


def _load_cr3(block: Image.Exif, content: bytes) -> None:
    """Fill a block from the boxes CMT1 (image), CMT2 (EXIF) and CMT4 (GPS), each a TIFF, in Canon's `uuid` box."""
    for movie in (box for box in boxes(content) if box.kind == b"moov"):
        for canon in (box for box in boxes(content, movie.start, movie.end) if box.kind == b"uuid"):
            parts = {box.kind: content[box.start : box.end] for box in boxes(content, canon.start + 16, canon.end)}
            if b"CMT1" not in parts:
                continue
            block.load(parts[b"CMT1"])
            for kind, ifd in ((b"CMT2", ExifTags.IFD.Exif), (b"CMT4", ExifTags.IFD.GPSInfo)):
                if kind in parts:
                    inner = Image.Exif()
                    inner.load(parts[kind])
                    block.get_ifd(ifd).update(inner)
            return
