"""torchvision's classifiers, cut: against torchvision itself, with padding that leaves no border, or refused."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.backbones import torchvision_networks
from whatwhere.indexer.backbones.backbone import Backbone, load_backbone
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.backbones.nonnegative import negative_source
from whatwhere.indexer.backbones.reflection import ReflectingConvolution, has_batch_norm
from whatwhere.indexer.backbones.registry import BACKBONES, find_backbone
from whatwhere.indexer.backbones.weights import PublishedWeights
from whatwhere.indexer.errors import UnknownName, WeightsUnavailable

pytestmark = [pytest.mark.usefixtures("one_thread", "by_torch"), pytest.mark.takes(80)]

CPU = torch.device("cpu")
NAMED = [name for name, spec in BACKBONES.items() if isinstance(spec.weights, PublishedWeights)]
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch run the networks: OpenVINO compiles one in seconds, and its activations are looked at where it is."""
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Give a photograph's pixels at a size."""
    with Image.open(QUERY_PHOTOGRAPH) as photograph:
        return np.array(photograph.convert("RGB").resize((width, height)))


def textures(count: int, seed: int, side: int = 160) -> Tensor:
    """Give pictures [count, 3, side, side] of noise in several scales and colours, alike everywhere."""
    random = torch.Generator().manual_seed(seed)
    pictures = []
    for number in range(count):
        grain = 2 + number % 6
        noise = torch.randn(1, 3, side + grain - 1, side + grain - 1, generator=random)
        smooth = functional.avg_pool2d(noise, grain, stride=1)
        pictures.append(smooth / smooth.std() + torch.randn(1, 3, 1, 1, generator=random) / 2)
    return torch.cat(pictures)


@functools.lru_cache(maxsize=3)  # as many as fit into 300 MB
def trained(name: str, seed: int = 0, side: int = 64) -> nn.Module:
    """Give torchvision's network, without its classifier, with seeded weights and the batch statistics of textures.

    It is shared: nobody changes it.
    """
    with torch.device("meta"):
        network: nn.Module = models.get_model(name).train()
    setattr(network, "fc" if hasattr(network, "fc") else "classifier", nn.Identity())
    network.to_empty(device="cpu")
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.momentum = None
    if has_batch_norm(network):
        with torch.no_grad():
            network(textures(8, seed, side))
    return network.eval()


def saved(network: nn.Module, path: Path) -> Path:
    """Write the network's weights to a file."""
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


# --- activations ------------------------------------------------------------------------------------------------


def _plain_until(features: nn.Sequential, last: int) -> Callable[[Tensor], Tensor]:
    return features[: last + 1]


