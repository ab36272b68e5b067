"""Write one photograph in the formats of phones and cameras: HEIC, AVIF, JPEG XL, JPEG 2000, MPO and RAW."""

import functools
import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import skimage.data
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

HEIF_FOLDER = Path(__file__).parent / "fixtures" / "heif"
MAKE, MODEL, TAKEN = "Apple", "iPhone 15", "2024-05-06T07:08:09+02:00"
LATITUDE, LONGITUDE = 48.5, 9.25
WHITE_LEVEL = 16_380  # of the sensor
# XYZ to the camera's colors, in thousandths: a camera that sees sRGB.
_COLOR_MATRIX = (3_241, -1_537, -499, -969, 1_876, 42, 56, -204, 1_057)


def photograph(size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Return the upper part of skimage's astronaut (NASA, public domain)."""
    return Image.fromarray(skimage.data.astronaut()[:384]).resize(size)


def difference(pixels: NDArray[Any], expected: Image.Image | None = None) -> float:
    """Return the mean absolute difference from a picture, in gray levels."""
    picture = expected or photograph((pixels.shape[1], pixels.shape[0]))
    return float(np.abs(pixels.astype(int) - np.asarray(picture.convert("RGB"))).mean())


def exif(orientation: int = 1) -> Image.Exif:
    """Return a block with camera, time, position and orientation."""
    block = Image.Exif()
    block[ExifTags.Base.Make], block[ExifTags.Base.Model] = MAKE, MODEL
    block[ExifTags.Base.Orientation] = orientation
    inner = block.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal], inner[ExifTags.Base.OffsetTimeOriginal] = "2024:05:06 07:08:09", "+02:00"
    position = block.get_ifd(ExifTags.IFD.GPSInfo)
    position[ExifTags.GPS.GPSLatitudeRef], position[ExifTags.GPS.GPSLatitude] = "N", (48.0, 30.0, 0.0)
    position[ExifTags.GPS.GPSLongitudeRef], position[ExifTags.GPS.GPSLongitude] = "E", (9.0, 15.0, 0.0)
    return block


def tiff_exif(orientation: int = 1) -> bytes:
    """Return the block from its TIFF header on."""
    return exif(orientation).tobytes().removeprefix(b"Exif\0\0")


def box(kind: bytes, payload: bytes) -> bytes:
    """Return a box of an ISO container."""
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def heic(name: str = "photo") -> bytes:
    """Read one of `tests/fixtures/heif`."""
    return (HEIF_FOLDER / f"{name}.heic").read_bytes()


def heic_grid(rows: int, columns: int) -> bytes:
    """Write a HEIC as phones do, of tiles: each is the same 320 x 240, one's data serves all."""
    content = heic()
    data = content[content.index(b"mdat") + 4 :]  # one picture, then EXIF
    size = struct.unpack_from(">I", content, content.index(b"iloc") + 26)[0]
    codec = content[content.index(b"hvcC") - 4 :]
    codec = codec[: int.from_bytes(codec[:4], "big")]
    tiles = range(2, 2 + rows * columns)

    def full(kind: bytes, payload: bytes, version: int = 0) -> bytes:
        return box(kind, bytes([version, 0, 0, 0]) + payload)

    def entry(number: int, kind: bytes) -> bytes:
        return full(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", 2)

    def extent(number: int, place: int, length: int) -> bytes:
        return struct.pack(">HHHII", number, 0, 1, place, length)

    shape = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, 320 * columns, 240 * rows)
    sizes = [struct.pack(">II", 320, 240), struct.pack(">II", 320 * columns, 240 * rows)]
    properties = codec + b"".join(full(b"ispe", side) for side in sizes)
    uses = struct.pack(">HBB", 1, 1, 3) + b"".join(struct.pack(">HBBB", number, 2, 0x81, 2) for number in tiles)
    parts = [
        full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
        full(b"pitm", struct.pack(">H", 1)),
        full(
            b"iinf", struct.pack(">H", 1 + len(tiles)) + entry(1, b"grid") + b"".join(entry(n, b"hvc1") for n in tiles)
        ),
        full(b"iref", box(b"dimg", struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *tiles))),
        box(b"iprp", box(b"ipco", properties) + full(b"ipma", struct.pack(">I", 1 + len(tiles)) + uses)),
    ]
    start = box(b"ftyp", b"heic\0\0\0\0mif1heicmiaf")
    length = 16 + 14 * (1 + len(tiles))
    place = len(start) + 12 + sum(map(len, parts)) + length + 8
    places = extent(1, place, len(shape)) + b"".join(extent(number, place + len(shape), size) for number in tiles)
    parts.append(full(b"iloc", struct.pack(">BBH", 0x44, 0, 1 + len(tiles)) + places))
    return start + full(b"meta", b"".join(parts)) + box(b"mdat", shape + data[:size])


