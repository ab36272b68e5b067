"""Build EfficientNet-Lite up to its head convolution (Google, 2020: no squeeze-excitation, ReLU6).

Zero padding is kept: with reflection R-MAC lost up to 1 point of mAP and what-and-where up to 3 (measured on Paris and
Corel photographs).
"""

import math
from collections.abc import Iterator, Mapping

from torch import Size, Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from whatwhere.indexer.backbones.checkpoints import require_fit

_BATCH_NORM_EPS = 1e-3
_STATISTICS = ("running_mean", "running_var", "weight", "bias")  # of a batch norm

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
_HEAD_CHANNELS = 1280


class _SamePadding(nn.ZeroPad2d):
    """TensorFlow's SAME padding of a strided convolution for even input sizes: the extra row is below and right."""

    def __init__(self, kernel: int, stride: int) -> None:
        total = kernel - stride
        before, after = total // 2, total - total // 2
        super().__init__((before, after, before, after))


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Build a convolution with SAME padding and a bias for the folded batch norm."""
    if stride == 1:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)]
    return [_SamePadding(kernel, stride), nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)]


class _InvertedResidual(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, projection; a residual if the shapes match."""

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


def _scaled(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def build(width: float = 1.0, depth: float = 1.0) -> nn.Module:
    """Build the network [B, 3, H, W] → [B, 1280, H/32, W/32], H and W multiples of 32, outputs in [0, 6]."""
    layers: list[nn.Module] = [*_convolution(3, _STEM_CHANNELS, 3, stride=2), nn.ReLU6(inplace=True)]
    inputs = _STEM_CHANNELS
    for number, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
        # Lite does not scale the depth of the first and the last stage.
        fixed = number in (0, len(_STAGES) - 1)
        outputs = _scaled(channels, width)
        for index in range(repeats if fixed else math.ceil(repeats * depth)):
            layers.append(_InvertedResidual(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
            inputs = outputs
    layers += [*_convolution(inputs, _HEAD_CHANNELS), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers)


def load_published(network: nn.Module, published: Mapping[str, Tensor]) -> None:
    """Load the published checkpoint into the network of `build`, folding each batch norm into its convolution.

    The classifier's tensors are optional. Raises ValueError if others are missing, unexpected or of another shape.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    pairs = list(zip(convolutions, _published_names(network), strict=True))
    needed: dict[str, Size] = {}
    for module, (convolution, norm) in pairs:
        needed[f"{convolution}.weight"] = module.weight.shape
        needed |= {f"{norm}.{statistic}": Size([module.out_channels]) for statistic in _STATISTICS}
    require_fit(published, needed, ("_fc.weight", "_fc.bias"))
    folded: list[Tensor] = []
    for _, (convolution, norm) in pairs:
        mean, variance, weight, bias = (published[f"{norm}.{statistic}"] for statistic in _STATISTICS)
        kernel = published[f"{convolution}.weight"]
        folded += fuse_conv_bn_weights(kernel, None, mean, variance, _BATCH_NORM_EPS, weight, bias)
    network.load_state_dict(dict(zip(network.state_dict(), folded, strict=True)))


def _published_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and its batch norm in the checkpoint, in the order of execution."""
    yield "_conv_stem", "_bn0"
    residuals = [module for module in network.modules() if isinstance(module, _InvertedResidual)]
    for number, residual in enumerate(residuals):
        parts = ("_expand_conv", "_depthwise_conv", "_project_conv")
        count = sum(isinstance(module, nn.Conv2d) for module in residual.body)
        for norm, convolution in list(enumerate(parts))[-count:]:  # without expansion, the last two
            yield f"_blocks.{number}.{convolution}", f"_blocks.{number}._bn{norm}"
    yield "_conv_head", "_bn1"