def _mirrored(network: nn.Module) -> nn.Module:
    """Give a copy that pads by torch's own reflection."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "reflect"
    return network


def _resnet_stages(network: Any, stages: int) -> Callable[[Tensor], Tensor]:
    stem = [network.conv1, network.bn1, network.relu, network.maxpool]
    return nn.Sequential(*stem, *[network.layer1, network.layer2, network.layer3, network.layer4][:stages])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("vgg16", lambda network: _plain_until(network.features, 29)),
        ("vgg19", lambda network: _plain_until(network.features, 35)),
        ("vgg16-bn", lambda network: _plain_until(_mirrored(network).features, 42)),
        ("vgg19-bn", lambda network: _plain_until(_mirrored(network).features, 51)),
        ("resnet18", lambda network: _resnet_stages(_mirrored(network), 4)),
        ("resnet34", lambda network: _resnet_stages(_mirrored(network), 4)),
        ("resnet50", lambda network: _resnet_stages(_mirrored(network), 4)),
        ("resnet50:layer3", lambda network: _resnet_stages(_mirrored(network), 3)),
        ("alexnet:features.11", lambda network: _plain_until(network.features, 11)),
        ("mobilenet_v2:features.18", lambda network: _plain_until(_mirrored(network).features, 18)),
        ("densenet121:relu", lambda network: nn.Sequential(_mirrored(network).features, nn.ReLU())),
    ],
)
def test_activations_are_those_of_torchvision_cut_by_hand(
    tmp_path: Path, name: str, by_hand: Callable[[Any], Callable[[Tensor], Tensor]]
) -> None:
    """From a checkpoint of either format; those with batch norm pad by reflection, the others by zeros."""
    suffix = ".safetensors" if name in ("vgg16", "resnet18") else ".pth"
    network = trained(find_backbone(name).weights.network)
    pixels = picture(64, 96)

    backbone = load_backbone(name, CPU, weights=saved(network, tmp_path / f"weights{suffix}"))
    activations = backbone.activations([pixels])[0]

    mean, std = IMAGENET
    with torch.inference_mode():
        scaled = (torch.from_numpy(pixels) / 255 - mean) / std
        expected = by_hand(network)(scaled.permute(2, 0, 1).unsqueeze(0))[0].permute(1, 2, 0)
    torch.testing.assert_close(activations, expected, rtol=0, atol=1e-4 * float(expected.max()))
    assert expected.max() > 0.01


@pytest.mark.parametrize("name", NAMED)
def test_an_entry_states_what_its_network_does(name: str) -> None:
    """Channels, stride, cost and the scale of pixels, from the network and torchvision's own record."""
    spec = BACKBONES[name]
    network = spec.weights.network

    cut = torchvision_networks.measure(network, spec.layer)

    assert (cut.channels, cut.stride, cut.gmacs) == (spec.channels, spec.stride, pytest.approx(spec.gmacs, abs=0.05))
    assert torchvision_networks.pixel_scale(network) == (pytest.approx(spec.mean), pytest.approx(spec.std))


@pytest.mark.parametrize("name", [*NAMED, "resnet50:layer3"])
def test_named_networks_map_pictures_exactly(name: str) -> None:
    """Whatever multiples of 32 its sides are, a picture has sides / stride cells: also a very thin one."""
    spec = find_backbone(name)
    network = spec.build()
    pictures = [torch.empty(1, 3, *sides, device="meta") for sides in ((512, 672), (224, 320), (32, 2048), (64, 32))]

    shapes = {picture.shape[2:]: tuple(network(picture).shape) for picture in pictures}

    assert shapes == {
        (rows, columns): (1, spec.channels, rows // spec.stride, columns // spec.stride) for rows, columns in shapes
    }


def test_a_very_thin_picture_has_activations(tmp_path: Path) -> None:
    """A map of one row cannot be mirrored: its border goes on instead."""
    backbone = load_backbone("resnet18", CPU, weights=saved(trained("resnet18"), tmp_path / "w.pth"))

    activations = backbone.activations([picture(32, 128)])[0]

    assert activations.shape == (1, 4, 512)
    assert torch.isfinite(activations).all()


def test_half_precision_stays_near(tmp_path: Path) -> None:
    """Float32 comes out of either, and the activations point the same way."""
    path = saved(trained("resnet18"), tmp_path / "w.pth")
    pixels = picture(64, 96)

    half = load_backbone("resnet18", CPU, weights=path, precision="bfloat16").activations([pixels])[0]

    full = load_backbone("resnet18", CPU, weights=path).activations([pixels])[0]
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.99


def test_googlenet_scales_pixels_as_it_was_trained(tmp_path: Path) -> None:
    """Its published weights want TensorFlow's scale, which torchvision applies inside when it loads them."""
    torch.manual_seed(0)
    network = models.googlenet(aux_logits=True, transform_input=True, init_weights=False).eval()
    pixels = picture(64, 96)

    backbone = load_backbone("googlenet:conv1", CPU, weights=saved(network, tmp_path / "w.pth"))

    tensor = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1
    with torch.inference_mode():
        expected = _mirrored(network.conv1)(tensor)[0].permute(1, 2, 0)
    torch.testing.assert_close(backbone.activations([pixels])[0], expected, rtol=1e-4, atol=1e-4)


# --- padding ----------------------------------------------------------------------------------------------------


def border_share(activations: Tensor) -> float:
    """Return the energy of a cell on the border of maps [B, C, h, w] over that of one inside."""
    energy = activations.square().sum(dim=1).mean(dim=0)
    inside = torch.zeros_like(energy, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    return float(energy[~inside].mean() / energy[inside].mean())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer4"), ("resnet18", "layer3"), ("vgg11_bn", "features.27")]
)
def test_reflection_leaves_no_border_in_networks_with_batch_norm(name: str, layer: str, seed: int) -> None:
    """Pictures alike everywhere have maps alike everywhere; zeros around them would mark the border."""
    network = trained(name, seed, side=128)
    pictures = textures(4, seed + 100, side=224)
    by_zeros = models.feature_extraction.create_feature_extractor(network, {layer: "map"}, suppress_diff_warning=True)

    cut = torchvision_networks.build(name, layer)
    torchvision_networks.load(cut, network.state_dict())

    with torch.inference_mode():
        assert border_share(by_zeros.eval()(pictures)["map"]) < 0.8
        assert border_share(cut.eval()(pictures)) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("name", "expected"), [("vgg16", 0), ("vgg16_bn", 13), ("resnet18", 17), ("alexnet", 0)])
