"""EfficientNet-Lite up to its head convolution (Google, 2020: EfficientNet without squeeze-excitation, with ReLU6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_BATCH_NORM_EPS = 1e-3

# kernel, stride, expansion, output channels, repeats: EfficientNet-B0's table, before depth scaling
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


class _SamePadding(nn.ZeroPad2d):
    """TensorFlow's SAME padding of a strided convolution, for inputs of even size: the odd row goes below and right."""

    def __init__(self, kernel: int, stride: int) -> None:
        total = kernel - stride
        before, after = total // 2, total - total // 2
        super().__init__((before, after, before, after))


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Build one convolution with its batch norm folded in (hence the bias) and SAME padding."""
    if stride == 1:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)]
    return [_SamePadding(kernel, stride), nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)]


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project; add the input where the shape allows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [*_convolution(inputs, hidden), nn.ReLU6(inplace=True)] if expansion != 1 else []
        depthwise = [*_convolution(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.body = nn.Sequential(*expand, *depthwise, *_convolution(hidden, outputs))
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        filtered: Tensor = self.body(x)
        return x + filtered if self.adds_input else filtered


@dataclass(frozen=True)
class EfficientNetLiteShape:
    """What tells the members of the family apart (lite0 is 1.0, 1.0)."""

    width: float = 1.0
    depth: float = 1.0


def _scaled(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def build(shape: EfficientNetLiteShape) -> nn.Module:
    """Build the network [B, 3, H, W] → [B, 1280, H/32, W/32], H and W multiples of 32, outputs in [0, 6]."""
    layers: list[nn.Module] = [*_convolution(3, _STEM_CHANNELS, 3, stride=2), nn.ReLU6(inplace=True)]
    inputs = _STEM_CHANNELS
    for number, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
        # Lite keeps the first and the last stage at their depth in every member of the family.
        fixed = number in (0, len(_STAGES) - 1)
        outputs = _scaled(channels, shape.width)
        for index in range(repeats if fixed else math.ceil(repeats * shape.depth)):
            layers.append(_InvertedResidual(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
            inputs = outputs
    layers += [*_convolution(inputs, HEAD_CHANNELS), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers)


def load_published(network: nn.Module, published: Mapping[str, Tensor]) -> None:
    """Load the published checkpoint into `build`'s network, folding each batch norm into its convolution.

    The checkpoint lists every convolution followed by its batch norm in the order of execution, which is also the
    order of the network's parameters; the classifier is left out. A count or shape that differs raises ValueError
    or RuntimeError.
    """
    names = [name.removesuffix(".weight") for name in published if name.endswith(".weight") and "_fc" not in name]
    folded: list[Tensor] = []
    for convolution, norm in zip(names[::2], names[1::2], strict=True):
        folded += fuse_conv_bn_weights(
            published[f"{convolution}.weight"],
            None,
            published[f"{norm}.running_mean"],
            published[f"{norm}.running_var"],
            _BATCH_NORM_EPS,
            published[f"{norm}.weight"],
            published[f"{norm}.bias"],
        )
    network.load_state_dict(dict(zip(network.state_dict(), folded, strict=True)))
