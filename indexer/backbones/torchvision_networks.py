"""Build torchvision classifiers cut at a layer, check the layer, and load weights.

Networks are built without values (meta device) and get those of the checkpoint: no random initialization, no second
copy.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from whatwhere.indexer.backbones.checkpoints import require_fit
from whatwhere.indexer.backbones.nonnegative import negative_source
from whatwhere.indexer.backbones.reflection import has_batch_norm, reflect_padding
from whatwhere.indexer.errors import UnknownName

_OUTPUT = "activations"
_MAX_LAYERS = 12  # listed in an error message
COST_SIDES = (512, 672)  # a 4:3 photograph at the network's input size
_DOUBLE_SIDES = (1024, 1344)
_SMALLEST_SIDES = (32, 64)  # a long thin image
Shape: TypeAlias = tuple[int, ...]
# The published weights need the training-only heads, and pixels scaled as in their TensorFlow training.
_AS_PUBLISHED = {"aux_logits": True, "transform_input": True, "init_weights": False}
_OPTIONS: Mapping[str, Mapping[str, bool]] = {"googlenet": _AS_PUBLISHED, "inception_v3": _AS_PUBLISHED}
# DenseNet's checkpoints have old parameter names: norm.1 is norm1.
_OLD_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


@dataclass(frozen=True)
class Cut:
    """Shape and cost of a network up to a layer: [B, 3, H, W] → [B, channels, H/stride, W/stride].

    `gmacs` is the number of multiply-accumulate operations, in billions, for an image of 512 x 672.
    """

    channels: int
    stride: int
    gmacs: float


class CutNetwork(nn.Module):
    """A classifier up to a layer; `beyond` has the names of the parameters after it."""

    def __init__(self, extractor: GraphModule, beyond: frozenset[str]) -> None:
        super().__init__()
        self.extractor = extractor
        self.beyond = beyond

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 3, H, W] to the layer's output."""
        activations: Tensor = self.extractor(x)[_OUTPUT]
        return activations


@cache
def network_names() -> tuple[str, ...]:
    """Return the names of torchvision's classifiers with published weights."""
    names = models.list_models(models)
    return tuple(name for name in names if "IMAGENET1K_V1" in models.get_model_weights(name).__members__)


def published_url(name: str) -> str:
    """Return the URL of the network's published weights."""
    return str(_published(name).url)