def test_only_networks_with_batch_norm_pad_by_reflection(name: str, expected: int) -> None:
    """Every padded convolution of theirs, and none of the others'."""
    last = {"vgg16": "features.29", "vgg16_bn": "features.42", "resnet18": "layer4", "alexnet": "features.11"}[name]

    modules = list(torchvision_networks.build(name, last).modules())

    assert sum(isinstance(module, ReflectingConvolution) for module in modules) == expected


@pytest.mark.parametrize("sides", [(5, 7), (2, 9), (1, 4), (4, 1), (1, 1)])
def test_a_reflecting_convolution_mirrors_what_it_can(sides: tuple[int, int]) -> None:
    """Against padding by hand in numpy; a side as short as the padding repeats its edge."""
    torch.manual_seed(0)
    convolution = ReflectingConvolution(2, 3, 3, stride=2, padding=1)
    x = torch.randn(1, 2, *sides)

    with torch.inference_mode():
        found = convolution(x)
        padded = x.numpy()
        for axis, size in zip((2, 3), sides, strict=True):
            width = [(1, 1) if number == axis else (0, 0) for number in range(4)]
            padded = np.pad(padded, width, mode="reflect" if size > 1 else "edge")
        expected = functional.conv2d(torch.from_numpy(padded), convolution.weight, convolution.bias, stride=2)

    torch.testing.assert_close(found, expected)


