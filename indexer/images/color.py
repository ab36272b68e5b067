"""Convert colors to sRGB by the ICC profile of a picture."""

import io
import logging
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 4 * 1024 * 1024  # printers' have up to 3 MB
_CACHED_PROFILES = 16  # most libraries have a handful
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # Pillow's mode → the color space that ICC names
# One level more or less comes from rounding: such a profile is sRGB itself, under one of its many names.
_LEAST_DIFFERENCE = 2

log = logging.getLogger(__name__)


def color_mode(picture: Image.Image) -> str:
    """Return the mode in which a picture's colors are converted: L, RGB or CMYK."""
    if picture.mode in ("L", "LA", "La") or picture.mode.startswith("I"):
        return "L"
    return "CMYK" if picture.mode == "CMYK" else "RGB"


def srgb_transform(picture: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from the picture's colors, in `color_mode`, to sRGB.

    None if the picture has no profile, or one that is damaged, is of another color space, or changes nothing.
    """
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE_BYTES:
        return None
    return _transform(profile, color_mode(picture))


@lru_cache(_CACHED_PROFILES)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build a transform once (10 ms); several threads may apply it at once."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(
            source,
            _srgb(),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return transform if _changes_colors(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.info("profile damaged error=%s", type(error).__name__)
        return None


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_colors(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.array([0, 32, 64, 96, 128, 160, 192, 224, 255], np.uint8)
    channels = len(Image.new(mode, (1, 1)).getbands())
    if mode == "RGB":
        probes = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, channels)
    else:
        probes = np.repeat(levels[np.newaxis, :, np.newaxis], channels, axis=2)
    picture = Image.fromarray(probes[:, :, 0] if mode == "L" else np.ascontiguousarray(probes), mode)
    changed = transform.apply(picture)
    difference = np.abs(np.asarray(changed).astype(int) - np.asarray(picture.convert("RGB"))).max()
    return bool(difference >= _LEAST_DIFFERENCE)


def lab_to_rgb(picture: Image.Image) -> Image.Image:
    """Convert CIE Lab (of D50) to sRGB."""
    return _lab_transform().apply(picture)


@cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
