"""Recognize image formats by the first bytes of a file. Pure bytes: importing this needs no image library."""

import struct

MAGIC_BYTES = 64  # of a file: enough for the brands of an ISO container (HEIC, AVIF, CR3)

_JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_JP2_CONTAINER = b"\0\0\0\x0cjP  \r\n\x87\n"
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\x0a", "JPEG XL"),  # a bare codestream
    (_JXL_CONTAINER, "JPEG XL"),
    (_JP2_CONTAINER, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),  # a bare codestream
    # Camera files that are no TIFF, or a TIFF with a number of their own.
    (b"IIRO", "RAW"),  # Olympus
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"IIU\0", "RAW"),  # Panasonic, Leica
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"\0MRM", "RAW"),  # Minolta
    (b"FOVb", "RAW"),  # Sigma
    (b"II\x1a\0\0\0HEAPCCDR", "RAW"),  # Canon CRW
)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})  # a still image or a sequence, of any codec
_RAW_BRANDS = frozenset({b"crx "})  # Canon CR3


def looks_like_image(head: bytes) -> str | None:
    """Return the name of the image format that a file's first `MAGIC_BYTES` bytes announce, None if it is none.

    The names are BMP, GIF, JPEG, JPEG 2000, JPEG XL, PNG, TIFF, WebP, HEIC, HEIF, AVIF and RAW. Camera files that
    are a TIFF (DNG, NEF, ARW, PEF, SRW) are "TIFF" here: their first bytes do not tell them apart.
    """
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head.startswith(_TIFF_STARTS):
        return "RAW" if head[8:10] == b"CR" else "TIFF"  # Canon CR2
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _named_by_brands(head)
    return "BMP" if _is_bmp(head) else None


def _named_by_brands(head: bytes) -> str | None:
    """Return the format of an ISO container: its major brand decides, then the compatible brands."""
    size = min(len(head), int.from_bytes(head[:4], "big"))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    for brand in brands:
        for name, known in (("HEIC", _HEIC_BRANDS), ("AVIF", _AVIF_BRANDS), ("RAW", _RAW_BRANDS)):
            if brand in known:
                return name
    return "HEIF" if _HEIF_BRANDS.intersection(brands) else None


def _is_bmp(head: bytes) -> bool:
    """Check more than the letters "BM", which a text may start with."""
    if head[:2] != b"BM" or len(head) < 18:
        return False
    reserved, _, header_size = struct.unpack_from("<III", head, 6)
    return reserved == 0 and header_size in _BMP_HEADER_SIZES
