"""Read the header of a JPEG XL codestream: what a decoder must know before it may decode. Pure bytes.

The names and the order of the fields are those of ISO/IEC 18181-1, C.2 and D.
"""

from dataclasses import dataclass

from whatwhere.indexer.images.formats.iso_boxes import boxes

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
CODESTREAM = b"\xff\x0a"
_MAX_HEADER_BYTES = 1_024  # longer ones have hundreds of extra channels
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
# What a U32 field holds, by its selector: (offset, number of bits to add).
_SIZE = ((1, 9), (1, 13), (1, 18), (1, 30))
_ENUM = ((0, 0), (1, 0), (2, 4), (18, 6))
_ALPHA, _SPOT, _BLACK, _CFA = 0, 2, 4, 5  # kinds of extra channels
_GRAY, _XYB = 1, 2  # color spaces
_CUSTOM = 2  # white point or primaries
_SRGB = 13


@dataclass(frozen=True)
class Header:
    """The size is upright; `bits` of one sample, 32 for floating point; code points of the colors as H.273 has them."""

    width: int
    height: int
    bits: int
    is_gray: bool
    extra_channels: tuple[int, ...]  # kinds
    is_premultiplied: bool
    primaries: int
    transfer: int
    has_icc: bool

    @property
    def has_alpha(self) -> bool:
        """Tell whether there is an alpha channel."""
        return _ALPHA in self.extra_channels

    @property
    def has_black(self) -> bool:
        """Tell whether the picture is CMYK."""
        return _BLACK in self.extra_channels


def read_header(content: bytes) -> Header:
    """Read the header of a codestream, bare or in a container; raise ValueError if it is damaged."""
    return _Reader(_start_of_codestream(content)).header()


def _start_of_codestream(content: bytes) -> bytes:
    if content.startswith(CODESTREAM):
        return content[:_MAX_HEADER_BYTES]
    start = b""
    for box in boxes(content, len(CONTAINER)):
        if box.kind == b"jxlc":
            return content[box.start : box.end][:_MAX_HEADER_BYTES]
        if box.kind == b"jxlp":  # a part; its number comes first
            start += content[box.start + 4 : box.end][:_MAX_HEADER_BYTES]
        if len(start) >= _MAX_HEADER_BYTES:
            break
    if not start.startswith(CODESTREAM):
        raise ValueError("no codestream in the container")
    return start[:_MAX_HEADER_BYTES]


class _Reader:
    """Reads fields from bits, the lowest of each byte first."""

    def __init__(self, codestream: bytes) -> None:
        self._bits = int.from_bytes(codestream[2:], "little")
        self._left = 8 * (len(codestream) - 2)

    def _u(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header is not complete")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return value

    def _flag(self) -> bool:
        return bool(self._u(1))

    def _u32(self, choices: tuple[tuple[int, int], ...]) -> int:
        offset, count = choices[self._u(2)]
        return offset + self._u(count)

    def _enum(self) -> int:
        return self._u32(_ENUM)

    def header(self) -> Header:
        width, height = self._size()
        if self._flag():  # all is by default
            return Header(width, height, 8, False, (), False, 1, _SRGB, False)
        if self._flag() and self._extra_fields() > 4:
            width, height = height, width
        bits = self._bit_depth()
        self._flag()  # modular_16bit_buffers
        extra = [self._extra_channel() for _ in range(self._u32(((0, 0), (1, 0), (2, 4), (1, 12))))]
        self._flag()  # xyb_encoded: the decoder returns the color encoding that follows
        is_gray, primaries, transfer, has_icc = self._color_encoding()
        kinds = tuple(kind for kind, _ in extra)
        return Header(width, height, bits, is_gray, kinds, any(flag for _, flag in extra), primaries, transfer, has_icc)

    def _size(self) -> tuple[int, int]:
        by_eight = self._flag()
        height = self._side(by_eight)
        ratio = self._u(3)
        if ratio == 0:
            return self._side(by_eight), height
        numerator, denominator = _RATIOS[ratio - 1]
        return height * numerator // denominator, height

    def _side(self, by_eight: bool) -> int:
        return 8 * (1 + self._u(5)) if by_eight else self._u32(_SIZE)

    def _extra_fields(self) -> int:
        """Return the orientation, as EXIF numbers it."""
        orientation = 1 + self._u(3)
        if self._flag():  # the intrinsic size
            self._size()
        if self._flag():
            self._preview_size()
        if self._flag():  # animation
            for choices in (
                ((100, 0), (1_000, 0), (1, 10), (1, 30)),
                ((1, 0), (1_001, 0), (1, 8), (1, 10)),
                ((0, 0), (0, 3), (0, 16), (0, 32)),
            ):
                self._u32(choices)
            self._flag()
        return orientation

    def _preview_size(self) -> None:
        sides = ((16, 0), (32, 0), (1, 5), (33, 9)) if self._flag() else ((1, 6), (65, 8), (321, 10), (1_345, 12))
        self._u32(sides)
        if self._u(3) == 0:
            self._u32(sides)

    def _bit_depth(self) -> int:
        if not self._flag():
            return self._u32(((8, 0), (10, 0), (12, 0), (1, 6)))
        self._u32(((32, 0), (16, 0), (24, 0), (1, 6)))
        self._u(4)  # bits of the exponent
        return 32

    def _extra_channel(self) -> tuple[int, bool]:
        """Return the kind of an extra channel, and whether colors are multiplied by it."""
        if self._flag():
            return _ALPHA, False
        kind = self._enum()
        self._bit_depth()
        self._u32(((0, 0), (3, 0), (4, 0), (1, 3)))  # how much smaller it is
        self._u(8 * self._u32(((0, 0), (0, 4), (16, 5), (48, 10))))  # its name
        if kind == _SPOT:
            self._u(4 * 16)
        elif kind == _CFA:
            self._u32(((1, 0), (0, 2), (3, 4), (19, 8)))
        return kind, kind == _ALPHA and self._flag()

    def _color_encoding(self) -> tuple[bool, int, int, bool]:
        """Return whether it is gray, primaries and transfer, and whether an ICC profile replaces them."""
        if self._flag():
            return False, 1, _SRGB, False
        has_icc, space = self._flag(), self._enum()
        if has_icc or space == _XYB:
            return space == _GRAY, 1, _SRGB, has_icc
        if self._enum() == _CUSTOM:  # white point
            self._chromaticities(1)
        primaries = 1
        if space != _GRAY:
            primaries = self._enum()
            if primaries == _CUSTOM:
                self._chromaticities(3)
        if self._flag():  # a gamma, taken as that of sRGB
            self._u(24)
            return space == _GRAY, _code_point(primaries), _SRGB, False
        return space == _GRAY, _code_point(primaries), self._enum(), False

    def _chromaticities(self, count: int) -> None:
        for _ in range(2 * count):
            self._u32(((0, 19), (524_288, 19), (1_048_576, 20), (2_097_152, 21)))


def _code_point(primaries: int) -> int:
    """Return the number of H.273 for JPEG XL's: only Display P3 differs."""
    return 12 if primaries == 11 else primaries
