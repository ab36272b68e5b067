"""Open TIFF pictures: common layouts by Pillow, all others by tifffile and imagecodecs, or refuse them by name."""

import ctypes
from contextlib import suppress
from functools import cache, partial

from PIL import Image, _imaging

from whatwhere.indexer.errors import ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.contained import contained
from whatwhere.indexer.images.formats import tiff_directory as tags
from whatwhere.indexer.images.formats.common import opener
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.formats.tiff_decode import decode, plan
from whatwhere.indexer.images.formats.tiff_directory import Directory, TiffHeader, picture_directory
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.images.orientation import SWAPPING, TRANSPOSES

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_BYTES_A_PIXEL = 8  # of the largest picture allowed: four samples of 16 bits
# What Pillow reads right, held by a test against tifffile: (photometric, bits of each sample) → extra samples allowed.
_PILLOW: dict[tuple[int, tuple[int, ...]], frozenset[tuple[int, ...]]] = {
    **{(kind, (bits,)): frozenset({()}) for kind in (tags.WHITE_IS_0, tags.BLACK_IS_0) for bits in (1, 2, 4, 8)},
    **{(tags.PALETTE, (bits,)): frozenset({()}) for bits in (1, 2, 4, 8)},
    (tags.BLACK_IS_0, (16,)): frozenset({()}),
    (tags.BLACK_IS_0, (8, 8)): frozenset({(0,), (2,)}),
    (tags.RGB, (8, 8, 8)): frozenset({()}),
    (tags.RGB, (8, 8, 8, 8)): frozenset({(), (0,), (2,), (999,)}),  # 999: CorelDRAW's alpha
    (tags.CMYK, (8, 8, 8, 8)): frozenset({()}),
    (tags.YCBCR, (8, 8, 8)): frozenset({()}),
    (tags.LAB, (8, 8, 8)): frozenset({()}),
}
_PILLOW_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946})
_open = opener("TIFF")


def is_tiff(content: bytes) -> bool:
    """Recognize TIFF and BigTIFF."""
    return content.startswith(_SIGNATURES)


def open_tiff(content: bytes) -> Image.Image:
    """Open the first picture that is not a thumbnail, also if it is in a SubIFD; its size is the upright one.

    Raises UnreadableImage for a layout that is not read.
    """
    directory = picture_directory(content)
    if 0 in directory.size:
        raise UnreadableImage(f"TIFF of {directory.size[0]} x {directory.size[1]} pixels")
    if _is_for_pillow(content, directory):
        _silence_libtiff()
        return _open(TiffHeader(content).with_first(directory.offset))
    plan(content, directory)  # names a layout that is not read
    return contained("TIFF")(content)


def open_layout(content: bytes) -> Image.Image:
    """Open a TIFF of a layout that Pillow does not read right, in the process that `contained` starts."""
    directory = picture_directory(content)
    found = plan(content, directory)
    size = directory.size[::-1] if TRANSPOSES.get(directory.orientation) in SWAPPING else directory.size
    picture = LazyPicture("TIFF", size, partial(decode, content, found))
    profile = directory.profile(content)
    if profile:
        picture.info["icc_profile"] = profile
    return picture


def check_tiff(content: bytes, _picture: Image.Image, limits: ImageLimits) -> None:
    """Compare the bytes of all samples, decoded, with the limit."""
    directory = picture_directory(content)
    width, height = directory.size
    byte_count = width * height * directory.samples * -(-max(directory.bits) // 8)
    if byte_count > _MAX_BYTES_A_PIXEL * limits.max_pixels:
        raise ImageTooManyPixels(
            f"TIFF ({directory.layout}) of {width} x {height} pixels, {byte_count:,} bytes decoded; the limit is "
            f"{_MAX_BYTES_A_PIXEL * limits.max_pixels:,}; use a smaller image, or fewer bits a sample"
        )


def _is_for_pillow(content: bytes, directory: Directory) -> bool:
    extra = _PILLOW.get((directory.photometric, directory.bits), frozenset())
    if directory.extra_samples not in extra or len(directory.bits) != directory.samples:
        return False
    if directory.is_planar or directory.formats != {1}:
        return False
    if directory.compression not in _PILLOW_COMPRESSIONS:
        return False
    if directory.photometric == tags.YCBCR and directory.compression == 1:
        return False
    if directory.has_fill_order_2 and max(directory.bits) > 8:
        return False
    return not TiffHeader(content).is_big


@cache
def _silence_libtiff() -> None:
    """Keep libtiff in Pillow from writing its messages, which name no file, to the process's standard error.

    Pillow itself does so for warnings, and raises its own exception for errors.
    """
    with suppress(AttributeError, OSError):  # a Pillow that is built otherwise: messages appear
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
