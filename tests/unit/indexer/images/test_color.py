"""Colors are converted to sRGB by a picture's ICC profile, and no profile costs a picture."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from whatwhere.indexer.images.decode import decode_image

# Linear light of RGB with these primaries and the white of D65 → linear sRGB, from the specifications' chromaticities.
TO_SRGB = {
    "Display P3": [[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0197, -0.0786, 1.0983]],
    "Adobe RGB": [[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]],
}
# The primaries' XYZ, adapted to D50, as profiles hold them.
PRIMARIES = {
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}
GAMMA = {"Adobe RGB": 563 / 256}


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """Write an ICC profile of version 2 (ICC.1:2001-04)."""
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", *(round(65536 * value) for value in (0.9642, 1.0, 0.8249)))
    tags = {b"desc": text, b"wtpt": white, b"cprt": b"text" + bytes(4) + b"none\0"} | tags
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    body = bytearray(bytes(128) + table + data)
    struct.pack_into(">I4sI4s4s4s", body, 0, len(body), bytes(4), 0x02400000, kind, space, pcs)
    body[36:40] = b"acsp"
    struct.pack_into(">iii", body, 68, round(65536 * 0.9642), 65536, round(65536 * 0.8249))
    return bytes(body)


def curve(gamma: float | None) -> bytes:
    """Write a tone curve: a power, or sRGB's, which Display P3 has as well."""
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    levels = np.rint(65535 * linear(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(levels)) + levels.tobytes()


def rgb_profile(name: str) -> bytes:
    """Write a profile of three primaries and a tone curve."""
    tags = {tag + b"TRC": curve(GAMMA.get(name)) for tag in (b"r", b"g", b"b")}
    for tag, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), PRIMARIES[name], strict=True):
        tags[tag] = b"XYZ " + bytes(4) + struct.pack(">iii", *(round(65536 * value) for value in values))
    return profile(b"RGB ", tags)


def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return linear light of sRGB (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sRGB of linear light."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colors() -> NDArray[np.uint8]:
    """Return [8, 64, 3]: a grid of colors."""
    grid = np.stack(np.meshgrid(*(np.linspace(0, 255, 8),) * 3, indexing="ij"), axis=-1)
    return grid.reshape(8, 64, 3).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", TO_SRGB)
def test_profiles_are_converted_as_their_formulas_say(name: str, kind: str) -> None:
    """Within two levels of linearizing, a matrix, and encoding again."""
    content = saved(Image.fromarray(colors()), kind, icc_profile=rgb_profile(name), lossless=True)

    decoded = decode_image(content, "x", shorter_side=None).pixels

    values = colors() / 255
    light = values ** GAMMA[name] if name in GAMMA else linear(values)
    expected = 255 * encoded_srgb(light @ np.array(TO_SRGB[name]).T)
    assert np.abs(decoded - expected).max() <= 2.5
    assert np.abs(decoded.astype(int) - colors()).max() > 20


def test_a_jpeg_is_converted_after_it_is_scaled() -> None:
    """Its own reduction, the turn and the profile go together."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (1600, 1200), (200, 100, 50))

    decoded = decode_image(saved(picture, "JPEG", quality=95, exif=exif, icc_profile=rgb_profile("Display P3")), "x")

    expected = 255 * encoded_srgb(np.array(TO_SRGB["Display P3"]) @ linear(np.array([200, 100, 50]) / 255))
    assert decoded.pixels.shape == (672, 512, 3)
    assert np.abs(decoded.pixels[100, 100] - expected).max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_gray_profile_is_converted(mode: str) -> None:
    """A gamma of 1: half the light is 188 of sRGB."""
    profile_of_1 = profile(b"GRAY", {b"kTRC": curve(1.0)})
    picture = Image.new("L", (4, 4), 128).convert(mode)

    decoded = decode_image(saved(picture, "PNG", icc_profile=profile_of_1), "x", shorter_side=None)

    assert np.abs(decoded.pixels - 255 * encoded_srgb(np.array(128 / 255))).max() <= 1.5


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_a_printers_profile_is_converted(kind: str) -> None:
    """By its table of 2 x 2 x 2 x 2 entries in Lab: here cyan ink is a dull green, and black ink is black."""
    entries = np.zeros((2, 2, 2, 2, 3), np.uint8) + np.array([0, 128, 128], np.uint8)
    entries[0, 0, 0, 0] = (255, 128, 128)
    entries[1, 0, 0, 0] = (128, 98, 148)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + entries.tobytes() + 3 * ramp
    printers = profile(b"CMYK", {b"A2B0": table}, pcs=b"Lab ", kind=b"prtr")
    picture = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    picture.paste((0, 0, 0, 0), (16, 0, 32, 16))

    decoded = decode_image(saved(picture, kind, icc_profile=printers), "x", shorter_side=None).pixels

    lab = Image.new("LAB", (1, 1), (128, 98, 148))
    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    assert np.abs(decoded[8, 4].astype(int) - to_srgb.apply(lab).getpixel((0, 0))).max() <= 4
    assert decoded[8, 28].min() > 250


def test_lab_is_converted() -> None:
    """A light of 50 without color is a gray of 119."""
    decoded = decode_image(saved(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF"), "x", shorter_side=None)

    assert np.abs(decoded.pixels.astype(int) - 119).max() <= 2


BROKEN = rgb_profile("Display P3")


@pytest.mark.parametrize(
    "broken",
    [
        b"garbage",
        BROKEN[:100],
        BROKEN[:200],
        BROKEN[:128] + b"\xff\xff\xff\xff" + BROKEN[132:],
        profile(b"CMYK", {}),
        profile(b"GRAY", {b"kTRC": curve(1.0)}),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["no profile", "header cut", "tags cut", "count", "without a table", "of another space", "sRGB"],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_profile_that_cannot_be_used_changes_nothing(kind: str, broken: bytes) -> None:
    """Colors are taken as sRGB then."""
    picture = Image.fromarray(colors().repeat(8, axis=0).repeat(8, axis=1))
    plain, with_profile = (
        decode_image(saved(picture, kind, lossless=True, **options), "x", shorter_side=None).pixels
        for options in ({}, {"icc_profile": broken})
    )

    np.testing.assert_array_equal(with_profile, plain)
