"""Convert pixels whose color space is named by code points of ITU-T H.273 (HEIF, AVIF, JPEG XL) to sRGB.

Display P3 and BT.2020 primaries; the transfer functions sRGB, linear, PQ and HLG. HDR (PQ, HLG) is shown as a screen
without HDR would: reference white, 203 cd/m² (ITU-R BT.2408), is near white, brighter light is compressed above it.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LINEAR, SRGB, PQ, HLG = 8, 13, 16, 18  # transfer functions
_BT2020, _P3 = 9, 12  # primaries
_WHITE = 203.0  # cd/m² of reference white
_KNEE = 0.8  # of reference white: light above it is compressed to what remains
_STRIP_PIXELS = 1_000_000  # at a time, in float32
# RGB of these primaries to RGB of BT.709 (sRGB), both linear with white D65: ITU-R BT.2087; the P3 matrix follows from
# the primaries in the same way.
_TO_SRGB = {
    _BT2020: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    _P3: np.array([[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]]),
}
_Floats = NDArray[np.floating]


def needs_conversion(primaries: int, transfer: int) -> bool:
    """Tell whether pixels with these code points differ visibly from sRGB."""
    return primaries in _TO_SRGB or transfer in (LINEAR, PQ, HLG)


def to_srgb(picture: Image.Image, primaries: int, transfer: int) -> Image.Image:
    """Return a picture of 8 bits a channel in sRGB; alpha is kept, other modes than gray and RGB are returned as is."""
    if picture.mode not in ("L", "LA", "RGB", "RGBA") or not needs_conversion(primaries, transfer):
        return picture
    values = np.asarray(picture)
    depth = 1 if picture.mode in ("L", "LA") else 3
    channels = values.reshape(*values.shape[:2], -1)
    converted = channels.copy()
    light = _linear(np.arange(256) / 255, transfer)  # of each of the 256 levels
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        linear = light[channels[top : top + rows, :, :depth]]
        if depth == 3 and primaries in _TO_SRGB:
            linear = linear @ _TO_SRGB[primaries].T.astype(np.float32)
        if transfer in (PQ, HLG):
            linear = _compressed(linear)
        converted[top : top + rows, :, :depth] = np.rint(_encoded(linear) * 255)
    return Image.fromarray(converted.reshape(values.shape))


def _linear(levels: _Floats, transfer: int) -> _Floats:
    """Return light relative to reference white for levels from 0 to 1."""
    if transfer == LINEAR:
        light = levels
    elif transfer == PQ:  # ITU-R BT.2100, table 4
        power = levels ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        light = light * 10_000 / _WHITE
    elif transfer == HLG:  # ITU-R BT.2100, table 5; the system gamma of a screen of 1,000 cd/m²
        scene = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = scene**1.2 * 1_000 / _WHITE
    else:
        light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _compressed(light: _Floats) -> _Floats:
    room = 1 - _KNEE
    return np.where(light <= _KNEE, light, 1 - room * np.exp(-(np.maximum(light, _KNEE) - _KNEE) / room))


def _encoded(light: _Floats) -> _Floats:
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
