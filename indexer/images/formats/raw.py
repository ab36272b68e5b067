"""Open camera files (RAW): the largest preview that they hold, or a fast development with LibRaw (rawpy)."""

import io
from functools import partial
from typing import Any

from PIL import ExifTags, Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.contents import printable_reason
from whatwhere.indexer.images.formats.jpeg import check_jpeg, missing_jpeg_rows, open_jpeg
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.formats.raw_kinds import RAW_MIME_TYPES, raw_kind
from whatwhere.indexer.images.limits import ImageLimits

RAW_SUFFIXES = (
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".rwl", ".pef"),
    *(".srw", ".mrw", ".x3f", ".3fr", ".dcr", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
)
# Of the longer side: smaller previews are for the camera's list of pictures. Those of half the sensor's size are taken
# in any case.
_MIN_PREVIEW_SIDE = 512
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)  # of EXIF, by LibRaw's flip
_TURNED = (5, 6, 7, 8)


def is_raw(content: bytes) -> bool:
    """Tell by content whether a file is a camera file; see `raw_kind`."""
    return raw_kind(content) is not None


def open_raw(content: bytes) -> Image.Image:
    """Read the metadata and the largest preview; if it is small or absent, `load()` develops the sensor's values.

    They are developed at half the size, with the camera's white balance. `size` is that of what is read, and the
    orientation is in the EXIF block. Raises UnreadableImage if LibRaw cannot read the file, or rawpy is not installed.
    """
    kind = raw_kind(content) or "RAW"
    try:
        import rawpy  # noqa: PLC0415 - only for the pictures that need it
    except ImportError as error:
        raise UnreadableImage(f"camera file ({kind}) needs rawpy: pip install 'whatwhere[formats]'") from error
    try:
        file = rawpy.imread(io.BytesIO(content))
    except rawpy.LibRawError as error:
        raise UnreadableImage(
            f"camera file ({kind}) that LibRaw {'.'.join(map(str, rawpy.libraw_version))} cannot read, "
            f"{_reason(error)}; convert it to DNG or JPEG"
        ) from error
    return _preview(file, kind, rawpy) or _Developed(file, kind)


def _preview(file: Any, kind: str, rawpy: Any) -> Image.Image | None:
    """Return the largest preview, None if it is too small, absent or damaged."""
    try:
        found = file.extract_thumb()
        if found.format == rawpy.ThumbFormat.JPEG:
            picture = open_jpeg(found.data)
            check_jpeg(found.data, picture, ImageLimits())
            orientation = int(picture.getexif().get(ExifTags.Base.Orientation, 1))  # LibRaw writes it, if there is none
        else:
            picture = Image.fromarray(found.data)
            orientation = _ORIENTATIONS[file.sizes.flip]
    except Exception:  # damaged previews raise any type; the sensor's values may be intact
        return None
    sensor = file.sizes.width, file.sizes.height
    if max(picture.size) < min(_MIN_PREVIEW_SIDE, max(sensor) // 2):
        return None
    if orientation in _TURNED and (picture.width < picture.height) != (sensor[0] < sensor[1]):
        orientation = 1  # the preview is upright already
    content = found.data if found.format == rawpy.ThumbFormat.JPEG else None
    return _Preview(picture, content, kind, orientation)


class _Preview(LazyPicture):
    def __init__(self, picture: Image.Image, jpeg: bytes | None, kind: str, orientation: int) -> None:
        self._picture = picture
        block = Image.Exif()
        block[ExifTags.Base.Orientation] = orientation
        info: dict[Any, Any] = {"exif": block.tobytes()}
        if "icc_profile" in picture.info:
            info["icc_profile"] = picture.info["icc_profile"]
        super().__init__(
            f"camera file ({kind})",
            picture.size,
            partial(_complete, picture, jpeg),
            info=info,
            mime_type=RAW_MIME_TYPES[kind],
        )

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> Any:
        """Decode a JPEG preview at a reduced scale, as Pillow does."""
        box = self._picture.draft(mode, size)
        self._size = self._picture.size
        return box


def _complete(picture: Image.Image, jpeg: bytes | None) -> Image.Image:
    """Return a preview; raise UnreadableImage if its JPEG is cut."""
    picture.load()
    if jpeg is not None and missing_jpeg_rows(jpeg, picture) is not None:
        raise UnreadableImage("camera file whose preview is cut; restore the file")
    return picture


class _Developed(LazyPicture):
    def __init__(self, file: Any, kind: str) -> None:
        width, height = file.sizes.iwidth, file.sizes.iheight
        self.sensor_size = file.sizes.raw_width, file.sizes.raw_height  # what is compared with the limit
        if file.sizes.flip in (5, 6):
            width, height = height, width
        super().__init__(
            f"camera file ({kind})",
            ((width + 1) // 2, (height + 1) // 2),
            lambda: Image.fromarray(file.postprocess(half_size=True, use_camera_wb=True)),
            mime_type=RAW_MIME_TYPES[kind],
        )


def _reason(error: Exception) -> str:
    """Return LibRaw's message, which rawpy keeps as bytes."""
    message = error.args[0] if error.args else ""
    return message.decode("ascii", "replace") if isinstance(message, bytes) else printable_reason(error)
