"""A loaded network on a device."""

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
    """Return the device for auto, cpu or cuda; DeviceUnavailable when CUDA is asked for and absent."""
    if name not in DEVICES:
        raise UnknownName(f"device {name!r} is unknown; there are: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("no CUDA device is usable here; use --device cpu, or check the driver with nvidia-smi")
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
    """Build the network NAME or NAME:LAYER with its published weights, or those of the file `weights`.

    `threads`: see `engines.make_engine`. UnknownName for a network, layer or precision that there is not;
    WeightsUnavailable for weights that are not here, torn, not those of their name, or do not fit. No code is
    unpickled.
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
            f"{checkpoint.path} does not fit {name}: {error}. Give weights of this network, or name the one they are of"
        ) from error
    return Backbone(spec, network, device, weights_sha256=checkpoint.sha256, precision=precision, threads=threads)


class Backbone:
    """Pixels → activations after a ReLU, float32, in inference mode. Safe to call from several threads.

    `weights_sha256` is that of the checkpoint in use; in the precision bfloat16 the network computes in bfloat16.
    `network` is torch's, whatever engine runs it: scaled pixels [B, 3, h, w] → [B, C, h/stride, w/stride].
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
        """Map uint8 [h, w, 3] pictures (sides multiples of 32) to float32 [h/stride, w/stride, C] ≥ 0."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            groups[image.shape].append(position)
        results: dict[int, Tensor] = {}
        for positions in groups.values():
            # One at a time on a CPU: batches of 8 are slower for each image there (measured), and need 8 x the memory.
            at_once = len(positions) if self.device.type == "cuda" else 1
            for start in range(0, len(positions), at_once):
                chosen = positions[start : start + at_once]
                pixels = np.stack([images[position] for position in chosen])
                results |= zip(chosen, self.engine.run(pixels), strict=True)
        return [results[position] for position in range(len(images))]