# --- names and layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50:layer3", ("resnet50:layer3", "layer3", 1024, 16)),
        ("resnet50:layer4", ("resnet50", "layer4", 2048, 32)),
        ("vgg16_bn", ("vgg16-bn", "features.42", 512, 16)),
        ("vgg16_bn:features.22", ("vgg16-bn:features.22", "features.22", 256, 4)),
        ("alexnet:features.11", ("alexnet:features.11", "features.11", 256, 16)),
        ("squeezenet1_1:features.12", ("squeezenet1_1:features.12", "features.12", 512, 16)),
        ("densenet121:features.relu0", ("densenet121:features.relu0", "features.relu0", 64, 2)),
        ("mobilenet_v2:features.18", ("mobilenet_v2:features.18", "features.18", 1280, 32)),
        (
            "mobilenet_v3_large:features.5.block.1",
            ("mobilenet_v3_large:features.5.block.1", "features.5.block.1", 120, 8),
        ),
        ("regnet_y_400mf:trunk_output", ("regnet_y_400mf:trunk_output", "trunk_output", 440, 32)),
        ("shufflenet_v2_x1_0:stage4", ("shufflenet_v2_x1_0:stage4", "stage4", 464, 32)),
        ("googlenet:inception5b", ("googlenet:inception5b", "inception5b", 1024, 32)),
    ],
)
def test_a_classifier_can_be_cut_at_a_layer(name: str, expected: tuple[str, str, int, int]) -> None:
    """One network at one layer has one name, whichever way it is written."""
    spec = find_backbone(name)

    assert (spec.name, spec.layer, spec.channels, spec.stride) == expected


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("vgg16:features.28", "Conv2d features.28"),
        ("resnet50:layer4.2.bn3", "BatchNorm2d layer4.2.bn3"),
        ("resnet50:layer4.2.add", "BatchNorm2d layer4.2.bn3"),
        ("mobilenet_v2:features.17", "BatchNorm2d features.17.conv.3"),
        ("mobilenet_v3_large:features.16", "Hardswish features.16"),
        ("efficientnet_b0:features.8", "SiLU features.8"),
        ("convnext_tiny:features.0", "LayerNorm2d features.0"),
        ("convnext_tiny:features.1.0.block.4", "GELU features.1.0.block.4"),
        ("vit_b_16:encoder.ln", "LayerNorm encoder.ln"),
    ],
)
def test_a_layer_that_can_be_negative_is_refused(name: str, culprit: str) -> None:
    """Decided on the network, not on a picture; the operation that does it is named."""
    with pytest.raises(UnknownName, match=f"{name} can be negative \\(by {culprit}\\), but NMF needs non-negative"):
        find_backbone(name)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("alexnet:classifier.2", "1 x 4096"),
        ("alexnet:avgpool", "1 x 256 x 6 x 6"),
        ("resnet18:avgpool", "1 x 512 x 1 x 1"),
        ("alexnet:features.12", "1 x 256 x 15 x 20"),  # nothing is left of it for the thinnest pictures
        ("inception_v3:Conv2d_2b_3x3", "1 x 64 x 253 x 333"),  # three cells short of the picture
    ],
)
def test_a_layer_that_is_no_map_of_the_picture_is_refused(name: str, given: str) -> None:
    """With the shape that it has, and the layers that could be used."""
    with pytest.raises(UnknownName, match=f"{name} is not a feature map .*: {given} for 512 x 672; .*usable layers: "):
        find_backbone(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "lenet",
            "backbone 'lenet' is unknown; there are: .*vgg16, .* and as NAME:LAYER alexnet, .*; like it: .*resnet",
        ),
        ("resnet51:layer4", "backbone 'resnet51:layer4' is unknown; .*; like it: .*resnet50"),
        ("alexnet", "alexnet needs a layer, alexnet:LAYER; deepest usable layers: features.11, features.9, "),
        ("resnet50:layr3.5.relu", "resnet50 has no layer 'layr3.5.relu'; similar: layer3.5.relu"),
        ("resnet50:layer", "resnet50 has no layer 'layer'; .*deepest usable layers: layer4.2.relu_2, "),
        ("efficientnet_b0:features.9", "no layer 'features.9'; deepest usable layers: none"),
    ],
)
def test_what_there_is_not_is_answered_with_what_there_is(name: str, words: str) -> None:
    """Networks and layers, those of a like name first."""
    with pytest.raises(UnknownName, match=words):
        find_backbone(name)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_every_layer_that_is_offered_can_be_used(name: str) -> None:
    """The remedy of an error is no other error."""
    offered = torchvision_networks.usable_layers(name)

    assert offered
    for layer in {offered[0], *offered[::40], offered[-1]}:
        assert torchvision_networks.measure(name, layer).channels > 0


class _Sums(nn.Module):
    """Adds something to what is not negative."""

    def __init__(self, added: Any) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x) + (self.added if isinstance(self.added, int) else self.added(x))


@pytest.mark.parametrize(
    ("network", "source"),
    [
        (_Sums(1), None),
        (_Sums(-1), "add"),
        (_Sums(torch.sigmoid), None),
        (_Sums(torch.tanh), "tanh"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Identity()), None),
        (nn.Sequential(nn.MaxPool2d(2)), "input_1"),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1)), "Conv2d 1"),
    ],
)
def test_signs_are_followed_through_the_graph(network: nn.Module, source: str | None) -> None:
    """Sums, pools and dropout keep what is not negative; anything unknown may not."""
    graph = torch.fx.symbolic_trace(network)
    output = next(iter(reversed(graph.graph.nodes))).args[0]

    assert negative_source(graph, output) == source


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet18() -> Iterator[dict[str, Tensor]]:
    """Give the weights of a ResNet-18."""
    return dict(trained("resnet18").state_dict())


