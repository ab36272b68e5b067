"""Decode pictures for another process, which `contained` starts: a crash, a hang or a bomb ends this one only.

It reads requests from standard input and answers on standard output, each a line of JSON and bytes. Its memory is
limited. It is no sandbox: system calls are not filtered.
"""

import json
import os
import signal
from base64 import b64encode
from collections.abc import Callable
from typing import IO, Any

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.formats.avif import open_avif
from whatwhere.indexer.images.formats.heif import open_heif
from whatwhere.indexer.images.formats.jpeg import open_rare_jpeg
from whatwhere.indexer.images.formats.jpeg2000 import open_jpeg2000
from whatwhere.indexer.images.formats.jpegxl import open_jpegxl
from whatwhere.indexer.images.formats.raw import open_raw
from whatwhere.indexer.images.formats.tiff import open_layout

OPENERS: dict[str, Callable[[bytes], Image.Image]] = {
    "HEIC": open_heif,
    "AVIF": open_avif,
    "JPEG XL": open_jpegxl,
    "JPEG 2000": open_jpeg2000,
    "RAW": open_raw,
    "TIFF": open_layout,
    "JPEG": open_rare_jpeg,
}
# Of address space: decoders take up to 20 bytes a pixel, and 200 megapixels may be allowed.
MEMORY_BYTES = 6 << 30


def main() -> None:
    """Answer requests until standard input ends, which it does when the other process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _limit_memory()
    while line := requests.readline():
        request = json.loads(line)
        _answer(requests.read(request["length"]), request["family"], requests, answers)


def _limit_memory() -> None:
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _answer(content: bytes, family: str, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Open a picture, then load it if the other process asks for the pixels."""
    try:
        picture = OPENERS[family](content)
    except Exception as error:  # any type on invalid bytes
        _send(answers, {"error": _text(error, family)})
        return
    block, profile = picture.info.get("exif"), picture.info.get("icc_profile")
    _send(
        answers,
        {
            "format": picture.format,
            "size": picture.size,
            "sensor_size": getattr(picture, "sensor_size", None),
            "mime_type": getattr(picture, "custom_mimetype", "") or "",
            "exif": b64encode(block or b"").decode(),
            "icc_profile": b64encode(profile or b"").decode(),
        },
    )
    request = json.loads(requests.readline() or b'{"drop": true}')
    if request.get("drop"):
        return
    try:
        if request["draft"]:
            picture.draft("RGB", tuple(request["draft"]))
        picture.load()
        # Only these modes are handed over; the others are palettes and black and white, which convert without loss.
        if picture.mode not in ("L", "LA", "RGB", "RGBA", "RGBa", "CMYK", "I;16"):
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        pixels = picture.tobytes()
    except Exception as error:  # any type on invalid bytes
        _send(answers, {"error": _text(error, family)})
        return
    _send(answers, {"mode": picture.mode, "size": picture.size, "length": len(pixels)}, pixels)


def _text(error: Exception, family: str) -> str:
    if isinstance(error, UnreadableImage):
        return str(error)
    return f"{family} that cannot be decoded, {type(error).__name__}; restore the file, or save it again"


def _send(answers: IO[bytes], message: dict[str, Any], content: bytes = b"") -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.write(content)
    answers.flush()


if __name__ == "__main__":
    main()
