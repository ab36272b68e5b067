"""Each packaged network is loaded once a process, and sees each picture once a run of the tests.

Loading takes 1.5 s and a photograph 0.25 s, and the same few photographs are indexed in hundreds of tests. Nothing
changes a loaded network: a backbone keeps no state from one picture to the next, and on a CPU its engine is given one
picture at a time. So what it made of a picture is kept in files that all processes of the run share. Tests of networks
themselves import `load_backbone`, which is as it was.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from whatwhere.indexer.backbones.backbone import Backbone, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_PRECISION, ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.backbones.weights import PackagedWeights
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.pipeline import choose_recipe, train_whiteners
from whatwhere.service.evaluation.retrieval import run
from whatwhere.service.local import files
from whatwhere.service.search import searcher

ACTIVATIONS = "WHATWHERE_TESTS_ACTIVATIONS"  # the variable that names the folder; without it, none are kept


@contextmanager
def loading_once() -> Iterator[None]:
    """Let all that loads a network in the product share those with packaged weights."""
    load = functools.partial(_load, os.environ.get(ACTIVATIONS))
    with pytest.MonkeyPatch.context() as patch:
        for module in (choose_recipe, train_whiteners, searcher, run, files):
            patch.setattr(module, "load_backbone", load)
        yield


def _load(
    folder: str | None,
    name: str,
    device: torch.device,
    *,
    weights: Path | None = None,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> Backbone:
    packaged = weights is None and isinstance(find_backbone(name).weights, PackagedWeights)
    if not packaged:
        own = load_backbone(name, device, weights=weights, precision=precision, threads=threads)
        return _remembering(own, folder, f"{threads}")
    # As the engine has it, but no more than the tests are to take: OpenVINO's threads wait busily for the next picture.
    cores = available_cores()
    most = int(os.environ.get("OMP_NUM_THREADS", cores))
    return _loaded(folder, os.environ.get(ENGINE_VARIABLE), name, device, precision, min(threads or cores, most))


@functools.cache
def _loaded(
    folder: str | None, engine: str | None, name: str, device: torch.device, precision: str, threads: int
) -> Backbone:
    loaded = load_backbone(name, device, precision=precision, threads=threads)
    return _remembering(loaded, folder, f"{engine} {threads}")


def _remembering(backbone: Backbone, folder: str | None, how: str) -> Backbone:
    if folder is not None:
        spec, run = backbone.spec, backbone.engine.run
        what = (spec.name, spec.layer, backbone.weights_sha256, backbone.precision, backbone.device)
        key = f"{what} {backbone.engine.name} {how}"
        backbone.engine.run = lambda pixels: _kept(Path(folder), key, pixels, run)  # type: ignore[method-assign]
    return backbone


def _kept(
    folder: Path, key: str, pixels: NDArray[np.uint8], run: Callable[[NDArray[np.uint8]], torch.Tensor]
) -> torch.Tensor:
    """Return the activations of a picture that were kept, or compute and keep them."""
    name = hashlib.blake2b(f"{key} {torch.get_num_threads()} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    path = folder / f"{name}.npy"
    try:
        return torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):  # none yet, or not all of it: its writer was killed, or is not done
        activations = run(pixels)
        np.save(path, activations.cpu().numpy())
        return activations
