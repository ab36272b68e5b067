"""Descriptions kept on disk by the content of the photograph: what was described once is never described again."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.batched import batched
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.collection.sealed import FORMAT_VERSION
from whatwhere.indexer.collection.shards import read_descriptions, write_shard
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import BenchmarkUnreadable, CollectionCorrupt, WhatwhereError
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.images.decode import SHORTER_SIDE, DecodedImage, decode_image, upright_size
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.loading import map_ahead
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.storage.files import printable
from whatwhere.service.evaluation.retrieval.benchmark import BenchmarkQuery

BATCH = 8


@dataclass(frozen=True)
class Picture:
    """A photograph to describe; of a `crop` the pooled descriptors see only the cells that it touches."""

    path: Path
    crop: Box = WHOLE_IMAGE


@dataclass(frozen=True)
class FeatureCache:
    """Descriptions in a folder, one file each, written whole or not at all. Stop it at any time, run it again.

    The name of a file is the hash of the photograph's bytes, of the crop, of every setting that decides the result and
    of the form of descriptions: what an older whatwhere kept is left alone.
    """

    folder: Path
    describer: Describer

    def describe(
        self, pictures: Iterable[Picture], on_progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Mapping[Picture, Path]:
        """Describe what is not kept yet and return where each picture's description lies.

        Raises BenchmarkUnreadable for a photograph that cannot be read: a score without it would be a wrong one.
        """
        wanted = list(dict.fromkeys(pictures))
        self.folder.mkdir(parents=True, exist_ok=True)
        places: dict[Picture, Path] = {}
        with ThreadPoolExecutor(available_cores(), "decode") as pool:
            loaded = map_ahead(pool, self._load, wanted, ahead=2 * BATCH)
            for group in batched(loaded, BATCH):
                # looked for again: of two copies of one photograph both may have been read before either was described
                fresh = {item.place: item for item in group if item.decoded is not None and not item.place.is_file()}
                self._keep(list(fresh.values()))
                places |= {item.picture: item.place for item in group}
                on_progress(len(places), len(wanted))
        return places

    def _keep(self, fresh: Sequence["_Loaded"]) -> None:
        for crop in dict.fromkeys(item.picture.crop for item in fresh):
            same = [item for item in fresh if item.picture.crop == crop]
            pixels = [item.decoded.pixels for item in same if item.decoded is not None]
            for item, description in zip(same, self.describer.describe(pixels, crop), strict=True):
                write_shard(item.place, [description])

    def _load(self, picture: Picture) -> "_Loaded":
        with _named(picture.path) as name:
            content = read_file(picture.path, ImageLimits())
            place = self.folder / f"{self._key(content, picture.crop)}.safetensors"
            return _Loaded(picture, place, None if place.is_file() else decode_image(content, name))

    def _key(self, content: bytes, crop: Box) -> str:
        settings = json.dumps([FORMAT_VERSION, *self.describer.fingerprint, SHORTER_SIDE, crop])
        return hashlib.sha256(hashlib.sha256(content).digest() + settings.encode()).hexdigest()


@dataclass(frozen=True)
class _Loaded:
    """A picture after reading; `decoded` is None where its description lies at `place` already."""

    picture: Picture
    place: Path
    decoded: DecodedImage | None


@contextmanager
def _named(path: Path) -> Iterator[str]:
    """Give a photograph's name for messages; whatever is wrong with the file becomes BenchmarkUnreadable."""
    name = printable(path)
    try:
        yield name
    except (WhatwhereError, OSError) as error:
        raise BenchmarkUnreadable(
            f"{name} cannot be described ({error}): a score without it would be wrong, fetch the file anew"
        ) from error


def region_of(query: BenchmarkQuery, path: Path) -> Box | None:
    """Return a query's box in fractions of its picture; BenchmarkUnreadable when it does not fit or cannot be read."""
    if query.box is None:
        return None
    with _named(path) as name:
        size = upright_size(read_file(path, ImageLimits()), name)
    return query.region(*size)


def read_description(place: Path) -> Description:
    """Return what `FeatureCache.describe` kept; CollectionCorrupt when the file is torn."""
    try:
        return next(read_descriptions(place, [0]))
    except CollectionCorrupt as error:
        raise CollectionCorrupt(f"{place} is torn: delete it, the next run describes its picture anew") from error
