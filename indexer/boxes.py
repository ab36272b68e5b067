"""Define boxes: `x_min, y_min, x_max, y_max` in [0, 1] of the upright image, x to the right and y down."""

import math
from typing import NamedTuple

from whatwhere.indexer.errors import InvalidRegion


class Box(NamedTuple):
    """A box in fractions of the upright image's width and height."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def intersection_over_union(self, other: "Box") -> float:
        """Return the intersection over union of the two boxes, in [0, 1]."""
        width = min(self.x_max, other.x_max) - max(self.x_min, other.x_min)
        height = min(self.y_max, other.y_max) - max(self.y_min, other.y_min)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / (self.area + other.area - shared)

    @property
    def area(self) -> float:
        """The fraction of the image that the box covers."""
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)


WHOLE_IMAGE = Box(0.0, 0.0, 1.0, 1.0)


def checked_box(x_min: float, y_min: float, x_max: float, y_max: float, field: str = "region") -> Box:
    """Return the box after checking it.

    Raises InvalidRegion if a coordinate is not finite or outside [0, 1], or if the box is inverted or empty.
    """
    sides = {"x_min": x_min, "y_min": y_min, "x_max": x_max, "y_max": y_max}
    for name, value in sides.items():
        if not math.isfinite(value) or not 0.0 <= value <= 1.0:
            raise InvalidRegion(
                f"{field}.{name} is {value}: use fractions of the upright image's width and height, from 0 to 1",
                field=f"{field}.{name}",
            )
    for low, high in (("x_min", "x_max"), ("y_min", "y_max")):
        if sides[low] >= sides[high]:
            raise InvalidRegion(
                f"{field}.{low} is {sides[low]} and {field}.{high} is {sides[high]}: {low} must be less than {high}",
                field=f"{field}.{low}",
            )
    return Box(x_min, y_min, x_max, y_max)


def box_from_pixels(x_min: float, y_min: float, x_max: float, y_max: float, *, width: int, height: int) -> Box:
    """Convert a box in pixels of a `width` x `height` upright image to fractions.

    Boxes up to one pixel outside the image are clipped: ground-truth files have them (measured: Paris, Oxford).
    Raises InvalidRegion if a coordinate is not finite or further outside, or if the box is inverted or empty.
    """
    return checked_box(
        max(x_min / width, 0.0) if x_min >= -1 else x_min / width,
        max(y_min / height, 0.0) if y_min >= -1 else y_min / height,
        min(x_max / width, 1.0) if x_max <= width + 1 else x_max / width,
        min(y_max / height, 1.0) if y_max <= height + 1 else y_max / height,
    )
