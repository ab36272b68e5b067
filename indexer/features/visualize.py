"""What a concept looks like to a network: a picture made by gradient ascent on its pixels (feature visualisation).

Olah, Mordvintsev and Schubert, 2017: what is optimised is the picture's spectrum, its frequencies scaled as photographs
have them, in colours that photographs do not correlate; and the picture must show the concept however it is turned,
zoomed and shifted. Without these three the ascent ends in noise that nobody but the network understands.

The constants are ours, chosen by looking at a dozen concepts of photographs of a cat, elephants, a motorbike, a cup and
a rocket: eyes, heads, wheels, rims and scaffolds are recognised.
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
_COSINE_POWER, _LEAST_COSINE = 2.0, 0.1
_LEARNING_RATE = 0.08
_START = 0.01  # nearly grey: from there on, what is seen was asked for
_DECAY = 1.25  # of amplitudes over frequency; 1.0 leaves more noise, 1.5 blurs
_TURN_DEGREES, _ZOOM, _SHIFT = 15.0, 1.2, 0.1  # at most; the shift is of the side
_SIDE_MULTIPLE = 32
_EPS = 1e-6
# the square root of the covariance of red, green and blue in ImageNet's photographs
_COLORS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def visualize_row(
    backbone: Backbone,
    concept: Tensor,
    *,
    size: int = SIZE,
    steps: int = VISUALIZATION_STEPS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Make a picture uint8 [size, size, 3] whose activations point along a row of V, float32 [C], not zero.

    `progress` is told how many steps are done and of how many. On a CPU the same seed gives the same picture.
    InvalidRequest(field="size") where the network cannot take a picture of that size.
    """
    if size < _SIDE_MULTIPLE or size % _SIDE_MULTIPLE:
        raise InvalidRequest(f"size is {size}: give a multiple of {_SIDE_MULTIPLE}", field="size")
    device, spec = backbone.device, backbone.spec
    random = torch.Generator().manual_seed(seed)
    network, last = _redirectable(backbone.network)
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) / 255 for values in (spec.mean, spec.std))
    concept = concept.to(device, copy=True)
    amplitudes = _amplitudes(size).to(device)
    spectrum = (_START * torch.randn(3, *amplitudes.shape, 2, generator=random)).to(device).requires_grad_()
    optimizer = torch.optim.Adam([spectrum], _LEARNING_RATE)
    for step in range(steps):
        moved = _moved(_picture(spectrum, amplitudes), random)
        activations = network((moved - mean) / std)[0].permute(1, 2, 0)
        last.redirecting = bool(cosine_to(concept, activations.detach()) < _LEAST_COSINE)
        optimizer.zero_grad()
        (-objective(activations, concept)).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
    picture = _picture(spectrum.detach(), amplitudes)[0].permute(1, 2, 0)
    return (picture * 255).round().to(torch.uint8).cpu().numpy()


def objective(activations: Tensor, concept: Tensor) -> Tensor:
    """Score activations [h, w, C] by a row of V [C]: how far they point along it, times the square of the cosine.

    The cosine counts as a tenth at least, or nothing would draw a picture on that does not show the concept yet.
    """
    along = _shown(activations) @ functional.normalize(concept, dim=0)
    return along * cosine_to(concept, activations).clamp_min(_LEAST_COSINE) ** _COSINE_POWER


def cosine_to(concept: Tensor, activations: Tensor) -> Tensor:
    """Return the cosine of a row of V [C] and what activations [h, w, C] show, a scalar in [-1, 1]."""
    return functional.cosine_similarity(_shown(activations), concept, dim=0)


def _shown(activations: Tensor) -> Tensor:
    """Average activations [h, w, C] over the cells, with CroW's channel weights as the factorisation has them: [C].

    Unlike there a dead channel weighs as if it were active in one cell, or it could never come to life.
    """
    height, width, _ = activations.shape
    share = (activations.detach() > 0).float().mean(dim=(0, 1)).clamp_min(1 / (height * width))
    return activations.mean(dim=(0, 1)) * torch.log(share.sum() / share)


# --- the picture ------------------------------------------------------------------------------------------------


def _amplitudes(size: int) -> Tensor:
    """Return the amplitude of each of the spectrum's frequencies [size, size / 2 + 1], that of the lowest `size`²."""
    down, right = torch.fft.fftfreq(size, 1 / size), torch.fft.rfftfreq(size, 1 / size)
    return size**2 / torch.hypot(down.unsqueeze(1), right).clamp_min(1) ** _DECAY


def _picture(spectrum: Tensor, amplitudes: Tensor) -> Tensor:
    """Paint a spectrum [3, size, size / 2 + 1, 2]: [1, 3, size, size] in (0, 1)."""
    waves = torch.fft.irfft2(torch.view_as_complex(spectrum) * amplitudes, s=(len(amplitudes), len(amplitudes))) / 4
    colors = (_COLORS / _COLORS.norm(dim=0).max()).to(waves)
    return torch.sigmoid(torch.einsum("dc,chw->dhw", colors, waves)).unsqueeze(0)


def _moved(picture: Tensor, random: torch.Generator) -> Tensor:
    """Turn, zoom and shift a picture [1, 3, size, size] at random; it goes on mirrored beyond its border."""
    turn, zoom, right, down = (2 * torch.rand(4, generator=random) - 1).tolist()
    angle, scale = math.radians(_TURN_DEGREES * turn), _ZOOM**zoom
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    moves = torch.tensor([[[cosine, -sine, 2 * _SHIFT * right], [sine, cosine, 2 * _SHIFT * down]]])
    places = functional.affine_grid(moves, list(picture.shape), align_corners=False).to(picture)
    return functional.grid_sample(picture, places, padding_mode="reflection", align_corners=False)


# --- the network ------------------------------------------------------------------------------------------------


class _Redirected(torch.autograd.Function):
    """Clamp to [0, most], and let the gradient through where it leads back into that range."""

    @staticmethod
    def forward(context: Any, x: Tensor, most: float) -> Tensor:
        context.save_for_backward(x)
        context.most = most
        return x.clamp(0, most)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        # a negative gradient of what is minimised makes x larger
        passes = ((x > 0) | (gradient < 0)) & ((x < context.most) | (gradient > 0))
        return gradient * passes, None


class _Rectifier(nn.Module):
    """A ReLU up to `most` whose gradient does not vanish while it is `redirecting`."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most
        self.redirecting = True

    def forward(self, x: Tensor) -> Tensor:
        """Clamp."""
        clamped: Tensor = _Redirected.apply(x, self.most) if self.redirecting else x.clamp(0, self.most)
        return clamped


def _redirectable(network: nn.Module) -> tuple[nn.Module, _Rectifier]:
    """Return a copy of a network in float32, and its last ReLU, whose gradient can be redirected.

    On grey noise most channels are dead, and a concept of few would stay so: five single channels of five had no
    activation after 48 steps without it, 5.2 to 5.7 of 6 with it. It is for the first steps, until the picture shows
    something of the concept; later, or in every ReLU of the network, it leads astray (measured).
    """
    network = copy.deepcopy(network).float().requires_grad_(requires_grad=False)
    last = _Rectifier(math.inf)
    found = [(name, each) for name, each in network.named_modules() if isinstance(each, nn.ReLU | nn.ReLU6)]
    if found:
        name, replaced = found[-1]
        last.most = 6.0 if isinstance(replaced, nn.ReLU6) else math.inf
        network.set_submodule(name, last)
    return network, last
