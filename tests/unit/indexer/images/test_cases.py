"""Sample files of real photo libraries give the photograph that they were made from, or a refusal by name."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.decode import decode_image

CASES = next(
    (found for folder in Path(__file__).parents if (found := folder / "shared" / "cases" / "images").is_dir()), None
)
pytestmark = pytest.mark.skipif(CASES is None, reason="the folder ../shared/cases/images is absent")
# name → (colors, largest difference or None for a mean below 6, whether it is recorded as truncated)
READ: dict[str, tuple[str, int | None, bool]] = {
    "planar_rgb16_le_raw_one.tif": ("RGB", 2, False),
    "white16_le_raw.tif": ("L", 2, False),
    "black32u_le_raw.tif": ("L", 2, False),
    "g12packed.tif": ("L", 2, False),
    "rgb64f.tif": ("RGB", 2, False),
    "ga16.tif": ("L", 2, False),
    "rgb8_bigtiff_be.tif": ("RGB", 2, False),
    "thumb_first.tif": ("RGB", 2, False),
    "subifd_full.tif": ("RGB", 2, False),
    "png_bigtext_iTXt.png": ("RGB", 2, False),
    "png_badtext_crc.png": ("RGB", 2, False),
    "jpeg_named_heic.heic": ("RGB", None, False),
    "jpeg_noextension": ("RGB", None, False),
    "jpeg_12bit.jpg": ("RGB", None, False),
    "cut_noeoi.jpg": ("RGB", None, True),
}


def photograph(mode: str) -> NDArray[np.int64]:
    """Return the photograph in RGB or gray, as RGB [240, 320, 3]."""
    picture = Image.fromarray(skimage.data.astronaut()[:384]).resize((320, 240), Image.Resampling.BICUBIC)
    return np.asarray(picture.convert(mode).convert("RGB")).astype(np.int64)


@pytest.mark.parametrize("name", READ)
def test_a_sample_gives_the_photograph(name: str) -> None:
    """Within two levels where nothing is lost."""
    pytest.importorskip("imagecodecs")
    assert CASES is not None
    mode, largest, truncated = READ[name]

    decoded = decode_image((CASES / name).read_bytes(), name, shorter_side=None)

    difference = np.abs(decoded.pixels - photograph(mode))
    assert difference.mean() < 6
    assert largest is None or difference.max() <= largest
    assert (decoded.missing_rows is not None) == truncated


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("png_garbage_stream.png", "not a complete PNG"),
        ("png_cgbi.png", "PNG in Apple's CgBI variant"),
        ("._photo.jpg", "not an image that can be read: an AppleDouble file"),
    ],
)
def test_a_sample_that_is_none_is_refused_by_name(name: str, message: str) -> None:
    """It never becomes a blank picture."""
    assert CASES is not None

    with pytest.raises(UnreadableImage, match=f"^{name}: {message}"):
        decode_image((CASES / name).read_bytes(), name)