def pixel_scale(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std of pixel values (0 to 255) that the published weights were trained with."""
    transforms = _published(name).transforms()
    return tuple(255 * value for value in transforms.mean), tuple(255 * value for value in transforms.std)


def build(name: str, layer: str) -> CutNetwork:
    """Build the network up to the layer, without values; with reflection padding if it has batch norm.

    Raises UnknownName if the layer does not exist.
    """
    network = _classifier(name)
    layers = _layers(name)
    if not any(known == layer or known.startswith(f"{layer}.") for known in layers):
        raise UnknownName(f"{name} has no layer {layer!r}; {usable(name, layer)}")
    extractor = create_feature_extractor(network, {layer: _OUTPUT}, suppress_diff_warning=True).eval()
    kept = extractor.state_dict().keys()
    beyond = frozenset(key for key in network.state_dict() if key not in kept)
    if has_batch_norm(network):
        reflect_padding(extractor)
    return CutNetwork(extractor, beyond)


def load(network: nn.Module, published: Mapping[str, Tensor]) -> None:
    """Load the values of a checkpoint into a network of `build`; tensors of layers after the cut are optional.

    Raises ValueError if other tensors are missing, unexpected or of another shape.
    """
    assert isinstance(network, CutNetwork)
    given = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in published.items()}
    own = network.extractor.state_dict()
    counters = {name: torch.zeros((), dtype=torch.long) for name in own if name.endswith(".num_batches_tracked")}
    needed = {name: tensor.shape for name, tensor in own.items() if name not in counters}
    require_fit(given, needed, network.beyond)
    network.extractor.load_state_dict({name: given[name].float() for name in needed} | counters, assign=True)


@cache
def measure(name: str, layer: str) -> Cut:
    """Measure the network up to the layer by tracing shapes.

    Raises UnknownName if the layer cannot be used: its output must be non-negative and a feature map that covers the
    image. Its sides must be the image's over the stride, or one cell less, as after a first convolution without full
    padding (AlexNet: 31 cells for 512 pixels). Boxes are fractions of the map; with fewer cells they would be shifted.
    """
    extractor = build(name, layer).extractor
    (output,) = _outputs(extractor).values()
    source = negative_source(extractor, output)
    if source is not None:
        raise UnknownName(
            f"{name}:{layer} can be negative (by {source}), but NMF needs non-negative activations; "
            f"{usable(name, layer)}"
        )
    with FlopCounterMode(display=False) as counter:
        shapes = _shapes(extractor, COST_SIDES)
    shape, stride = shapes.get(output), _strides(extractor, shapes).get(output)
    if shape is None or stride is None:
        output_shape = "no output" if shape is None else " x ".join(map(str, shape))
        raise UnknownName(
            f"{name}:{layer} is not a feature map that covers images of any size: {output_shape} for {COST_SIDES[0]} x "
            f"{COST_SIDES[1]}; {usable(name, layer)}"
        )
    return Cut(shape[1], stride, counter.get_total_flops() / 2e9)


@cache
def usable_layers(name: str) -> tuple[str, ...]:
    """Return the layers that `measure` accepts, in the order of execution."""
    names = _layers(name)
    wanted = {layer: layer for layer in names}
    # Finding the outputs of every layer takes a second: in the mode for training, whose graph is not used, none are.
    traced = create_feature_extractor(
        _classifier(name), train_return_nodes={}, eval_return_nodes=wanted, suppress_diff_warning=True
    ).eval()
    strides = _strides(traced, _shapes(traced, COST_SIDES))
    outputs = zip(names, _outputs(traced).values(), strict=True)
    return tuple(layer for layer, node in outputs if node in strides and negative_source(traced, node) is None)


def usable(name: str, layer: str = "") -> str:
    """Return the hint of an error message: usable layers with similar names, and the deepest ones."""
    layers = usable_layers(name)
    similar = difflib.get_close_matches(layer, layers, n=3)
    hints = [f"similar: {', '.join(similar)}"] if similar else []
    return "; ".join([*hints, f"deepest usable layers: {', '.join(layers[: -_MAX_LAYERS - 1 : -1]) or 'none'}"])


def _published(name: str) -> Any:
    """Return torchvision's entry of the network's first ImageNet weights (untyped: torchvision has no types)."""
    return models.get_model_weights(name)["IMAGENET1K_V1"].value


def _classifier(name: str) -> nn.Module:
    """Build the whole network without values, in inference mode."""
    options = _OPTIONS.get(name, {})
    try:
        with torch.device("meta"):
            network: nn.Module = models.get_model(name, **options)
    except NotImplementedError:  # RegNet computes its widths with tensors that need values
        network = models.get_model(name, **options).to("meta")
    return network.eval()


@cache
def _layers(name: str) -> Sequence[str]:
    """Return the names of all layers of a network in inference mode, in the order of execution."""
    return tuple(get_graph_node_names(_classifier(name), suppress_diff_warning=True)[1])


def _outputs(extractor: GraphModule) -> Mapping[str, Node]:
    """Return the output nodes of an extractor's graph, by name."""
    return cast("Mapping[str, Node]", next(iter(reversed(extractor.graph.nodes))).args[0])


class _ShapesSeen(Interpreter):
    """Runs a network node by node and records the shape of every output."""

    def __init__(self, network: GraphModule) -> None:
        super().__init__(network)
        self.shapes: dict[Node, Shape] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def _shapes(extractor: GraphModule, sides: tuple[int, int]) -> Mapping[Node, Shape]:
    """Return the shape of every node's output for an image of these sides, up to the first node that fails."""
    seen = _ShapesSeen(extractor)
    with torch.inference_mode(), suppress(RuntimeError, ValueError, AssertionError):
        seen.run(torch.empty(1, 3, *sides, device="meta"))
    return seen.shapes


def _strides(extractor: GraphModule, shapes: Mapping[Node, Shape]) -> Mapping[Node, int]:
    """Return the stride in pixels of every node whose output is a feature map that covers images of any size.

    `shapes` are those for an image of COST_SIDES.
    """
    doubled, smallest = (_shapes(extractor, sides) for sides in (_DOUBLE_SIDES, _SMALLEST_SIDES))
    strides = {}
    for node in smallest.keys() & doubled.keys():
        shape, more = shapes[node], doubled[node][2:3]
        if len(shape) == 4 and more > shape[2:3]:
            stride = COST_SIDES[0] // (more[0] - shape[2])
            missing = [side // stride - cells for side, cells in zip(COST_SIDES, shape[2:], strict=True)]
            if all(0 <= cells <= 1 for cells in missing):
                strides[node] = stride
    return strides
