"""Load a network onto a device and compute activations."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.indexer.backbones.checkpoints import read_tensors
from whatwhere.indexer.backbones.engines import PRECISIONS, make_engine
from whatwhere.indexer.backbones.names import DEFAULT_DEVICE, DEFAULT_PRECISION, DEVICES
from whatwhere.indexer.backbones.registry import BackboneSpec, find_backbone
from whatwhere.indexer.backbones.torch_threads import torch_threads
from whatwhere.indexer.backbones.weights import OwnWeights
from whatwhere.indexer.errors import DeviceUnavailable, UnknownName, WeightsUnavailable


def choose_device(name: str = DEFAULT_DEVICE) -> torch.device:
    """Return the device for auto, cpu or cuda.

    Raises UnknownName for another name, and DeviceUnavailable if cuda is requested but not available.
    """
    if name not in DEVICES:
        raise UnknownName(f"device {name!r} is unknown; there are: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("no CUDA device is available; use --device cpu, or check the driver with nvidia-smi")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_backbone(
    name: str,
    device: torch.device,
    *,
    weights: Path | None = None,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> "Backbone":
    """Load the network NAME or NAME:LAYER with its published weights, or with those of the file `weights`.

    `threads`: see `engines.make_engine`. No code in the checkpoint is executed.
    Raises UnknownName if the network, layer or precision does not exist, and WeightsUnavailable if the weights are
    missing or corrupt, fail their checksum, or do not fit the network.
    """
    if precision not in PRECISIONS:
        raise UnknownName(f"precision {precision!r} is unknown; there are: {', '.join(PRECISIONS)}")
    spec = find_backbone(name)
    checkpoint = (spec.weights if weights is None else OwnWeights(weights)).locate()
    published = read_tensors(checkpoint.path)
    network = spec.build()
    try:
        spec.load(network, published)
    except ValueError as error:
        raise WeightsUnavailable(
            f"{checkpoint.path} does not fit {name}: {error}. Use weights of this network, or another network"
        ) from error
    return Backbone(spec, network, device, weights_sha256=checkpoint.sha256, precision=precision, threads=threads)


class Backbone:
    """A network in inference mode that maps pixels to non-negative activations, float32; thread-safe.

    `weights_sha256` is that of the loaded checkpoint. With precision bfloat16 the network computes in bfloat16.
    `network` is the PyTorch module, whichever engine runs it: scaled pixels [B, 3, h, w] → [B, C, h/stride, w/stride].
    """

    def __init__(
        self,
        spec: BackboneSpec,
        network: nn.Module,
        device: torch.device,
        *,
        weights_sha256: str,
        precision: str = DEFAULT_PRECISION,
        threads: int | None = None,
    ) -> None:
        self.spec = spec
        self.network = network
        self.device = device
        self.weights_sha256 = weights_sha256
        self.precision = precision
        self.engine = make_engine(network, (spec.mean, spec.std), device, precision, threads)

    def threads_beside(self) -> AbstractContextManager[None]:
        """Give torch, for what is computed from activations, the threads that are fast beside those of the engine.

        For a block on this thread; the number from before is put back.
        """
        count = self.engine.torch_threads
        return nullcontext() if count is None else torch_threads(count)

    def activations(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Map images uint8 [h, w, 3] (sides multiples of 32) to activations float32 [h/stride, w/stride, C] ≥ 0."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            groups[image.shape].append(position)
        results: dict[int, Tensor] = {}
        for positions in groups.values():
            # One at a time on a CPU: batches of 8 are slower per image there (measured), and need 8 x the memory.
            at_once = len(positions) if self.device.type == "cuda" else 1
            for start in range(0, len(positions), at_once):
                chosen = positions[start : start + at_once]
                pixels = np.stack([images[position] for position in chosen])
                results |= zip(chosen, self.engine.run(pixels), strict=True)
        return [results[position] for position in range(len(images))]
