"""Save and load PCA whiteners, and find the ready-made ones of this package.

A whitener belongs to one descriptor of one network with one set of weights. Train it on an independent, varied set:
trained on a small or skewed collection itself, full whitening destroys retrieval (measured: mAP 95 → 49).
"""

import hashlib
import importlib.resources
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from whatwhere.indexer.errors import WhitenerUnavailable
from whatwhere.indexer.storage.files import system_error, write_durably

MINIMUM_IMAGES = 300  # a warning is given for fewer training images


@dataclass(frozen=True)
class WhitenerKey:
    """The network, layer, weights and descriptor that a whitener was fitted to."""

    backbone: str
    layer: str
    weights_sha256: str
    descriptor: str


@dataclass(frozen=True)
class Whitener:
    """PCA whitening, (x - mean) @ projection: `mean` [C], `projection` [C, D], both float32 of float16 precision."""

    key: WhitenerKey
    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    trained_on: str

    @property
    def dimensions(self) -> int:
        """The number of dimensions D of a whitened vector."""
        return int(self.projection.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of key, mean and projection, which determine the result."""
        digest = hashlib.sha256(json.dumps(asdict(self.key), sort_keys=True).encode())
        for array in (self.mean, self.projection):
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()


def save(whitener: Whitener, path: Path) -> None:
    """Save a whitener (safetensors, float16).

    Raises OSError if the file cannot be written.
    """
    metadata = {"whitener": json.dumps({"key": asdict(whitener.key), "trained_on": whitener.trained_on})}
    arrays = {"mean": whitener.mean.astype(np.float16), "projection": whitener.projection.astype(np.float16)}

    def write(temporary: Path) -> None:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:  # reports a full disk, too
            raise system_error(str(error), path) from error

    write_durably(path, write)


def load(path: Path) -> Whitener:
    """Load a whitener.

    Raises WhitenerUnavailable if the file is missing, corrupt or not a whitener.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads(file.metadata()["whitener"])
            mean, projection = (file.get_tensor(name).astype(np.float32) for name in ("mean", "projection"))
        whitener = Whitener(WhitenerKey(**described["key"]), mean, projection, described["trained_on"])
    except FileNotFoundError as error:
        raise WhitenerUnavailable(f"{path} is missing: train a whitener with `whatwhere whiten`") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WhitenerUnavailable(f"{path} is not a whitener ({error}): train one with `whatwhere whiten`") from error
    if (mean.shape, projection.ndim) != (projection.shape[:1], 2):
        raise WhitenerUnavailable(f"{path}: shapes of mean {mean.shape} and projection {projection.shape} do not match")
    return whitener


def holds(path: Path, fingerprint: str) -> bool:
    """Tell whether a file exists and contains the whitener with this fingerprint."""
    try:
        return load(path).fingerprint == fingerprint
    except WhitenerUnavailable:
        return False


def file_name(backbone: str, descriptor: str) -> str:
    """Return a whitener's file name in a folder of whiteners."""
    return f"{backbone}.{descriptor}.safetensors"


def find(key: WhitenerKey, folder: Path | None = None) -> Whitener:
    """Load the whitener for `key` from `folder`, by default from the ready-made ones of this package.

    Raises WhitenerUnavailable if it is missing, corrupt, or was fitted to another key.
    """
    shipped = folder is None
    folder = folder or Path(str(importlib.resources.files("whatwhere.indexer"))) / "whiteners"
    path = folder / file_name(key.backbone, key.descriptor)
    if shipped and not path.is_file():
        raise WhitenerUnavailable(
            f"no ready-made whitener for {key.descriptor} of {key.backbone}: train one on an independent, varied set "
            "with `whatwhere whiten PATH... --output DIR` and pass --whiteners DIR"
        )
    whitener = load(path)
    if whitener.key != key:
        raise WhitenerUnavailable(f"{path} was fitted to {whitener.key}, but a whitener for {key} is needed")
    return whitener
