"""Read the directories of a TIFF, classic or BigTIFF, and choose the one with the picture.

Only the header is read, within bounds, before any library allocates memory for pixels.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.errors import UnreadableImage

_MAX_DIRECTORIES = 1000
_MAX_ENTRIES = 4096
_MAX_VALUES = 1 << 20  # of a tag: strips or tiles
# TIFF's types of integers → numpy's. Others (texts, fractions) are not needed here.
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS = 254, 255, 256, 257, 258
_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION = 259, 262, 266, 273, 274
_SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _COLORS = 277, 278, 279, 284, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_SUB_DIRECTORIES, _INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBSAMPLING, _PROFILE = 330, 332, 338, 339, 530, 34675
_REDUCED, _MASK = 1, 4  # bits of the subfile type

BLACK_IS_0, WHITE_IS_0, RGB, PALETTE, CMYK, YCBCR, LAB = 1, 0, 2, 3, 5, 6, 8
PHOTOMETRIC_NAMES = {
    WHITE_IS_0: "gray, white is 0",
    BLACK_IS_0: "gray",
    RGB: "RGB",
    PALETTE: "palette",
    4: "mask",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    LAB: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "raw sensor data (CFA)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_FORMAT_NAMES = {1: "uint", 2: "int", 3: "float", 4: "undefined", 5: "complex int", 6: "complex float"}


@dataclass(frozen=True)
class Directory:
    """One picture of a TIFF, described by its tags; `tags` holds integers, `spans` where each tag's bytes are."""

    offset: int
    tags: Mapping[int, NDArray[np.integer]]
    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # tag → (start, byte count)

    def _one(self, tag: int, default: int) -> int:
        values = self.tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    def _all(self, tag: int) -> tuple[int, ...]:
        return tuple(int(value) for value in self.tags.get(tag, ())[:64])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self._one(_WIDTH, 0), self._one(_HEIGHT, 0)

    @property
    def samples(self) -> int:
        """Number of samples a pixel."""
        return self._one(_SAMPLES, 1)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample."""
        bits = self._all(_BITS) or (1,)
        return bits * self.samples if len(bits) == 1 and self.samples <= 64 else bits

    @property
    def formats(self) -> frozenset[int]:
        """Sample formats: 1 unsigned, 2 signed, 3 floating point."""
        return frozenset(self._all(_SAMPLE_FORMAT)) or frozenset({1})

    @property
    def photometric(self) -> int:
        """How samples become colors; if the tag is missing, RGB for three samples and more."""
        return self._one(_PHOTOMETRIC, RGB if self.samples > 2 else WHITE_IS_0)

    @property
    def compression(self) -> int:
        """The compression's number, 1 for none."""
        return self._one(_COMPRESSION, 1)

    @property
    def is_planar(self) -> bool:
        """Whether each sample has strips or tiles of its own."""
        return self._one(_PLANAR, 1) == 2 and self.samples > 1

    @property
    def extra_samples(self) -> tuple[int, ...]:
        """Meanings of samples beside the color: 1 premultiplied alpha, 2 alpha, 0 unspecified."""
        return self._all(_EXTRA_SAMPLES)

    @property
    def orientation(self) -> int:
        """EXIF orientation."""
        return self._one(_ORIENTATION, 1)

    @property
    def has_fill_order_2(self) -> bool:
        """Whether the first pixel is in the lowest bit of a byte."""
        return self._one(_FILL_ORDER, 1) == 2

    @property
    def ink_set(self) -> int:
        """1 if the inks are cyan, magenta, yellow, black."""
        return self._one(_INK_SET, 1)

    @property
    def subsampling(self) -> tuple[int, ...]:
        """Horizontal and vertical subsampling of YCbCr's chroma."""
        return self._all(_SUBSAMPLING) or (2, 2)

    @property
    def rows_per_strip(self) -> int:
        """Rows of a strip."""
        return min(self._one(_ROWS, 2**32 - 1), self.size[1])

    @property
    def is_tiled(self) -> bool:
        """Whether pixels are in tiles."""
        return _TILE_OFFSETS in self.tags

    @property
    def tile_size(self) -> tuple[int, int]:
        """Width and height of a tile."""
        return self._one(_TILE_WIDTH, 0), self._one(_TILE_HEIGHT, 0)

    @property
    def colors(self) -> NDArray[np.integer] | None:
        """The color map: all reds, all greens, all blues, in 16 bits."""
        return self.tags.get(_COLORS)

    @cached_property
    def segments(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offsets and byte counts of strips or tiles."""
        tags = (_TILE_OFFSETS, _TILE_BYTES) if self.is_tiled else (_STRIP_OFFSETS, _STRIP_BYTES)
        offsets, counts = (np.asarray(self.tags.get(tag, ()), np.uint64).astype(np.int64) for tag in tags)
        return offsets, counts

    @property
    def is_reduced(self) -> bool:
        """Whether this is a thumbnail or a mask of another picture of the file."""
        kind = self._one(_SUBFILE_TYPE, 0)
        return bool(kind & (_REDUCED | _MASK)) or self._one(_OLD_SUBFILE_TYPE, 1) == 2

    def profile(self, content: bytes) -> bytes | None:
        """Return the ICC profile."""
        start, byte_count = self.spans.get(_PROFILE, (0, 0))
        return content[start : start + byte_count] or None

    @property
    def layout(self) -> str:
        """A phrase for people, such as "RGB, 3 x 16-bit uint, planar, compression 5"."""
        kind = PHOTOMETRIC_NAMES.get(self.photometric, f"photometric {self.photometric}")
        bits = "/".join(str(bits) for bits in sorted(set(self.bits)))
        sample = "/".join(_FORMAT_NAMES.get(number, f"format {number}") for number in sorted(self.formats))
        extra = ", extra samples " + "/".join(map(str, self.extra_samples)) if self.extra_samples else ""
        planar = ", planar" if self.is_planar else ""
        packed = f", compression {self.compression}" if self.compression != 1 else ""
        return f"{kind}, {self.samples} x {bits}-bit {sample}{extra}{planar}{packed}"


class TiffHeader:
    """The header of a TIFF: byte order, and whether it is a BigTIFF."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.order = "<" if content[:2] == b"II" else ">"
        self.is_big = content[2:4] in (b"+\0", b"\0+")

    def directories(self) -> Iterator[Directory]:
        """Yield the directories with the ones below each, in the file's order; loops end the iteration."""
        seen: set[int] = set()
        waiting = [self._unpack("Q", 8) if self.is_big else self._unpack("I", 4)]
        while waiting and len(seen) < _MAX_DIRECTORIES:
            offset = waiting.pop(0)
            if offset == 0 or offset in seen:
                continue
            seen.add(offset)
            directory, following = self._directory(offset)
            yield directory
            below = directory.tags.get(_SUB_DIRECTORIES, ())
            waiting = [*(int(value) for value in below[:_MAX_DIRECTORIES]), *waiting, following]

    def with_first(self, offset: int) -> bytes:
        """Return the file with this directory as the first."""
        start, code = (8, "Q") if self.is_big else (4, "I")
        packed = struct.pack(self.order + code, offset)
        if self.content[start : start + len(packed)] == packed:
            return self.content
        return b"".join((self.content[:start], packed, memoryview(self.content)[start + len(packed) :]))

    def _unpack(self, code: str, position: int) -> int:
        try:
            (value,) = struct.unpack_from(self.order + code, self.content, position)
        except (struct.error, OverflowError):
            raise UnreadableImage("TIFF cut in its header; restore the file") from None
        return int(value)

    def _directory(self, offset: int) -> tuple[Directory, int]:
        count, start = (
            (self._unpack("Q", offset), offset + 8) if self.is_big else (self._unpack("H", offset), offset + 2)
        )
        if count > _MAX_ENTRIES:
            raise UnreadableImage(f"TIFF with {count:,} tags in a directory, the limit is {_MAX_ENTRIES:,}")
        size = 20 if self.is_big else 12
        tags: dict[int, NDArray[np.integer]] = {}
        spans: dict[int, tuple[int, int]] = {}
        for position in range(start, start + count * size, size):
            tag, kind = self._unpack("H", position), self._unpack("H", position + 2)
            if kind in _INTEGERS and tag not in tags:
                found = self._values(position, kind)
                if found is not None:
                    spans[tag], tags[tag] = found
        try:
            following = self._unpack("Q" if self.is_big else "I", start + count * size)
        except UnreadableImage:  # some writers leave out the last offset
            following = 0
        return Directory(offset, tags, spans), following

    def _values(self, position: int, kind: int) -> tuple[tuple[int, int], NDArray[np.integer]] | None:
        """Return where the values of an entry are, and the values; None if they are outside the file."""
        dtype = np.dtype(self.order + _INTEGERS[kind])
        code, room = ("Q", 8) if self.is_big else ("I", 4)
        count, start = self._unpack(code, position + 4), position + 4 + room
        byte_count = count * dtype.itemsize
        if byte_count > room:
            start = self._unpack(code, start)
        if start + byte_count > len(self.content):
            return None
        values = np.frombuffer(self.content, dtype, min(count, _MAX_VALUES), start)
        return (start, byte_count), values


def picture_directory(content: bytes) -> Directory:
    """Return the first directory that is neither a thumbnail nor a mask; if all are, the largest.

    Raises UnreadableImage if the file has no directory.
    """
    reduced: list[Directory] = []
    for directory in TiffHeader(content).directories():
        if not directory.is_reduced:
            return directory
        reduced.append(directory)
    if not reduced:
        raise UnreadableImage("TIFF without a picture")
    return max(reduced, key=lambda directory: directory.size[0] * directory.size[1])
