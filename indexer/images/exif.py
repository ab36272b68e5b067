"""Read capture time, camera and position from a photograph's EXIF block."""

import logging
import math
import re
import struct
from collections.abc import Mapping
from datetime import datetime

from PIL import ExifTags, Image

from whatwhere.indexer.images.decode import open_picture
from whatwhere.indexer.images.formats.raw_kinds import raw_exif, raw_kind
from whatwhere.indexer.images.formats.tiff import is_tiff

MAX_TEXT = 200  # characters: cameras pad strings, and corrupt blocks contain anything
_PNG, _WEBP = re.compile(rb"\x89PNG\r\n\x1a\n"), re.compile(rb"RIFF....WEBP", re.DOTALL)
_TAKEN = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"Z|[+-](?:0\d|1[0-4]):[0-5]\d", re.ASCII)

log = logging.getLogger(__name__)


def exif(content: bytes, *, gps: bool = False) -> dict[str, object]:
    """Read `taken_time`, `camera_make` and `camera_model` from an encoded image's EXIF, if present; never raise.

    With `gps` also `latitude` and `longitude` in degrees, north and east positive. `taken_time` is an RFC 3339
    timestamp if EXIF has a time zone, else local time without a zone (most cameras).
    """
    found: dict[str, object] = {}
    try:
        block = _block(content)
        for read in (_taken, _camera, _position) if gps else (_taken, _camera):
            found |= read(block)
    except Exception as error:  # corrupt EXIF of an intact image; Pillow's parser raises many types
        log.info("exif corrupt error=%s", type(error).__name__)
    return found


def _block(content: bytes) -> Image.Exif:
    """Return the EXIF block without decoding pixels, as Pillow would for PNG and WebP."""
    block = Image.Exif()
    if _PNG.match(content):
        block.load(_png_chunk(content))
    elif _WEBP.match(content):
        block.load(_webp_chunk(content))
    elif raw_kind(content):
        return raw_exif(content)
    elif is_tiff(content):  # a TIFF is such a block, whether its pixels can be read or not
        block.load(content)
    else:
        with open_picture(content) as picture:
            return picture.getexif()
    return block


def _png_chunk(content: bytes) -> bytes:
    position = 8
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"eXIf":
            return content[position + 8 : position + 8 + length]
        position += 12 + length
    return b""


def _webp_chunk(content: bytes) -> bytes:
    position = 12
    while position + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        if kind == b"EXIF":
            return content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return b""


def _taken(block: Image.Exif) -> dict[str, object]:
    inner = block.get_ifd(ExifTags.IFD.Exif)
    for time_tag, offset_tag in _TAKEN:
        match = _TIME.match(_text(inner.get(time_tag)))
        if match is None:
            continue
        try:
            time = datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*match.groups()))
        except ValueError:  # "0000:00:00 00:00:00" if the camera's clock was never set
            continue
        offset = _text(inner.get(offset_tag))
        return {"taken_time": time.isoformat() + (offset if _OFFSET.fullmatch(offset) else "")}
    return {}


def _camera(block: Image.Exif) -> dict[str, object]:
    found = {"camera_make": _text(block.get(ExifTags.Base.Make)), "camera_model": _text(block.get(ExifTags.Base.Model))}
    return {name: text for name, text in found.items() if text}


def _text(value: object) -> str:
    """Return an EXIF string up to its NUL, without padding and unprintable characters, "" for other types."""
    text = value.partition("\0")[0] if isinstance(value, str) else ""
    return "".join(character for character in text if character.isprintable())[:MAX_TEXT].strip()


def _position(block: Image.Exif) -> dict[str, object]:
    inner = block.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(inner, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS", 90)
    longitude = _degrees(inner, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW", 180)
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        return {}  # cameras without a fix write 0, 0
    return {"latitude": latitude, "longitude": longitude}


def _degrees(
    block: Mapping[int, object], tag: ExifTags.GPS, hemisphere_tag: ExifTags.GPS, hemispheres: str, limit: float
) -> float | None:
    """Convert degrees, minutes and seconds to signed degrees; return None if incomplete or out of range.

    Minutes or seconds with a zero denominator count as 0.
    """
    values, hemisphere = block.get(tag), _text(block.get(hemisphere_tag)).upper()
    if not isinstance(values, tuple) or len(values) != 3 or hemisphere not in tuple(hemispheres):
        return None
    whole, minutes, seconds = map(float, values)  # NaN for a zero denominator
    degrees = whole + sum(part / scale for part, scale in ((minutes, 60), (seconds, 3600)) if not math.isnan(part))
    if not 0 <= degrees <= limit:  # also NaN
        return None
    return round(-degrees if hemisphere == hemispheres[1] else degrees, 7)
