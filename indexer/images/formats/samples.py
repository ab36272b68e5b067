"""Bring samples of any number format to 8 bits.

Integers keep their high bits: the range of the type is that of the picture. A file often holds fewer bits than it says
(12 bits of a sensor in 16): if no sample needs the upper bits, the range is the smallest of 8, 10, 12, 14, 16, 24 and
32 bits that holds the largest. Floating-point samples are in 0 to 1; if some are outside, in 0 to 255; else their
minimum is black and their maximum white.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
_WIDTHS = (8, 10, 12, 14, 16, 24, 32)  # bits that sensors and programs have
_LARGEST_BYTE = 255
_LEAST_OF_BYTES = 64  # floats up to 255 with a maximum below this are not taken as bytes, but stretched
_STRIP_SAMPLES = 4_000_000  # converted at a time, so that intermediate copies stay small


def to_bytes(samples: NDArray[Any], bits: int) -> Bytes:
    """Convert samples [h, w, c] of `bits` bits, signed or not, or of floating-point numbers, to uint8 [h, w, c].

    All channels share one range. NaN becomes black. Raises ValueError if no floating-point sample is finite.
    """
    if samples.dtype == np.uint8 and bits == 8:
        return np.ascontiguousarray(samples).view(np.uint8)
    if samples.dtype.kind == "f":
        convert = _from_floats(samples)
    elif samples.dtype.kind == "i":
        convert = _from_signed(samples, bits)
    else:
        convert = _from_unsigned(_used_bits(int(samples.max()), bits))
    converted = np.empty(samples.shape, np.uint8)
    for strip in _strips(samples):
        converted[strip] = convert(samples[strip])
    return converted


def _strips(samples: NDArray[Any]) -> list[slice]:
    rows = max(1, _STRIP_SAMPLES // max(1, samples[0].size))
    return [slice(top, top + rows) for top in range(0, len(samples), rows)]


def _used_bits(largest: int, bits: int) -> int:
    """Return the bits that the samples use; numbers of bits that fill no whole bytes are taken as they are said."""
    if bits not in (16, 24, 32, 64) and bits + 1 not in (16, 24, 32, 64):  # the latter: signed, none below 0
        return bits
    return next((width for width in _WIDTHS if width < bits and largest < 1 << width), bits)


def _from_unsigned(bits: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    if bits > 8:
        return lambda samples: np.right_shift(samples, samples.dtype.type(bits - 8))
    largest = (1 << bits) - 1
    return lambda samples: samples.astype(np.uint16) * _LARGEST_BYTE // largest


def _from_signed(samples: NDArray[Any], bits: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    unsigned = np.dtype(f"u{samples.dtype.itemsize}")
    if int(samples.min()) >= 0:  # a signed type for numbers that are not
        convert = _from_unsigned(_used_bits(int(samples.max()), bits - 1))
        return lambda strip: convert(strip.astype(unsigned))
    convert, half = _from_unsigned(bits), unsigned.type(1 << (bits - 1))
    mask = unsigned.type((1 << bits) - 1)
    return lambda strip: convert((strip.astype(unsigned) + half) & mask)


def _from_floats(samples: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    low, high = _range(samples)
    scale = _LARGEST_BYTE / (high - low) if high > low else 0.0

    def convert(strip: NDArray[Any]) -> NDArray[Any]:
        values = (strip.astype(np.float64) - low) * scale
        rounded: NDArray[Any] = np.rint(np.nan_to_num(values, nan=0.0).clip(0, _LARGEST_BYTE))
        return rounded

    return convert


def _range(samples: NDArray[Any]) -> tuple[float, float]:
    lows, highs = [], []
    for strip in _strips(samples):
        values = samples[strip]
        finite = values[np.isfinite(values)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    if not lows:
        raise ValueError("no sample is a finite number")
    low, high = min(lows), max(highs)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and _LEAST_OF_BYTES <= high <= _LARGEST_BYTE:
        return 0.0, float(_LARGEST_BYTE)
    return low, high
