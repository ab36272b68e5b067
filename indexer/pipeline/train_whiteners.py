"""Train whiteners on photographs: an independent, varied set, not the collection to search."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.backbones.backbone import choose_device, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_PRECISION
from whatwhere.indexer.batched import batched
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import Descriptor, find_descriptor, training_rows
from whatwhere.indexer.features.names import DEFAULT_DESCRIPTORS, DEFAULT_DIMENSIONS, DEFAULT_PRESET, DEFAULT_RANK
from whatwhere.indexer.features.whitener_fitting import fit
from whatwhere.indexer.images.decode import DecodedImage, decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.loading import map_ahead
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.scan import find
from whatwhere.indexer.sources.uris import name_of, shown

BATCH = 8
MAX_IMAGES = 5_000  # evenly spaced among more: 200,000 cells of 1280 floats, 1 GB, twice that during the fit

log = logging.getLogger(__name__)

_File = TypeVar("_File")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training: descriptors, length of the vectors, factors per image, network and weights."""

    descriptors: tuple[str, ...] = DEFAULT_DESCRIPTORS
    preset: str = DEFAULT_PRESET
    dimensions: int = DEFAULT_DIMENSIONS
    rank: int = DEFAULT_RANK
    device: str = "auto"
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None  # a checkpoint to use instead of the published one
    precision: str = DEFAULT_PRECISION


def train_whiteners(
    paths: Sequence[Path | str],
    output: Path,
    settings: TrainingSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Mapping[str, whitening.Whitener]:
    """Fit the whiteners of the descriptors on the photographs at `paths` and write them to the folder `output`.

    Return them by the name of their training rows, which several descriptors may share. `on_progress` is called with
    (done, total). Unreadable photographs are skipped with a warning. Raises InvalidRequest if fewer than two are
    readable, and the errors of loading a backbone.
    """
    settings = settings or TrainingSettings()
    names = whiteners_of([find_descriptor(name, settings.preset) for name in settings.descriptors])
    uris = evenly_chosen(list(find(paths).pictures))
    backbone = load_backbone(
        settings.backbone, choose_device(settings.device), weights=settings.weights, precision=settings.precision
    )
    describer = Describer(backbone, settings.rank, [name for name in names if name in POOLED])
    whiteners = fit_whiteners(_descriptions(uris, describer, on_progress), describer, names, settings.dimensions)
    output.mkdir(parents=True, exist_ok=True)
    for name, whitener in whiteners.items():
        whitening.save(whitener, output / whitening.file_name(whitener.key.backbone, name))
    return whiteners


def whiteners_of(methods: Iterable[Descriptor]) -> tuple[str, ...]:
    """Return the distinct names of the training rows of the descriptors' whiteners."""
    return tuple(dict.fromkeys(name for method in methods for name in method.whiteners))


def evenly_chosen(files: Sequence[_File]) -> Sequence[_File]:
    """Return at most MAX_IMAGES of the files, evenly spaced."""
    return files[:: -(-len(files) // MAX_IMAGES) or 1]


def fit_whiteners(
    descriptions: Iterable[Description], describer: Describer, names: Sequence[str], dimensions: int
) -> Mapping[str, whitening.Whitener]:
    """Fit a whitener to the training rows of each name (see `descriptors.training_rows`) of all descriptions.

    Raises InvalidRequest for fewer than two photographs; logs a warning below whitening.MINIMUM_IMAGES.
    """
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    used = 0
    for description in descriptions:
        used += 1
        for name, parts in rows.items():
            parts.append(training_rows(name, description).numpy())
    if used < 2:
        raise InvalidRequest(f"{used} readable photographs are too few to train whiteners: give hundreds")
    if used < whitening.MINIMUM_IMAGES:
        log.warning(
            "only %d photographs: a whitener that is trained on fewer than %d overfits and harms retrieval",
            used,
            whitening.MINIMUM_IMAGES,
        )
    trained_on = f"{used} photographs, rank {describer.rank}"
    return {
        name: fit(np.concatenate(parts), describer.whitener_key(name), trained_on, dimensions)
        for name, parts in rows.items()
    }


def _descriptions(
    uris: Sequence[str], describer: Describer, on_progress: Callable[[int, int], None]
) -> Iterator[Description]:
    """Describe all readable photographs."""
    done = 0
    with ThreadPoolExecutor(available_cores(), "decode") as pool:
        for batch in batched(map_ahead(pool, partial(_decoded, Remote()), uris, ahead=2 * BATCH), BATCH):
            yield from describer.describe([decoded.pixels for decoded in batch if decoded is not None])
            done += len(batch)
            on_progress(done, len(uris))


def _decoded(remote: Remote, uri: str) -> DecodedImage | None:
    try:
        return decode_image(read(uri, ImageLimits(), remote).content, name_of(uri))
    except (WhatwhereError, OSError) as error:
        log.warning("skipped %s: %s", shown(uri), error)
        return None
