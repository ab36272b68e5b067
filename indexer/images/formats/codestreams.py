"""Read the size that a codestream announces, before a decoder allocates memory for it."""

import struct

_SIZE_BITS = (9, 13, 18, 30)  # JPEG XL: the widths of a side's field
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # JPEG XL: width to height
_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_NO_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # among C0 to CF: Huffman tables, reserved, arithmetic conditioning


def codestream_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG, JPEG 2000, WebP, JPEG XL or LERC codestream, None if it is damaged."""
    read = {"JPEG": jpeg_size, "JPEG 2000": _jpeg2000, "WebP": _webp, "JPEG XL": _jpeg_xl, "LERC": _lerc}[kind]
    try:
        return read(data)
    except (struct.error, IndexError):
        return None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of the first frame of a JPEG."""
    position = jpeg_frame(data)
    if position is None:
        return None
    height, width = struct.unpack_from(">HH", data, position + 5)
    return width, height


def jpeg_frame(data: bytes) -> int | None:
    """Return the position of the marker of a JPEG's first frame: FF, type, length, precision, height, width."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        if kind == 0xFF:  # a fill byte
            position += 1
        elif kind in _LONE_MARKERS:
            position += 2
        elif (0xC0 <= kind <= 0xCF and kind not in _NO_FRAMES) or kind == 0xF7:  # 0xF7: JPEG-LS
            return position if position + 9 <= len(data) else None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)  # behind the boxes, if there are any
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (fields,) = struct.unpack_from("<I", data, 21)
        return 1 + (fields & 0x3FFF), 1 + (fields >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_xl(data: bytes) -> tuple[int, int] | None:
    """Parse the SizeHeader of a codestream (ISO/IEC 18181-1)."""
    start = data.find(b"\xff\x0a", 0, 4096)  # behind the boxes, if there are any
    if start < 0:
        return None
    bits = int.from_bytes(data[start + 2 : start + 16], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    is_multiple_of_8 = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if is_multiple_of_8 else 1 + take(_SIZE_BITS[take(2)])

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _lerc(data: bytes) -> tuple[int, int] | None:
    if data[:6] != b"Lerc2 ":
        return None
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<II", data, 14 if version >= 3 else 10)
    return width, height
