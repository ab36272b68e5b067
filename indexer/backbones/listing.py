"""List the named networks for people who choose among them. Importing this needs no torch."""

import importlib.util
import os
from dataclasses import dataclass

from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import BACKBONES


@dataclass(frozen=True)
class ListedBackbone:
    """One network.

    `gmacs` are billions of multiplications for a picture of 512 x 672. `weights` is the file or package to have.
    """

    name: str
    layer: str
    channels: int
    stride: int
    gmacs: float
    weights: str
    weights_here: bool


def list_backbones() -> list[ListedBackbone]:
    """List every network, and whether its weights are on this machine (they are checked when they are used)."""
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


def uses_openvino() -> bool:
    """Tell whether networks run with OpenVINO on a CPU: it is installed, and WHATWHERE_ENGINE does not say torch."""
    return os.environ.get(ENGINE_VARIABLE) != "torch" and importlib.util.find_spec("openvino") is not None
