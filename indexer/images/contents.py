"""Name the content of a file that is not a readable image, by its first bytes."""

import re

from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

_SHOWN_BYTES = 8
_LOOKED_AT = 1024  # bytes: enough for a page's or a drawing's first element behind comments
_TEXT_CONTROLS = frozenset(b"\t\n\r\f")

# Signatures of other files, and what to do about those that people take for images.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x00\x05\x16\x07", "an AppleDouble file: macOS keeps attributes in it, the image is the file without ._"),
    (b"\x00\x05\x16\x00", "an AppleSingle file; extract the image from it"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer; run `git lfs pull` to get the image"),
    (b"%PDF-", "a PDF document; save its pages as images"),
    (b"%!PS", "a PostScript drawing; save it as a PNG"),
    (b"8BPS", "a Photoshop document; save it as a TIFF or PNG"),
    (b"gimp xcf", "a GIMP document; export it as a PNG"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image; save it as a TIFF"),
    (b"#?RADIANCE", "a Radiance HDR image; save it as a TIFF"),
    (b"II\xbc", "a JPEG XR image; save it as a TIFF or JPEG"),
    (b"PK\x03\x04", "a ZIP archive; extract it first"),
    (b"\x1f\x8b", "a gzip archive; extract it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; extract it first"),
    (b"Rar!\x1a\x07", "a RAR archive; extract it first"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"bplist00", "a property list"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\x00\x00\x01\xba", "a video (MPEG)"),
    (b"\x00\x00\x01\xb3", "a video (MPEG)"),
    (b"OggS", "a sound or video file (Ogg)"),
    (b"ID3", "a sound file (MP3)"),
    (b"fLaC", "a sound file (FLAC)"),
    (b"\x00\x00\x01\x00", "an icon (ICO)"),
    (b"DDS ", "a DDS texture"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
)
_RIFF = {b"AVI ": "a video (AVI)", b"WAVE": "a sound file (WAV)"}
# Brands of ISO base media files (`ftyp`): https://mp4ra.org
_BRANDS = {
    b"crx ": "a Canon CR3 photograph (raw)",
    b"qt  ": "a video (QuickTime)",
    b"M4A ": "a sound file (M4A)",
}
_MEDIA_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})  # first boxes of old QuickTime files
_NETPBM = re.compile(rb"P[1-7fF][\s#]")


def content_kind(content: bytes) -> str:
    """Return a noun phrase for bytes that no decoder takes, such as "an HTML page", with a remedy if there is one."""
    for name in (_empty, _by_signature, _image, _media, _text, _netpbm):
        if found := name(content):
            return found
    return f"an unknown format, it starts with the bytes {content[:_SHOWN_BYTES].hex(' ')}"


def _empty(content: bytes) -> str:
    if not content:
        return "an empty file; copy it again from its origin"
    if not any(content[:_LOOKED_AT]):
        whole = not content.strip(b"\0")
        return f"a file {'of zeros' if whole else 'that begins with zeros'}; copy it again from its origin"
    return ""


def _by_signature(content: bytes) -> str:
    return next((kind for signature, kind in _SIGNATURES if content.startswith(signature)), "")


def _image(content: bytes) -> str:
    """Name an image format that is read, but for camera files, whose kinds people know by their makers."""
    name = looks_like_image(content[:MAGIC_BYTES])
    return f"{'an' if name == 'AVIF' else 'a'} {name} image" if name and name != "RAW" else ""


def _media(content: bytes) -> str:
    if content[:4] == b"RIFF":
        return _RIFF.get(content[8:12], "a RIFF file")
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], "a video (MP4)")
    return "a video (QuickTime)" if content[4:8] in _MEDIA_BOXES else ""


def _text(content: bytes) -> str:
    start = content[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf")
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in start):
        return ""
    lowered = start.lstrip().lower()
    if b"<svg" in lowered:
        return "an SVG drawing; save it as a PNG"
    if lowered.startswith((b"<!doctype html", b"<html")) or b"<html" in lowered:
        return "an HTML page, perhaps of an error; download the image itself"
    if lowered.startswith(b"<?xml"):
        return "an XML document"
    try:
        start.decode("utf-8", errors="strict" if len(content) < _LOOKED_AT else "ignore")
    except UnicodeDecodeError:
        return ""
    return _netpbm(content) or "a text file"


def _netpbm(content: bytes) -> str:
    return "a Netpbm image (PBM, PGM, PPM); save it as a PNG" if _NETPBM.match(content) else ""


def printable_reason(error: Exception, limit: int = 160) -> str:
    """Return the text of a decoder's error in one line, or its type if it has none."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return text[:limit].strip() or type(error).__name__
