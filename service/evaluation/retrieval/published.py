"""Give the thesis's published numbers: mAP (its table 5.1) and mean IoU (its table 5.2), in percent.

They were measured with ImageNet-trained VGG-16 and ResNet-50 on the complete Oxford5k and Paris6k.
"""

from collections.abc import Mapping
from types import MappingProxyType

# network → descriptor → (Oxford5k, Paris6k)
_Table = Mapping[str, Mapping[str, tuple[float, float]]]
_SINGLE: _Table = MappingProxyType(
    {
        "VGG-16": {
            "mac": (55.7, 68.0),
            "r-mac": (67.8, 77.4),
            "crow": (65.4, 74.3),
            "what": (71.9, 81.3),
            "what-and-where": (73.4, 83.0),
        },
        "ResNet-50": {
            "mac": (57.2, 69.9),
            "r-mac": (71.0, 81.4),
            "crow": (63.3, 71.7),
            "what": (67.7, 77.5),
            "what-and-where": (74.8, 83.2),
        },
    }
)
_EXPANDED: _Table = MappingProxyType(
    {
        "VGG-16": {
            "r-mac": (72.1, 82.4),
            "crow": (68.5, 77.1),
            "what": (73.8, 82.3),
            "what-and-where": (74.2, 83.8),
        },
        "ResNet-50": {
            "r-mac": (77.5, 85.5),
            "crow": (68.0, 76.4),
            "what": (69.2, 81.4),
            "what-and-where": (78.8, 86.2),
        },
    }
)
_IOU = MappingProxyType(
    {
        "AML": (51.3, 51.4),
        "exhaustive windows": (52.6, 52.9),
        "NMF, VGG-16": (49.3, 67.6),
        "NMF, ResNet-50": (53.2, 68.7),
    }
)
_COLUMNS = ("oxford5k", "paris6k")


def published_scores(benchmark: str) -> Mapping[str, Mapping[str, tuple[float, float | None]]]:
    """Return network → descriptor → (mAP single pass, mAP after expansion or None) in percent; empty for other sets."""
    if benchmark not in _COLUMNS:
        return {}
    column = _COLUMNS.index(benchmark)
    return {
        network: {
            name: (values[column], _EXPANDED[network][name][column] if name in _EXPANDED[network] else None)
            for name, values in rows.items()
        }
        for network, rows in _SINGLE.items()
    }


def published_iou(benchmark: str) -> Mapping[str, float]:
    """Return method → mean IoU in percent; empty for other data sets."""
    if benchmark not in _COLUMNS:
        return {}
    return {name: values[_COLUMNS.index(benchmark)] for name, values in _IOU.items()}
