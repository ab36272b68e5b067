"""A JPEG that is cut is taken as far as it goes, and rare kinds of JPEG are read or named."""

import io
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.decode import decode_image

EOI = b"\xff\xd9"


def photograph(mode: str = "RGB") -> Image.Image:
    """Return a photograph of 640 x 480 pixels."""
    return Image.fromarray(skimage.data.astronaut()).resize((640, 480)).convert(mode)


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """Encode a picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


# --- truncated ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", EOI], ids=["cut", "with an end marker"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.94, 0.5])
def test_missing_rows_are_counted(share: float, mode: str, ending: bytes) -> None:
    """As many as a comparison with the whole picture finds, to a row of blocks; above a tenth the file is refused."""
    whole = encoded(photograph(mode))
    cut = whole[: int(len(whole) * share)] + ending
    with Image.open(io.BytesIO(cut.removesuffix(EOI) + EOI)) as picture, Image.open(io.BytesIO(whole)) as complete:
        difference = np.abs(np.asarray(picture).astype(int) - np.asarray(complete)).reshape(480, -1).max(axis=1)
    missing = (480 - int(np.argmax(difference > 0))) / 480

    if share == 0.5:
        assert missing > 0.3
        with pytest.raises(UnreadableImage, match=r"^x: not a complete JPEG, [34]\d% of its rows are missing"):
            decode_image(cut, "x")
    else:
        found = decode_image(cut, "x").missing_rows
        assert found is not None
        assert abs(found - missing) <= 16 / 480


@pytest.mark.parametrize("ending", [b"", b"\0" * 100], ids=["nothing", "zeros"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_missing_end_marker_alone_costs_nothing(progressive: bool, ending: bytes) -> None:
    """The pixels are those of the whole file, which is recorded as truncated."""
    whole = encoded(photograph(), progressive=progressive)

    decoded = decode_image(whole[:-2] + ending, "x")

    assert decoded.missing_rows == 0
    np.testing.assert_array_equal(decoded.pixels, decode_image(whole, "x").pixels)


@pytest.mark.parametrize("trailer", [b"", b"\0" * 9, b"ftypmp42" * 9], ids=["nothing", "zeros", "a film"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"exif": b"Exif\0\0\xff\xd8\xff"}])
def test_complete_files_are_not_recorded_as_truncated(options: dict[str, Any], trailer: bytes) -> None:
    """Also if their lower half is of the gray that a decoder fills with, and whatever follows the end marker."""
    pixels = np.asarray(photograph()).copy()
    pixels[240:] = 128

    decoded = decode_image(encoded(Image.fromarray(pixels), **options) + trailer, "x")

    assert decoded.missing_rows is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("ending", [b"", EOI], ids=["cut", "with an end marker"])
def test_a_progressive_file_without_its_details_is_refused(ending: bytes) -> None:
    """Its first scans give a coarse picture; the last ones may be missing."""
    whole = encoded(photograph(), progressive=True)
    starts = [position for position in range(len(whole)) if whole[position : position + 2] == b"\xff\xda"]

    assert decode_image(whole[: starts[-1]], "x").missing_rows == 0
    with pytest.raises(UnreadableImage, match=r"not a complete JPEG, 3 scans hold 66 of 192 coefficients"):
        decode_image(whole[: starts[2 if ending else 3] + 500] + ending, "x")


# --- rare kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["12-bit", "lossless", "16-bit lossless", "JPEG-LS", "gray JPEG-LS"])
def test_rare_kinds_are_read(kind: str) -> None:
    """Exactly where nothing is lost."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.asarray(photograph())
    encode = {
        "12-bit": lambda: imagecodecs.jpeg8_encode(pixels.astype(np.uint16) * 16, level=95, bitspersample=12),
        "lossless": lambda: imagecodecs.jpeg8_encode(pixels, lossless=True),
        "16-bit lossless": lambda: imagecodecs.ljpeg_encode(pixels[..., 0].astype(np.uint16) * 257, bitspersample=16),
        "JPEG-LS": lambda: imagecodecs.jpegls_encode(pixels),
        "gray JPEG-LS": lambda: imagecodecs.jpegls_encode(pixels[..., 0].copy()),
    }

    decoded = decode_image(encode[kind](), "x", shorter_side=None)

    expected = pixels[..., :1] if "16" in kind or "gray" in kind else pixels
    assert np.abs(decoded.pixels.astype(int) - expected).mean() < (3 if kind == "12-bit" else 0.001)
    assert decoded.mime_type == "image/jpeg"


def test_rare_kinds_that_are_cut_or_unknown_are_refused_by_name() -> None:
    """A hierarchical JPEG, one of five channels, and a 12-bit JPEG without its end."""
    content = encoded(photograph())
    frame = content.index(b"\xff\xc0")
    for position, value, message in (
        (frame + 1, 0xC5, r"8-bit JPEG of 3 channels \(frame type C5\)"),
        (frame + 4, 7, r"7-bit JPEG of 3 channels|not a complete JPEG"),
        (frame + 1, 0xCB, r"8-bit JPEG of 3 channels \(frame type CB\)"),
    ):
        with pytest.raises(UnreadableImage, match=message):
            decode_image(content[:position] + bytes([value]) + content[position + 1 :], "x")
    twelve = content[: frame + 4] + b"\x0c" + content[frame + 5 : -2]
    with pytest.raises(UnreadableImage, match="x: 12-bit JPEG of 3 channels without its end"):
        decode_image(twelve, "x")
