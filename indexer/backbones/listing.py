"""The named networks as people choose among them."""

from dataclasses import dataclass

from whatwhere.indexer.backbones.registry import BACKBONES


@dataclass(frozen=True)
class ListedBackbone:
    """One entry. `gmacs`: billions of multiplications for 512 x 672 pixels; `weights`: the file or package to have."""

    name: str
    layer: str
    channels: int
    stride: int
    gmacs: float
    weights: str
    weights_here: bool


def list_backbones() -> list[ListedBackbone]:
    """Return every entry, and whether its weights lie on this machine (they are checked when they are used)."""
    return [
        ListedBackbone(
            spec.name,
            spec.layer,
            spec.channels,
            spec.stride,
            spec.gmacs,
            weights=spec.weights.title,
            weights_here=spec.weights.is_here(),
        )
        for spec in BACKBONES.values()
    ]
