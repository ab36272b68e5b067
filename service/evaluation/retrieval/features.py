"""Cache descriptions on disk by the content of the photograph, so that none is computed twice."""

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
    """Hold a photograph to describe; pooled descriptors use only the cells that `crop` touches."""

    path: Path
    crop: Box = WHOLE_IMAGE


@dataclass(frozen=True)
class FeatureCache:
    """Cache descriptions in a folder, one file each. Files are written atomically, so a run can stop at any time.

    A file's name is the hash of the photograph's bytes, the crop, every setting that affects the result, and the format
    version: files of another version are ignored.
    """

    folder: Path
    describer: Describer

    def describe(
        self, pictures: Iterable[Picture], on_progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Mapping[Picture, Path]:
        """Describe pictures that are not cached, and return the path of each picture's description.

        `on_progress` receives the number of pictures done and in total. Raises BenchmarkUnreadable if a photograph
        cannot be read: a score without it would be wrong.
        """
        wanted = list(dict.fromkeys(pictures))
        self.folder.mkdir(parents=True, exist_ok=True)
        places: dict[Picture, Path] = {}
        with ThreadPoolExecutor(available_cores(), "decode") as pool:
            loaded = map_ahead(pool, self._load, wanted, ahead=2 * BATCH)
            for group in batched(loaded, BATCH):
                # checked again: two copies of a photograph may both be loaded before one is described
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
    """Hold a loaded picture; `decoded` is None if its description is cached at `place`."""

    picture: Picture
    place: Path
    decoded: DecodedImage | None


@contextmanager
def _named(path: Path) -> Iterator[str]:
    """Yield a photograph's name for messages; errors of the file become BenchmarkUnreadable."""
    name = printable(path)
    try:
        yield name
    except (WhatwhereError, OSError) as error:
        raise BenchmarkUnreadable(
            f"{name} cannot be described ({error}): a score without it would be wrong, fetch the file again"
        ) from error


def region_of(query: BenchmarkQuery, path: Path) -> Box | None:
    """Return a query's box in fractions of its picture, None for the whole picture.

    Raises BenchmarkUnreadable if the box exceeds the picture, or if the picture cannot be read.
    """
    if query.box is None:
        return None
    with _named(path) as name:
        size = upright_size(read_file(path, ImageLimits()), name)
    return query.region(*size)


def read_description(place: Path) -> Description:
    """Read a description that `FeatureCache.describe` wrote. Raises CollectionCorrupt if the file is corrupt."""
    try:
        return next(read_descriptions(place, [0]))
    except CollectionCorrupt as error:
        raise CollectionCorrupt(f"{place} is corrupt: delete it; the next run describes its picture again") from error