def load_with(tmp_path: Path, weights: dict[str, Tensor], name: str = "resnet18:layer3") -> Backbone:
    torch.save(weights, tmp_path / "own.pth")
    return load_backbone(name, CPU, weights=tmp_path / "own.pth")


def test_layers_beyond_the_cut_may_be_there_or_not(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    """Also those of another number of classes."""
    without = {name: tensor for name, tensor in resnet18.items() if not name.startswith(("layer4", "fc"))}
    with_others = resnet18 | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    pixels = picture(64, 64)

    first, second = (load_with(tmp_path, weights).activations([pixels])[0] for weights in (without, with_others))

    assert torch.equal(first, second)


def test_what_is_missing_unexpected_and_misshapen_is_listed(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    """All of it in one error, and nothing is loaded in part."""
    weights = resnet18 | {"layer5.weight": torch.zeros(1), "conv1.weight": torch.zeros(64, 3, 3, 3)}
    del weights["layer3.0.bn1.running_mean"]

    with pytest.raises(WeightsUnavailable) as raised:
        load_with(tmp_path, weights)

    assert str(raised.value) == (
        f"{tmp_path / 'own.pth'} does not fit resnet18:layer3: missing: layer3.0.bn1.running_mean; "
        "unexpected: layer5.weight; of another shape: conv1.weight [64, 3, 3, 3], not [64, 3, 7, 7]. "
        "Use weights of this network, or another network"
    )


def test_weights_of_another_network_are_refused(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    """ResNet-34's are not ResNet-18's, though every name of the smaller is in the larger."""
    with pytest.raises(WeightsUnavailable, match=r"does not fit resnet34: missing: layer1\.2\.conv1\.weight"):
        load_with(tmp_path, resnet18, "resnet34")
    with pytest.raises(WeightsUnavailable, match=r"does not fit resnet18: unexpected: layer1\.2\.bn1\.bias"):
        load_with(tmp_path, dict(models.resnet34().state_dict()), "resnet18")


def test_densenets_old_names_are_read(tmp_path: Path) -> None:
    """The published checkpoints write norm.1 for norm1."""
    new = trained("densenet121").state_dict()
    old = {}
    for name, tensor in new.items():
        head, dot, tail = name.partition(".denselayer")
        for number in "12":
            for kind in ("norm", "relu", "conv"):
                tail = tail.replace(f"{kind}{number}", f"{kind}.{number}")
        old[head + dot + tail] = tensor
    assert old.keys() != new.keys()
    pixels = picture(64, 64)

    found, expected = (
        load_with(tmp_path, dict(weights), "densenet121:relu").activations([pixels])[0] for weights in (old, new)
    )

    assert torch.equal(found, expected)


def test_published_weights_are_found_in_a_folder_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18: dict[str, Tensor]
) -> None:
    """By their published name, in the folder that WHATWHERE_WEIGHTS names; the name holds the checksum's begin."""
    torch.save(resnet18, tmp_path / "own.pth")
    own = load_backbone("resnet18", CPU, weights=tmp_path / "own.pth")
    published = tmp_path / f"resnet18-{own.weights_sha256[:8]}.pth"
    (tmp_path / "own.pth").rename(published)
    monkeypatch.setenv("WHATWHERE_WEIGHTS", str(tmp_path))
    entry = replace(BACKBONES["resnet18"], weights=PublishedWeights("resnet18", published.name))
    monkeypatch.setitem(BACKBONES, "resnet18", entry)
    pixels = picture(64, 64)

    backbone = load_backbone("resnet18", CPU)

    assert backbone.weights_sha256 == own.weights_sha256
    assert torch.equal(backbone.activations([pixels])[0], own.activations([pixels])[0])


def test_other_weights_under_a_published_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18: dict[str, Tensor]
) -> None:
    """A name is not believed."""
    torch.save(resnet18, tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.setenv("WHATWHERE_WEIGHTS", str(tmp_path))

    with pytest.raises(WeightsUnavailable, match=r"resnet18-f37072fd\.pth has SHA-256 .* that begins with f37072fd"):
        load_backbone("resnet18", CPU)
