"""The stored description of an image, as arrays: shards are read, written and compacted without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QuantizedFactors:
    """Factors as stored in shards: 8 bits per entry, one scale per factor, on a grid of `height` x `width`.

    Measured: 13 KB per image at rank 8 and 1280 channels; global descriptors have a cosine of 0.9999 with those of
    unquantized factors, mAP is unchanged. Both indexed and query images are quantized, so that a stored and an
    uploaded copy give the same results.
    """

    where: NDArray[np.uint8]  # [height·width, K]
    where_scale: NDArray[np.float32]  # [K]
    what: NDArray[np.uint8]  # [K, C]
    what_scale: NDArray[np.float32]  # [K]
    height: int
    width: int


@dataclass(frozen=True)
class Description:
    """The stored description of an image: its factors, and rows [R, C] for each requested kind of pooling.

    Rows are uint8, scaled to a maximum of 255 each (float16 in collections of format 1): only their direction is used.
    """

    factors: QuantizedFactors
    pooled: Mapping[str, NDArray[np.uint8] | NDArray[np.float16]] = field(default_factory=dict)