def avif(picture: Image.Image, **options: Any) -> bytes:
    """Encode as AVIF; Pillow writes the orientation of `exif` as `irot` and `imir`."""
    return saved(picture, "AVIF", quality=85, speed=9, max_threads=1, **options)


def jpeg2000(picture: Image.Image, block: bytes = b"") -> bytes:
    """Encode as JP2, with an EXIF block as Exiv2 writes it."""
    content = saved(picture, "JPEG2000", quality_mode="rates", quality_layers=[8])
    return content + box(b"uuid", b"JpgTiffExif->JP2" + block) if block else content


def jpegxl(picture: Image.Image | NDArray[Any], **options: Any) -> bytes:
    """Encode a picture or samples as a JPEG XL codestream."""
    return bytes(imagecodecs.jpegxl_encode(np.asarray(picture), numthreads=1, **(options or {"distance": 1.0})))


def jpegxl_container(codestream: bytes, block: bytes = b"", *, compressed: bool = False) -> bytes:
    """Put a codestream, in two parts, and an EXIF block into a container."""
    parts = box(b"jxlp", bytes(4) + codestream[:11]) + box(b"jxlp", b"\x80\0\0\x01" + codestream[11:])
    payload = bytes(4) + block
    if compressed:
        payload = box(b"brob", b"Exif" + imagecodecs.brotli_encode(payload))
    elif block:
        payload = box(b"Exif", payload)
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    return start + (payload if block else b"") + parts


def mpo(picture: Image.Image, **options: Any) -> bytes:
    """Encode as MPO: the photograph, then one of another view, here upside down."""
    other = picture.transpose(Image.Transpose.ROTATE_180)
    return saved(picture, "MPO", save_all=True, append_images=[other], quality=90, **options)


def dng(
    picture: Image.Image,
    *,
    preview: Image.Image | None = None,
    orientation: int = 1,
    make: str = "",
    photometric: str = "cfa",
) -> bytes:
    """Write the values of a sensor (red, green / green, blue) that took this picture, with a JPEG preview.

    It is a DNG, or with `make` a TIFF of that maker, which LibRaw does not read.
    """
    light = (np.asarray(picture.convert("RGB")) / 255.0) ** 2.2 * WHITE_LEVEL
    sensor = light[..., 1].astype(np.uint16)
    sensor[0::2, 0::2], sensor[1::2, 1::2] = light[0::2, 0::2, 0], light[1::2, 1::2, 2]
    matrix = tuple(value for number in _COLOR_MATRIX for value in (number, 1_000))
    dng_tags = [
        (50706, 1, 4, b"\x01\x04\0\0", True),  # DNG version
        (50708, 2, 0, "Test Camera", True),
        (50721, 10, 9, matrix, True),
        (50728, 5, 3, (1,) * 6, True),  # as shot neutral
        (50778, 3, 1, 21, True),  # D65
    ]
    tags = [
        (271, 2, 0, make or MAKE, True),
        (272, 2, 0, MODEL, True),
        (274, 3, 1, orientation, True),
        *([] if make else dng_tags),
    ]
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\x01\x01\x02", True), (50717, 4, 1, WHITE_LEVEL, True)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        if preview is not None:
            jpeg = saved(preview, "JPEG", quality=92)
            shape = preview.height, preview.width, 3
            writer.write(
                iter([jpeg]), shape=shape, dtype=np.uint8, photometric="ycbcr", compression="jpeg", subfiletype=1,
                rowsperstrip=preview.height, subifds=1, extratags=tags, metadata=None,
            )  # fmt: skip
            tags = []
        writer.write(sensor, photometric=photometric, extratags=[*tags, *pattern], metadata=None)
    return file.getvalue()


@functools.cache
def one_of_each() -> dict[str, tuple[bytes, str]]:
    """Return the photograph by the name of a file, with the media type that it must have."""
    picture = photograph((640, 480))
    return {
        "photo.heic": (heic(), "image/heic"),
        "photo.avif": (avif(picture), "image/avif"),
        "photo.jxl": (jpegxl(picture), "image/jxl"),
        "photo.jp2": (jpeg2000(picture), "image/jp2"),
        "photo.mpo": (mpo(picture), "image/jpeg"),
        "photo.dng": (dng(picture, preview=picture), "image/x-adobe-dng"),
    }
