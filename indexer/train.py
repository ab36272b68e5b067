"""Train whiteners on a folder of photographs: an independent, varied set, not the collection that will be searched."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer import whitening
from indexer.backbones import DEFAULT_BACKBONE, choose_device, load_backbone
from indexer.describe import DESCRIPTORS, FACTOR_DESCRIPTORS, Describer, check_descriptors, select_rows, unit_rows
from indexer.errors import InvalidRequest, WhatwhereError
from indexer.files import printable
from indexer.images import DecodedImage, ImageLimits, decode_image
from indexer.pipeline import DEFAULT_RANK, in_groups, map_ahead, read_file, scan

BATCH = 8
MAX_IMAGES = 20_000  # evenly chosen from more: 160,000 rows of 1280 floats, 0.8 GB a descriptor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """For which descriptors, at which length, from how many factors an image."""

    descriptors: tuple[str, ...] = FACTOR_DESCRIPTORS
    dimensions: int = whitening.DEFAULT_DIMENSIONS
    rank: int = DEFAULT_RANK
    device: str = "auto"


def train_whiteners(
    paths: Sequence[Path],
    output: Path,
    settings: TrainingSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Mapping[str, whitening.Whitener]:
    """Fit a whitener for each descriptor on the photographs at `paths`, write them into the folder `output`.

    Unreadable photographs are left out, with a warning. Raises InvalidRequest when fewer than two can be read.
    """
    settings = settings or TrainingSettings()
    descriptors = settings.descriptors
    check_descriptors(descriptors)
    files, _ = scan(paths)
    files = files[:: -(-len(files) // MAX_IMAGES) or 1]
    pooled = [name for name in DESCRIPTORS if name in descriptors and name not in FACTOR_DESCRIPTORS]
    describer = Describer(load_backbone(DEFAULT_BACKBONE, choose_device(settings.device)), settings.rank, pooled)
    rows, used = _rows(files, describer, descriptors, on_progress)
    if used < 2:
        raise InvalidRequest(f"{used} readable photographs at {', '.join(map(str, paths))}: give hundreds")
    if used < whitening.MINIMUM_IMAGES:
        log.warning(
            "only %d photographs: below %d a whitener fits their subjects rather than photographs, and harms retrieval",
            used,
            whitening.MINIMUM_IMAGES,
        )
    output.mkdir(parents=True, exist_ok=True)
    whiteners = {}
    for name, parts in rows.items():
        key = describer.whitener_key(name)
        trained_on = f"{used} photographs, rank {settings.rank}"
        whiteners[name] = whitening.fit(np.concatenate(parts), key, trained_on, settings.dimensions)
        whitening.save(whiteners[name], output / whitening.file_name(key.backbone, name))
    return whiteners


def _rows(
    files: Sequence[Path],
    describer: Describer,
    descriptors: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> tuple[dict[str, list[NDArray[np.float32]]], int]:
    """Return the local descriptors of all readable files, of length 1, and how many files that were."""
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in descriptors}
    done = used = 0
    with ThreadPoolExecutor(os.cpu_count(), "decode") as pool:
        for batch in in_groups(map_ahead(pool, _decoded, files, ahead=2 * BATCH), BATCH):
            pixels = [decoded.pixels for decoded in batch if decoded is not None]
            for description in describer.describe(pixels) if pixels else []:
                for name, parts in rows.items():
                    parts.append(unit_rows(select_rows(description, name).rows).numpy())
            done, used = done + len(batch), used + len(pixels)
            on_progress(done, len(files))
    return rows, used


def _decoded(path: Path) -> DecodedImage | None:
    try:
        return decode_image(read_file(path, ImageLimits()), printable(path))
    except (WhatwhereError, OSError) as error:
        log.warning("left out %s: %s", path, error)
        return None
