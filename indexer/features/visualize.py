"""Visualize a factor by gradient ascent on the pixels of an image (feature visualization).

After Olah, Mordvintsev and Schubert, 2017: the image is optimized in the Fourier basis, with frequencies scaled as in
photographs and decorrelated colors, and under random rotation, zoom and shift. Without these three the result is
adversarial noise.

The constants are ours, chosen on a dozen factors of photographs of a cat, elephants, a motorbike, a cup and a rocket:
eyes, heads, wheels, rims and scaffolds are recognizable.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.names import VISUALIZATION_STEPS

SIZE = 224
_COSINE_POWER, _MIN_COSINE = 2.0, 0.1
_LEARNING_RATE = 0.08
_START = 0.01  # nearly gray, so that all structure comes from the objective
_DECAY = 1.25  # exponent of amplitude over frequency; 1.0 leaves more noise, 1.5 blurs
_MAX_DEGREES, _MAX_ZOOM, _MAX_SHIFT = 15.0, 1.2, 0.1  # the shift relative to the side
_SIDE_MULTIPLE = 32
_EPS = 1e-6
# square root of the covariance of red, green and blue in ImageNet
_COLORS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def visualize_row(
    backbone: Backbone,
    row: Tensor,
    *,
    size: int = SIZE,
    steps: int = VISUALIZATION_STEPS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Create an image uint8 [size, size, 3] whose activations point along a row of V, float32 [C], not zero.

    `progress` is called with the number of completed steps and the total. On a CPU, the same seed gives the same image.
    Raises InvalidRequest(field="size") if `size` is not a multiple of 32.
    """
    if size < _SIDE_MULTIPLE or size % _SIDE_MULTIPLE:
        raise InvalidRequest(f"size is {size}: it must be a multiple of {_SIDE_MULTIPLE}", field="size")
    device, spec = backbone.device, backbone.spec
    random = torch.Generator().manual_seed(seed)
    network, last = _redirectable(backbone.network)
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) / 255 for values in (spec.mean, spec.std))
    row = row.to(device, copy=True)
    amplitudes = _amplitudes(size).to(device)
    spectrum = (_START * torch.randn(3, *amplitudes.shape, 2, generator=random)).to(device).requires_grad_()
    optimizer = torch.optim.Adam([spectrum], _LEARNING_RATE)
    for step in range(steps):
        transformed = _transformed(_rendered(spectrum, amplitudes), random)
        activations = network((transformed - mean) / std)[0].permute(1, 2, 0)
        last.redirecting = bool(cosine_to(row, activations.detach()) < _MIN_COSINE)
        optimizer.zero_grad()
        (-objective(activations, row)).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
    image = _rendered(spectrum.detach(), amplitudes)[0].permute(1, 2, 0)
    return (image * 255).round().to(torch.uint8).cpu().numpy()


def objective(activations: Tensor, row: Tensor) -> Tensor:
    """Score activations [h, w, C] by a row of V [C]: their projection on it, times the squared cosine.

    The cosine is clamped to at least 0.1: otherwise there is no gradient before the factor appears in the image.
    """
    projection = _weighted_mean(activations) @ functional.normalize(row, dim=0)
    return projection * cosine_to(row, activations).clamp_min(_MIN_COSINE) ** _COSINE_POWER


def cosine_to(row: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of a row of V [C] and the weighted mean of activations [h, w, C], a scalar in [-1, 1]."""
    return functional.cosine_similarity(_weighted_mean(activations), row, dim=0)


def _weighted_mean(activations: Tensor) -> Tensor:
    """Average activations [h, w, C] over the cells, with CroW's channel weights as in the factorization: [C].

    Unlike there, a dead channel is weighted as if active in one cell: otherwise its gradient would stay 0.
    """
    height, width, _ = activations.shape
    share = (activations.detach() > 0).float().mean(dim=(0, 1)).clamp_min(1 / (height * width))
    return activations.mean(dim=(0, 1)) * torch.log(share.sum() / share)


# --- the image --------------------------------------------------------------------------------------------------


def _amplitudes(size: int) -> Tensor:
    """Return the amplitude of each frequency of the spectrum, [size, size / 2 + 1]; the lowest has `size`²."""
    down, right = torch.fft.fftfreq(size, 1 / size), torch.fft.rfftfreq(size, 1 / size)
    return size**2 / torch.hypot(down.unsqueeze(1), right).clamp_min(1) ** _DECAY


def _rendered(spectrum: Tensor, amplitudes: Tensor) -> Tensor:
    """Convert a spectrum [3, size, size / 2 + 1, 2] to an image [1, 3, size, size] in (0, 1)."""
    waves = torch.fft.irfft2(torch.view_as_complex(spectrum) * amplitudes, s=(len(amplitudes), len(amplitudes))) / 4
    colors = (_COLORS / _COLORS.norm(dim=0).max()).to(waves)
    return torch.sigmoid(torch.einsum("dc,chw->dhw", colors, waves)).unsqueeze(0)


def _transformed(image: Tensor, random: torch.Generator) -> Tensor:
    """Rotate, zoom and shift an image [1, 3, size, size] at random, with reflection padding."""
    turn, zoom, right, down = (2 * torch.rand(4, generator=random) - 1).tolist()
    angle, scale = math.radians(_MAX_DEGREES * turn), _MAX_ZOOM**zoom
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    matrix = torch.tensor([[[cosine, -sine, 2 * _MAX_SHIFT * right], [sine, cosine, 2 * _MAX_SHIFT * down]]])
    grid = functional.affine_grid(matrix, list(image.shape), align_corners=False).to(image)
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


# --- the network ------------------------------------------------------------------------------------------------


class _Redirected(torch.autograd.Function):
    """Clamps to [0, maximum], and passes the gradient if it leads back into that range."""

    @staticmethod
    def forward(context: Any, x: Tensor, maximum: float) -> Tensor:
        context.save_for_backward(x)
        context.maximum = maximum
        return x.clamp(0, maximum)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        # descent on a negative gradient increases x
        passes = ((x > 0) | (gradient < 0)) & ((x < context.maximum) | (gradient > 0))
        return gradient * passes, None


class _Rectifier(nn.Module):
    """A ReLU up to `maximum` whose gradient does not vanish while it is `redirecting`."""

    def __init__(self, maximum: float) -> None:
        super().__init__()
        self.maximum = maximum
        self.redirecting = True

    def forward(self, x: Tensor) -> Tensor:
        """Clamp to [0, maximum]."""
        clamped: Tensor = _Redirected.apply(x, self.maximum) if self.redirecting else x.clamp(0, self.maximum)
        return clamped


def _redirectable(network: nn.Module) -> tuple[nn.Module, _Rectifier]:
    """Return a float32 copy of a network, and its last ReLU, replaced by one with a redirectable gradient.

    On gray noise most channels are dead, and factors of few channels would stay dead: without redirection five of five
    single channels had no activation after 48 steps, with it 5.2 to 5.7 of 6. Only the first steps redirect, until the
    factor appears; redirecting later, or in every ReLU, gave worse images (measured).
    """
    network = copy.deepcopy(network).float().requires_grad_(requires_grad=False)
    last = _Rectifier(math.inf)
    found = [(name, each) for name, each in network.named_modules() if isinstance(each, nn.ReLU | nn.ReLU6)]
    if found:
        name, replaced = found[-1]
        last.maximum = 6.0 if isinstance(replaced, nn.ReLU6) else math.inf
        network.set_submodule(name, last)
    return network, last
