"""Decode the TIFF layouts that Pillow does not read right, by tifffile and imagecodecs."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.formats import tiff_directory as tags
from whatwhere.indexer.images.formats.codestreams import codestream_size
from whatwhere.indexer.images.formats.samples import Bytes, to_bytes
from whatwhere.indexer.images.formats.tiff_directory import Directory, TiffHeader
from whatwhere.indexer.images.orientation import TRANSPOSES

_PREMULTIPLIED, _ALPHA = 1, 2
_COLOR_SAMPLES = {tags.WHITE_IS_0: 1, tags.BLACK_IS_0: 1, tags.RGB: 3, tags.PALETTE: 1, tags.CMYK: 4, tags.YCBCR: 3}
_YCBCR_JPEG = 7  # tifffile converts these to RGB
# Lossless compressions, and those whose codestreams have a size of their own, which is checked.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000})
_CODESTREAMS = {7: "JPEG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 50001: "WebP", 34927: "WebP"}
_CODESTREAMS |= {50002: "JPEG XL", 52546: "JPEG XL", 34887: "LERC"}
_MAX_SEGMENTS = 1_000_000
_SMALL_TILE_PIXELS = 1 << 20
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class TiffPlan:
    """How a directory's samples become a picture of `mode` L, RGB or CMYK; alpha is composited over white."""

    directory: Directory
    mode: str
    colors: int  # samples of a pixel's color
    alpha: int | None  # the sample that holds alpha
    is_premultiplied: bool

    @property
    def byte_count(self) -> int:
        """The number of bytes of all samples, decoded."""
        width, height = self.directory.size
        return width * height * self.directory.samples * -(-max(self.directory.bits) // 8)


def plan(content: bytes, directory: Directory) -> TiffPlan:
    """Check that a layout is known, and that all its parts are in the file.

    Raises UnreadableImage, which names the layout.
    """
    colors = _COLOR_SAMPLES.get(directory.photometric)
    if colors is None:
        raise _refusal(directory, "such colors are not read")
    if not directory.samples or len(directory.bits) != directory.samples or directory.samples < colors:
        raise _refusal(directory, "the tags contradict each other")
    if len(set(directory.bits)) > 1 or len(directory.formats) > 1 or not directory.formats <= {1, 2, 3, 4}:
        raise _refusal(directory, "such samples are not read")
    if not 1 <= directory.bits[0] <= 64:
        raise _refusal(directory, "such samples are not read")
    if directory.photometric == tags.CMYK and directory.ink_set != 1:
        raise _refusal(directory, "its inks are not cyan, magenta, yellow and black")
    if directory.photometric == tags.PALETTE and (directory.colors is None or directory.formats != {1}):
        raise _refusal(directory, "the color map is missing")
    if directory.photometric == tags.YCBCR and directory.compression not in (1, _YCBCR_JPEG):
        raise _refusal(directory, "YCbCr is read with 8 bits, uncompressed or as JPEG")
    _check_segments(content, directory)
    extra = directory.extra_samples[: directory.samples - colors]
    alpha = next((colors + index for index, kind in enumerate(extra) if kind in (_PREMULTIPLIED, _ALPHA)), None)
    mode = "RGB" if directory.photometric in (tags.PALETTE, tags.YCBCR) else _MODES[colors]
    return TiffPlan(directory, mode, colors, alpha, alpha is not None and extra[alpha - colors] == _PREMULTIPLIED)


def _refusal(directory: Directory, why: str) -> UnreadableImage:
    return UnreadableImage(f"TIFF ({directory.layout}): {why}; save it with 8 or 16 bits a sample")


def _check_segments(content: bytes, directory: Directory) -> None:
    offsets, counts = directory.segments
    unit = "tiles" if directory.is_tiled else "strips"
    needed = _segments_needed(directory)
    if needed > _MAX_SEGMENTS:
        raise _refusal(directory, f"{needed:,} {unit} are too many")
    if len(offsets) < needed or len(counts) < needed:
        raise _refusal(directory, f"{min(len(offsets), len(counts)):,} of {needed:,} {unit} are listed")
    offsets, counts = offsets[:needed], counts[:needed]
    missing = int(((counts <= 0) | (offsets <= 0) | (counts > len(content) - offsets)).sum())
    if missing:
        raise UnreadableImage(
            f"TIFF cut ({directory.layout}): {missing:,} of {needed:,} {unit} are not in the file; restore the file"
        )
    kind = _CODESTREAMS.get(directory.compression)
    if kind is None and directory.compression not in _COMPRESSIONS:
        raise _refusal(directory, "such compression is not read")
    if kind is not None:
        _check_codestreams(content, directory, kind)


def _segments_needed(directory: Directory) -> int:
    width, height = directory.size
    planes = directory.samples if directory.is_planar else 1
    if not directory.is_tiled:
        return -(-height // max(1, directory.rows_per_strip)) * planes
    across, down = directory.tile_size
    if not across or not down or across * down > max(4 * width * height, _SMALL_TILE_PIXELS):
        raise _refusal(directory, f"tiles of {across} x {down} pixels are out of range")
    return -(-width // across) * -(-height // down) * planes


def _check_codestreams(content: bytes, directory: Directory, kind: str) -> None:
    """Refuse codestreams that announce more pixels than their strip or tile has: they would fill the memory."""
    width, height = directory.tile_size if directory.is_tiled else (directory.size[0], directory.rows_per_strip)
    for offset, count in zip(*directory.segments, strict=False):
        found = codestream_size(kind, content[offset : offset + count])
        if found is None or found[0] * found[1] > width * height:
            raise _refusal(directory, f"a {kind} codestream in it is damaged or larger than its part of the picture")


# --- pixels -----------------------------------------------------------------------------------------------------


def decode(content: bytes, found: TiffPlan) -> Image.Image:
    """Decode the pixels, upright. Raises UnreadableImage, or another error for damaged data."""
    directory = found.directory
    if directory.photometric == tags.YCBCR and directory.compression == 1:
        picture = _uncompressed_ycbcr(content, directory)
    else:
        picture = Image.fromarray(
            _colors(_samples(content, found), found), found.mode if found.mode == "CMYK" else None
        )
    transpose = TRANSPOSES.get(directory.orientation)
    return picture if transpose is None else picture.transpose(transpose)


def _samples(content: bytes, found: TiffPlan) -> NDArray[Any]:
    """Return the samples [h, w, c], as they are stored."""
    try:
        import imagecodecs  # noqa: F401, PLC0415 - an extra, and 0.2 s to import
        from tifffile import TiffFile  # noqa: PLC0415
    except ImportError:
        raise UnreadableImage(
            f"TIFF ({found.directory.layout}): reading this needs tifffile and imagecodecs; "
            "pip install 'whatwhere[formats]'"
        ) from None
    whole = io.BytesIO(TiffHeader(content).with_first(found.directory.offset))
    with TiffFile(whole) as file:
        page: Any = file.pages[0]
        samples = page.asarray(squeeze=False, maxworkers=1)
    planes, depth, height, width, contiguous = samples.shape
    if depth != 1 or (width, height) != found.directory.size or planes * contiguous != found.directory.samples:
        raise _refusal(found.directory, f"decoded to the shape {samples.shape}")
    return samples[0, 0] if planes == 1 else np.moveaxis(samples[:, 0, :, :, 0], 0, -1)


def _colors(samples: NDArray[Any], found: TiffPlan) -> Bytes:
    """Return the colors as uint8 [h, w] or [h, w, c], composited over white."""
    directory, bits = found.directory, found.directory.bits[0]
    if directory.photometric == tags.PALETTE:
        colors = _looked_up(samples[:, :, 0], directory)
    elif found.alpha is None or samples.dtype.kind == "f":
        colors = to_bytes(samples[:, :, : found.colors], bits)
    else:  # integers share one range with their alpha
        together = to_bytes(samples[:, :, : found.alpha + 1], bits)
        colors, samples, bits = together[:, :, : found.colors], together, 8
    if directory.photometric == tags.WHITE_IS_0:
        colors = 255 - colors
    if found.alpha is not None:
        alpha = to_bytes(samples[:, :, found.alpha : found.alpha + 1], bits)
        colors = _composited(colors, alpha, found)
    return colors[:, :, 0] if colors.shape[2] == 1 else colors


def _looked_up(indices: NDArray[Any], directory: Directory) -> Bytes:
    assert directory.colors is not None
    colors = directory.colors.reshape(3, -1).T
    eight_bit = (colors >> 8 if int(colors.max()) > 255 else colors).astype(np.uint8)
    looked_up: Bytes = eight_bit[np.minimum(indices, len(eight_bit) - 1)]
    return looked_up


def _composited(colors: Bytes, alpha: Bytes, found: TiffPlan) -> Bytes:
    white = 0 if found.mode == "CMYK" else 255  # no ink
    result = np.empty_like(colors)
    for top in range(0, len(colors), 256):
        rows = slice(top, top + 256)
        opaque = alpha[rows].astype(np.uint16)
        front = colors[rows].astype(np.uint16)
        if not found.is_premultiplied:
            front = (front * opaque + 127) // 255
        result[rows] = np.minimum(front + (white * (255 - opaque) + 127) // 255, 255)
    return result


def _uncompressed_ycbcr(content: bytes, directory: Directory) -> Image.Image:
    """Unpack 8-bit YCbCr: units of `across` x `down` luma samples, then the two chroma samples that they share."""
    (across, down), (width, height) = directory.subsampling[:2], directory.size
    if set(directory.bits) != {8} or directory.is_planar or directory.is_tiled or directory.samples != 3:
        raise _refusal(directory, "YCbCr is read with 8 bits, uncompressed in strips or as JPEG")
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise _refusal(directory, f"chroma subsampling of {across} x {down} is out of range")
    unit, columns = across * down + 2, -(-width // across)
    picture = np.empty((height, width, 3), np.uint8)
    for index, top in enumerate(range(0, height, directory.rows_per_strip)):
        rows = min(directory.rows_per_strip, height - top)
        units = np.frombuffer(content, np.uint8, -(-rows // down) * columns * unit, int(directory.segments[0][index]))
        units = units.reshape(-1, columns, unit)
        luma = units[:, :, :-2].reshape(-1, columns, down, across).swapaxes(1, 2).reshape(-1, columns * across)
        picture[top : top + rows, :, 0] = luma[:rows, :width]
        chroma = units[:, :, -2:].repeat(down, axis=0).repeat(across, axis=1)
        picture[top : top + rows, :, 1:] = chroma[:rows, :width]
    return Image.fromarray(picture, "YCbCr").convert("RGB")
