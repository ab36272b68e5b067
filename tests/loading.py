"""Each packaged network is loaded once a process: that takes 1.5 s, and indexing a small picture 0.1 s.

Nothing changes a loaded network: a backbone keeps no state from one picture to the next. Tests of loading itself import
`load_backbone`, which is as it was.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from whatwhere.indexer.backbones.backbone import Backbone, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_PRECISION, ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.backbones.weights import PackagedWeights
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.pipeline import choose_recipe, train_whiteners
from whatwhere.service.evaluation.retrieval import run
from whatwhere.service.local import files
from whatwhere.service.search import searcher


@contextmanager
def loading_once() -> Iterator[None]:
    """Let all that loads a network in the product share those with packaged weights."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (choose_recipe, train_whiteners, searcher, run, files):
            patch.setattr(module, "load_backbone", _load)
        yield


def _load(
    name: str,
    device: torch.device,
    *,
    weights: Path | None = None,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> Backbone:
    packaged = weights is None and isinstance(find_backbone(name).weights, PackagedWeights)
    if not packaged:
        return load_backbone(name, device, weights=weights, precision=precision, threads=threads)
    # As the engine has it, but no more than the tests are to take: OpenVINO's threads wait busily for the next picture.
    cores = available_cores()
    most = int(os.environ.get("OMP_NUM_THREADS", cores))
    return _loaded(os.environ.get(ENGINE_VARIABLE), name, device, precision, min(threads or cores, most))


@functools.cache
def _loaded(_engine: str | None, name: str, device: torch.device, precision: str, threads: int) -> Backbone:
    return load_backbone(name, device, precision=precision, threads=threads)
