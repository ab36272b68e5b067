"""Encoded bytes become upright RGB pixels at the network's size, or one of three named errors."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.errors import ImageTooManyBytes, ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.decode import SUFFIXES, decode_image, fitted_size, upright_size
from whatwhere.indexer.images.limits import ImageLimits

# Six grey levels, far enough apart to survive JPEG, in blocks of 8 x 8 pixels: one letter each.
LETTERS = "ABCDEF"
# The rows as stored of the upright picture "ABC" over "DEF", placed by hand from the EXIF specification: for 6, for
# example, the first stored row is the visual right side and the first stored column the visual top.
STORED = {
    1: ("ABC", "DEF"),
    2: ("CBA", "FED"),
    3: ("FED", "CBA"),
    4: ("DEF", "ABC"),
    5: ("AD", "BE", "CF"),
    6: ("CF", "BE", "AD"),
    7: ("FC", "EB", "DA"),
    8: ("DA", "EB", "FC"),
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive jpeg": ("JPEG", {"quality": 95, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 95}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
}


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def as_stored(content: bytes) -> NDArray[np.uint8]:
    """Decode without scaling."""
    return decode_image(content, "picture", shorter_side=None).pixels


def of_letters(rows: tuple[str, ...]) -> Image.Image:
    """Draw letters as blocks of grey."""
    levels = np.array([[50 * LETTERS.index(letter) for letter in row] for row in rows], dtype=np.uint8)
    return Image.fromarray(levels.repeat(8, axis=0).repeat(8, axis=1)).convert("RGB")


def letters_of(pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Read the letters back from the blocks' centres."""
    return tuple("".join(LETTERS[round(level / 50)] for level in row) for row in pixels[4::8, 4::8, 0])


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    """Draw a smooth picture: red grows to the right, green downwards, blue is 60."""
    pixels = np.full((height, width, 3), 60, dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(20, 220, width)
    pixels[:, :, 1] = np.linspace(20, 220, height)[:, np.newaxis]
    return pixels


def photograph(width: int, height: int) -> Image.Image:
    """Draw a large picture with structure at every scale, from a fixed seed."""
    generator = np.random.default_rng(7)
    picture = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        picture += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(picture.astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """Write a PNG that announces a size and then holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


# --- formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_its_pixels(name: str) -> None:
    """A smooth picture comes back from every format, exactly or within what its compression loses."""
    kind, options = FORMATS[name]
    pixels = gradient(96, 64)

    decoded = as_stored(encoded(Image.fromarray(pixels), kind, **options))

    assert np.abs(decoded.astype(int) - pixels).mean() < (6 if kind == "GIF" else 3)


@pytest.mark.parametrize("name", ["png", "lossless webp", "tiff", "lzw tiff", "bmp"])
def test_lossless_formats_give_exact_pixels(name: str) -> None:
    """Nothing is lost, shifted or swapped where the format loses nothing."""
    kind, options = FORMATS[name]
    pixels = gradient(96, 64)

    decoded = as_stored(encoded(Image.fromarray(pixels), kind, **options))

    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
    ],
)
def test_the_mime_type_is_that_of_the_bytes(kind: str, mime_type: str) -> None:
    """The type is read from the content, whatever the name says."""
    content = encoded(Image.new("RGB", (8, 8)), kind)

    decoded = decode_image(content, "picture.txt")

    assert decoded.mime_type == mime_type


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_taken(kind: str) -> None:
    """Of an animation or of several pages, the first counts."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)

    decoded = as_stored(content)

    assert decoded.tolist() == np.full((16, 16, 3), (255, 0, 0)).tolist()


def test_the_first_photograph_of_a_phones_file_is_taken() -> None:
    """Several JPEGs in one file (MPO) are a JPEG."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])

    decoded = decode_image(content, "picture", shorter_side=None)

    assert decoded.mime_type == "image/jpeg"
    assert decoded.pixels[0, 0, 0] > 250


def test_suffixes_are_lower_case_with_a_dot() -> None:
    """Suffixes are compared with lowered ones, so each is lower case and starts with its dot."""
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"} <= SUFFIXES


# --- modes ------------------------------------------------------------------------------------------------------


def test_gray_becomes_three_equal_channels() -> None:
    """Eight-bit grey keeps its values."""
    levels = np.array([[0, 1, 127, 254, 255]], dtype=np.uint8)

    decoded = as_stored(encoded(Image.fromarray(levels)))

    np.testing.assert_array_equal(decoded, levels[:, :, np.newaxis].repeat(3, axis=2))


def test_bilevel_becomes_black_and_white() -> None:
    """One bit a pixel becomes 0 and 255."""
    bits = Image.fromarray(np.array([[True, False, True]]))
    assert bits.mode == "1"

    decoded = as_stored(encoded(bits))

    assert decoded[0, :, 0].tolist() == [255, 0, 255]


def test_palette_becomes_its_colors() -> None:
    """An indexed picture shows the palette's colours, not its indices."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 150, 100])
    picture.putdata([1, 0])

    decoded = as_stored(encoded(picture))

    assert decoded[0].tolist() == [[200, 150, 100], [10, 20, 30]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(kind: str) -> None:
    """The transparent entry shows the white behind it, the others their colour."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 150, 100])
    picture.putdata([1, 0])

    decoded = as_stored(encoded(picture, kind, transparency=0))

    assert decoded[0].tolist() == [[200, 150, 100], [255, 255, 255]]


def test_a_transparent_color_becomes_white() -> None:
    """A PNG may name one RGB colour as transparent."""
    picture = Image.fromarray(np.array([[(10, 20, 30), (200, 150, 100)]], dtype=np.uint8))

    decoded = as_stored(encoded(picture, transparency=(10, 20, 30)))

    assert decoded[0].tolist() == [[255, 255, 255], [200, 150, 100]]


def test_alpha_is_blended_over_white() -> None:
    """RGBA: an alpha of 0 is white, of 255 the colour, of 51 a fifth of it and four fifths of white."""
    pixels = np.array([[(0, 100, 200, 0), (0, 100, 200, 255), (0, 100, 200, 51)]], dtype=np.uint8)

    decoded = as_stored(encoded(Image.fromarray(pixels)))

    assert decoded[0].tolist() == [[255, 255, 255], [0, 100, 200], [204, 224, 244]]


def test_gray_with_alpha_is_blended_over_white() -> None:
    """LA is treated as RGBA is."""
    picture = Image.merge("LA", [Image.new("L", (1, 1), level) for level in (100, 51)])

    decoded = as_stored(encoded(picture))

    assert decoded[0, 0].tolist() == [224, 224, 224]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    """Full cyan ink is cyan, full black ink is black: not inverted, as Adobe's JPEGs are stored."""
    inks = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    inks.paste((0, 0, 0, 255), (16, 0, 32, 16))

    decoded = as_stored(encoded(inks, kind)).astype(int)

    assert np.abs(decoded[8, 4] - (0, 255, 255)).max() < 6
    assert np.abs(decoded[8, 28] - (0, 0, 0)).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind: str) -> None:
    """The high byte is kept: 0x1234 becomes 0x12, and nothing above 255 turns white."""
    levels = np.array([[0x0000, 0x00FF, 0x0100, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)

    decoded = as_stored(encoded(Image.fromarray(levels), kind))

    assert decoded[0, :, 0].tolist() == [0x00, 0x00, 0x01, 0x12, 0x80, 0xFF]
    assert decoded.shape == (1, 6, 3)


# --- orientation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    """However the rows are stored, the decoded picture reads ABC over DEF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    content = encoded(of_letters(STORED[orientation]), kind, exif=exif, **options)

    decoded = decode_image(content, "picture", shorter_side=None)

    assert letters_of(decoded.pixels) == ("ABC", "DEF")
    assert (decoded.width, decoded.height) == (24, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_the_upright_size_is_known_before_decoding(orientation: int, kind: str) -> None:
    """24 x 16 from the header, also of 16 x 24 stored on its side, whose pixels need not be there."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(of_letters(STORED[orientation]), kind, exif=exif)
    header = content if kind in ("TIFF", "WEBP") else content[:-8]  # theirs stands behind the pixels

    assert upright_size(header, "picture") == (24, 16)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_a_picture_without_an_orientation_is_as_wide_as_it_is_stored(kind: str) -> None:
    """Formats without EXIF, and a TIFF that says nothing."""
    assert upright_size(encoded(Image.new("RGB", (7, 5)), kind), "picture") == (7, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image that can be read: an empty file"),
        (b"not a picture", "not an image that can be read: a text file"),
        (b"\xff\xd8\xff", "JPEG cut in its header"),
        (encoded(Image.new("RGB", (8, 8)))[:20], r"PNG with a damaged header \("),
    ],
)
def test_the_size_of_what_is_no_image_is_a_named_error(content: bytes, message: str) -> None:
    """The message names the picture and what is wrong with it."""
    with pytest.raises(UnreadableImage, match=rf"holiday\.jpg: {message}"):
        upright_size(content, "holiday.jpg")


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_before_the_size_is_chosen(orientation: int) -> None:
    """The sizes are those of the upright picture: 480 x 640 scaled to 512 x 672, or 640 x 480 to 672 x 512."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.new("RGB", (640, 480)), "JPEG", exif=exif)

    decoded = decode_image(content, "picture")

    upright = {3: (640, 480, (512, 672, 3)), 6: (480, 640, (672, 512, 3))}[orientation]
    assert (decoded.width, decoded.height, decoded.pixels.shape) == upright


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_outside_the_specification_is_ignored(value: int) -> None:
    """Only 2 to 8 turn a picture."""
    exif = Image.Exif()
    exif[0x0112] = value
    content = encoded(of_letters(STORED[1]), exif=exif)

    decoded = as_stored(content)

    assert letters_of(decoded) == ("ABC", "DEF")


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0MM",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ],
    ids=["no header", "header cut", "entries cut", "offset outside"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's, when it opens a JPEG
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_torn_exif_block_leaves_the_picture_as_stored(kind: str, block: bytes) -> None:
    """The pixels are good although what describes them is not."""
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(of_letters(STORED[1]), kind, exif=block, **options)

    decoded = as_stored(content)

    assert letters_of(decoded) == ("ABC", "DEF")


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_unreadable(name: str, share: float) -> None:
    """A file that ends early is refused, never filled up with grey; a JPEG may lack a tenth, see test_jpeg.py."""
    kind, options = FORMATS[name]
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind, **options)
    share = min(share, 0.85) if name == "jpeg" else min(share, 0.6) if name == "progressive jpeg" else share

    with pytest.raises(UnreadableImage):
        decode_image(content[: int(share * len(content))], "picture")


def test_a_large_truncated_jpeg_is_unreadable() -> None:
    """Decoding at a reduced size sees the missing end too."""
    content = encoded(photograph(2400, 1800), "JPEG")

    with pytest.raises(UnreadableImage):
        decode_image(content[: len(content) * 9 // 10], "picture")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_png_whose_pixels_changed_is_unreadable(share: float) -> None:
    """A turned bit, which the decoder would take for another picture, is told by the checksum."""
    content = bytearray(encoded(photograph(96, 64)))
    content[int(share * len(content))] ^= 4

    with pytest.raises(UnreadableImage, match="PNG checksum mismatch"):
        decode_image(bytes(content), "picture")


def progressive(scans: int, width: int, height: int) -> bytes:
    """Encode a grey picture as a progressive JPEG and repeat its last scan."""
    content = encoded(Image.new("L", (width, height), 99), "JPEG", progressive=True)
    first = content.count(b"\xff\xda")
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + (scans - first) * scan + content[-2:]


def test_a_jpeg_of_very_many_scans_is_refused_before_decoding() -> None:
    """33 scans of as many pixels as are allowed are one too many, 32 are decoded."""
    limits = ImageLimits(max_pixels=64 * 48)
    remark = b"\xff\xda" * 40  # what looks like a scan in a segment is none

    with pytest.raises(UnreadableImage, match=r"^picture: a progressive JPEG with more than 32 scans"):
        decode_image(progressive(33, 64, 48), "picture", limits=limits)
    assert decode_image(progressive(32, 64, 48), "picture", limits=limits).width == 64
    remarked = encoded(Image.new("L", (64, 48)), "JPEG", progressive=True, comment=remark)
    assert decode_image(remarked, "picture", limits=limits).width == 64


def test_a_small_jpeg_may_have_more_scans() -> None:
    """What is bounded is pixels times scans."""
    assert decode_image(progressive(60, 64, 24), "picture", limits=ImageLimits(max_pixels=64 * 48)).width == 64


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_error_does_not_hold_the_pixels(kind: str) -> None:
    """Errors wait for their turn in an index: their frames would keep what was decoded in memory."""
    content = encoded(photograph(64, 48), kind)

    with pytest.raises(UnreadableImage) as raised:
        decode_image(content[: len(content) // 2], "picture")

    behind = raised.value.__cause__, raised.value.__context__
    assert all(error is not None and error.__traceback__ is None for error in behind)


def test_strips_are_converted_as_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is converted in many strips has the pixels of one that is converted at once."""
    pictures = [photograph(96, 64).convert(mode) for mode in ("RGBA", "LA", "P", "L", "CMYK")]
    contents = [encoded(picture, "TIFF") for picture in pictures]
    at_once = [as_stored(content) for content in contents]
    monkeypatch.setattr("whatwhere.indexer.images.rgb.STRIP_PIXELS", 96 * 5)

    in_strips = [as_stored(content) for content in contents]

    for expected, found in zip(at_once, in_strips, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "content",
    [b"", b"once upon a time", b"\0" * 100, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<svg xmlns='x'/>"],
    ids=["empty", "text", "zeros", "PNG signature alone", "JPEG signature alone", "SVG"],
)
def test_bytes_that_are_no_image_are_unreadable(content: bytes) -> None:
    """The message names the picture and the field."""
    with pytest.raises(UnreadableImage, match=r"^holiday: ") as refused:
        decode_image(content, "holiday")

    assert refused.value.field == "image_content"


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "EPS"])
def test_formats_that_are_not_listed_are_unreadable(kind: str) -> None:
    """Pillow could open more, but what is not listed is not tested and may start programs (EPS): none does open it."""
    content = encoded(Image.new("RGB", (16, 16)), kind)

    with pytest.raises(UnreadableImage, match=r"^picture: not an image that can be read: "):
        decode_image(content, "picture")


def test_the_byte_limit_itself_is_allowed() -> None:
    """As many bytes as the limit says are decoded."""
    content = encoded(Image.new("RGB", (8, 8)))

    decoded = decode_image(content, "picture", limits=ImageLimits(max_bytes=len(content)))

    assert decoded.width == 8


def test_more_bytes_than_the_limit_are_refused_before_decoding() -> None:
    """Even bytes that are no image fail by their number."""
    with pytest.raises(ImageTooManyBytes, match=r"^holiday: 1,001 bytes, the limit is 1,000;") as refused:
        decode_image(b"x" * 1001, "holiday", limits=ImageLimits(max_bytes=1000))

    assert refused.value.field == "image_content"


def test_the_pixel_limit_itself_is_allowed() -> None:
    """As many pixels as the limit says are decoded."""
    content = encoded(Image.new("RGB", (10, 9)))

    decoded = decode_image(content, "picture", limits=ImageLimits(max_pixels=90))

    assert (decoded.width, decoded.height) == (10, 9)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_more_pixels_than_the_limit_are_refused(kind: str) -> None:
    """Ten by nine pixels are one more than 89."""
    content = encoded(Image.new("RGB", (10, 9)), kind)

    with pytest.raises(ImageTooManyPixels, match=r"^holiday: 10 x 9 pixels, the limit is 89 ") as refused:
        decode_image(content, "holiday", limits=ImageLimits(max_pixels=89))

    assert refused.value.field == "image_content"


@pytest.mark.parametrize("size", [(20_001, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_the_pixel_limit_is_checked_in_the_header(size: tuple[int, int]) -> None:
    """A hundred bytes that announce a huge picture fail by their announcement, not by the pixels that are not there."""
    with pytest.raises(ImageTooManyPixels, match=r"^picture: \d+ x \d+ pixels, the limit is 200,000,000 "):
        decode_image(png_header(*size), "picture")


def test_a_picture_below_our_limit_draws_no_warning_from_pillow() -> None:
    """Between Pillow's own limit (89 million pixels) and ours (100) a picture is decoded; warnings are errors here."""
    content = encoded(Image.new("1", (9500, 9500)))

    decoded = decode_image(content, "picture")

    assert (decoded.width, decoded.height) == (9500, 9500)


def test_a_limit_that_the_program_has_set_lower_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow asks it when strips of a picture are converted; it is the program's, and stays as it is."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(ImageTooManyPixels, match=r"^picture: above the limit of this program for Pillow") as refused:
        decode_image(encoded(Image.new("L", (100, 50_000))), "picture")

    assert refused.value.field == "image_content"
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert decode_image(encoded(Image.new("RGB", (100, 100))), "picture").width == 100


# --- the size for the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((512, 512), (512, 512)),
        ((640, 480), (672, 512)),  # 640 · 512 / 480 = 682.7 = 21.3 cells
        ((480, 640), (512, 672)),
        ((500, 333), (768, 512)),  # 500 · 512 / 333 = 768.8 = 24.02 cells
        ((4000, 1000), (2048, 512)),  # aspect 4: still the full shorter side
        ((8000, 1000), (2048, 256)),  # aspect 8: the longer side has stopped at 2048
        ((20_000, 3), (2048, 32)),  # 0.3 pixels high, but a cell is the least
        ((3, 20_000), (32, 2048)),
        ((1, 1), (512, 512)),
        ((1, 2), (512, 1024)),
    ],
)
def test_fitted_size_is_what_calculation_by_hand_gives(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    """The shorter side becomes 512, unless the longer one would pass 2048."""
    assert fitted_size(*size) == fitted


def test_fitted_size_takes_another_shorter_side() -> None:
    """At 224, 640 x 480 becomes 298.7 = 9.3 cells wide, and aspect 8 stops at 896 x 112 = 3.5 cells."""
    assert fitted_size(640, 480, 224) == (288, 224)
    assert fitted_size(8000, 1000, 224) == (896, 128)


sides = st.integers(1, 30_000)


@given(width=sides, height=sides)
def test_fitted_sides_are_cells_near_the_scaled_sides(width: int, height: int) -> None:
    """Both sides are whole cells, at least one, at most 2048 pixels, and half a cell from the exact scale or nearer."""
    fitted = fitted_size(width, height)

    scale = min(512 / min(width, height), 2048 / max(width, height))
    for side, original in zip(fitted, (width, height), strict=True):
        assert side % 32 == 0
        assert 32 <= side <= 2048
        assert side == 32 or abs(side - original * scale) <= 16 + 1e-6


@given(width=sides, height=sides)
def test_fitted_size_of_the_turned_picture_is_turned(width: int, height: int) -> None:
    """Portrait and landscape are treated alike."""
    assert fitted_size(height, width) == fitted_size(width, height)[::-1]


@pytest.mark.parametrize("size", [(640, 480), (100, 900), (1, 1), (20_000, 3)])
def test_pixels_have_the_fitted_size_and_the_sides_of_the_original(size: tuple[int, int]) -> None:
    """The description keeps the original's sides, the pixels are those for the network."""
    decoded = decode_image(encoded(Image.new("RGB", size)), "picture")

    assert decoded.pixels.shape == (*fitted_size(*size)[::-1], 3)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.width, decoded.height) == size


def test_a_reduced_picture_is_antialiased() -> None:
    """A chequerboard of single pixels becomes even grey: no sample is left out."""
    chequered = (np.indices((2048, 2048)).sum(axis=0) % 2 * 255).astype(np.uint8)

    decoded = decode_image(encoded(Image.fromarray(chequered)), "picture")

    assert np.abs(decoded.pixels.astype(int) - 127.5).max() < 5


def test_an_enlarged_picture_is_interpolated() -> None:
    """Between a black and a white pixel lie all greys."""
    content = encoded(Image.fromarray(np.array([[0, 255], [0, 255]], dtype=np.uint8)))

    decoded = decode_image(content, "picture")

    row = decoded.pixels[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert 0 < np.diff(row).max() < 3


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_decoded_at_reduced_size_stays_close_to_the_full_decode(orientation: int) -> None:
    """What JPEG's own reduction changes is below one grey level on average, and turned as the rest."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photograph(3200, 2400), "JPEG", quality=95, exif=exif)

    reduced = decode_image(content, "picture").pixels

    # The same JPEG decoded in full and stored without loss: a BMP cannot be decoded at a reduced size.
    full = decode_image(encoded(Image.fromarray(as_stored(content)), "BMP"), "picture").pixels
    assert reduced.shape == full.shape
    assert np.abs(reduced.astype(int) - full).mean() < 0.7


def test_none_keeps_the_size(tmp_path: Path) -> None:
    """Without a shorter side the picture is turned and converted but not scaled."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (37, 11)).save(path)

    decoded = decode_image(path.read_bytes(), path.name, shorter_side=None)

    assert decoded.pixels.shape == (11, 37, 3)
