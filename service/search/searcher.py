"""Search one generation of a collection, independent of gRPC."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.indexer.backbones.backbone import choose_device, load_backbone
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.pushdown import condition_of, facts_of
from whatwhere.indexer.collection.reader import CollectionReader
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    InvalidRequest,
    SourceUnavailable,
    WhatwhereError,
)
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import expanded, find_descriptor
from whatwhere.indexer.features.names import pooled_by
from whatwhere.indexer.features.regions import Region
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.filters import Expression
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import BRIEF, Remote
from whatwhere.indexer.vectors.arrays import SCORE_TOLERANCE, Ids, Vectors
from whatwhere.indexer.vectors.conditions import holds
from whatwhere.indexer.vectors.store import Index, Only
from whatwhere.service.request_context import RequestContext
from whatwhere.service.results import CollectionInfo, Hit, SearchResult, StoredImage
from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.description_cache import DescriptionCache
from whatwhere.service.search.localize import EXACT_SHORTER_SIDE, localize_exact, localize_stored

_SPARE = 17  # results beyond a page: one tells that more follow, the others may come before it, see `Query`


@dataclass(frozen=True)
class Example:
    """A checked query image: either `content` (encoded) or `image_id` (a stored image).

    `known_hash` is the content's SHA-256 in hexadecimal, if it has been computed already.
    """

    content: bytes | None = None
    image_id: int | None = None
    known_hash: str | None = field(default=None, repr=False, compare=False)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the encoded image, in hexadecimal; "" for a stored image. Computed once, on first use."""
        if self.content is None:
            return ""
        return self.known_hash or hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Query(Example):
    """A checked search request.

    `region` keeps the factors inside it; None is the whole image. `factors` restricts the search to these factors of
    the query, empty means all; `avoided_factors` excludes factors. `descriptor` None is the best of the collection.
    `filter` excludes images before the search. `offset` and `count` choose the page; it begins after the score and the
    id `after`, if given: an approximate index may find further results before them when it is asked for more.
    """

    region: Region | None = None
    factors: frozenset[int] = frozenset()
    avoided_factors: frozenset[int] = frozenset()
    descriptor: str | None = None
    expansion_count: int = 0
    localize_count: int = 0
    exact: bool = False
    min_score: float | None = None
    filter: Expression | None = None
    offset: int = 0
    after: tuple[float, int] | None = None
    count: int = 10

    def chosen(self, rank: int) -> frozenset[int] | None:
        """Return the factors to search for, None for all.

        Raises InvalidRequest if a factor is not less than `rank`, or if none remains.
        """
        if not self.factors and not self.avoided_factors:
            return None
        for field_name, factors in (("concepts", self.factors), ("avoided_concepts", self.avoided_factors)):
            if unknown := sorted(factors - frozenset(range(rank))):
                raise InvalidRequest(
                    f"factor {unknown[0]} does not exist: the factors of an image are 0 to {rank - 1}", field=field_name
                )
        if left := (self.factors or frozenset(range(rank))) - self.avoided_factors:
            return left
        raise InvalidRequest(
            "every factor is avoided, none is left to search for: avoid fewer", field="avoided_concepts"
        )


@dataclass
class Searcher:
    """Searches one generation. Thread-safe; all generations share the batcher and the description cache."""

    collection: CollectionReader
    describer: Describer | None  # None: no network is loaded, only stored images can be asked about
    limits: ImageLimits = field(default_factory=ImageLimits)
    batcher: InferenceBatcher = field(default_factory=InferenceBatcher)
    description_cache: DescriptionCache = field(default_factory=DescriptionCache)
    remote: Remote = field(default_factory=partial(Remote, BRIEF))  # few retries and short timeouts: a client waits

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self.collection.manifest.number

    @property
    def seal(self) -> str:
        """Beginning of the generation's seal, which two collections do not share."""
        current = self.collection.standing.current
        return "" if current is None else current.seal[:16]

    @property
    def latest_generation(self) -> int:
        """Number of the newest published generation; of this generation if it cannot be read."""
        try:
            return Layout.at(self.collection.address).current_number() or self.generation
        except (CollectionCorrupt, OSError):
            return self.generation  # LiveSearcher reports that

    @property
    def image_count(self) -> int:
        """Number of searchable images."""
        return self.collection.manifest.image_count

    @property
    def _loaded(self) -> Describer:
        assert self.describer is not None  # describing needs the network
        return self.describer

    def on(self, collection: CollectionReader) -> "Searcher":
        """Return a searcher of another generation with the same network.

        Raises CollectionMismatch if that generation was described by another network or in another way.
        """
        recipe = collection.recipe
        if not recipe.describes_as(self.collection.recipe):
            raise CollectionMismatch(
                f"generation {collection.manifest.number} of {collection.layout} was described by another network "
                "or with other settings than the current one: restart the server to serve it"
            )
        describer = Describer(self._loaded.backbone, recipe.rank, pooled_by(recipe.methods))
        return replace(self, collection=collection, describer=describer)

    def warm(self) -> None:
        """Search every descriptor once, so that the first request does not wait for the disk."""
        for name, entry in self.collection.manifest.indexes.items():
            self.collection.index(name).vectors.search(np.zeros(entry.dimensions, dtype=np.float32), 1)

    def try_network(self) -> None:
        """Check the network by describing a small gray image; raises its errors."""
        self.batcher.describe(self._loaded, np.full((64, 64, 3), 127, dtype=np.uint8))

    def try_stores(self) -> None:
        """Check the catalog and the vector store by a small query each; raises their errors."""
        self.collection.catalog.images_by_id(self.collection.ids[:1].tolist())
        self.collection.index().vectors.ping()

    def search(self, query: Query, context: RequestContext | None = None) -> SearchResult:
        """Return one page of hits, best first, without images that were removed since the generation was published.

        If the vector store evaluates the filter, it uses the metadata of the generation: images whose metadata no
        longer match are left out, and images that match only since then appear from the next generation on.

        Raises the errors of decoding, ImageNotFound, DescriptorNotIndexed, RegionNotSupported, InvalidRequest for
        factors, SourceUnavailable (exact localization without a readable file), and DeadlineExceeded or
        RequestCancelled if the context dies before an expensive step.
        """
        context = context or RequestContext()
        index = self.collection.index(query.descriptor)
        method = find_descriptor(index.descriptor, self.collection.recipe.preset)
        chosen = query.chosen(self.collection.recipe.rank)
        # Baselines describe the cropped image; descriptors of factors select the factors inside the region.
        crop = WHOLE_IMAGE if method.uses_factors else query.region or WHOLE_IMAGE
        description = self.describe(query, context, crop)
        cropped = query.content is not None and not method.uses_factors
        selections = method.select(description, None if cropped else query.region, chosen)
        with context.stage("search"):
            only = None if query.filter is None else self._only(index.vectors, query.filter)
            vector = method.vector(selections, index.whiteners)
            if query.expansion_count:
                vector = self._expanded(vector, query, only)
            page, has_more = page_of(query, *index.vectors.search(vector, query.offset + query.count + _SPARE, only))
            records = self._holding(self.collection.indexed_images([image_id for _, image_id in page]), only)
        localized = list(records.values())[: query.localize_count]
        boxes = self._boxes(query, description, chosen, localized, context)
        return SearchResult(
            hits=tuple(
                Hit(to_stored_image(records[identifier]), score, boxes.get(identifier))
                for score, identifier in page
                if identifier in records
            ),
            region_fallback=any(selection.fallback for selection in selections),
            kept_factor_count=max(selection.kept for selection in selections),
            has_more=has_more,
            last=page[-1] if page else None,
        )

    def image(self, image_id: int) -> StoredImage:
        """Return one indexed image. Raises ImageNotFound."""
        return to_stored_image(self.collection.indexed_image(image_id))

    def images(self, *, after_id: int, count: int, matching: Expression | None = None) -> tuple[list[StoredImage], int]:
        """Return up to `count` images with ids above `after_id`, and the last id if more follow, else 0.

        Images that were removed since the generation was published are left out.
        """
        ids = self.collection.ids if matching is None else self.matching(matching)
        following = ids[np.searchsorted(ids, after_id, side="right") :]
        page = following[:count]
        last_id = int(page[-1]) if len(following) > count else 0
        return [to_stored_image(record) for record in self.collection.indexed_images(page.tolist()).values()], last_id

    def info(self) -> CollectionInfo:
        """Describe the generation."""
        manifest = self.collection.manifest
        return CollectionInfo(
            generation=manifest.number,
            latest_generation=self.latest_generation,
            image_count=manifest.image_count,
            backbone=manifest.recipe.backbone,
            rank=manifest.recipe.rank,
            descriptors=tuple(manifest.indexes),
            published_at=manifest.created_at,
        )

    def matching(self, expression: Expression) -> NDArray[np.int64]:
        """Return the sorted ids of this generation's images that match a filter, int64 [N]."""
        return self.collection.live(self.collection.catalog.ids_where(expression))

    def _only(self, vectors: Index, expression: Expression) -> Only:
        """Return a filter as a condition of the vector store, or as ids from the catalog if the store cannot filter."""
        condition = condition_of(expression) if vectors.filterable else None
        return self.matching(expression) if condition is None else condition

    def _holding(self, records: dict[int, ImageRecord], only: Only | None) -> dict[int, ImageRecord]:
        """Return the records that still satisfy a condition of the vector store."""
        if only is None or isinstance(only, np.ndarray):
            return records
        return {image_id: record for image_id, record in records.items() if holds(only, facts_of(record))}

    def describe(self, example: Example, context: RequestContext, crop: Region = WHOLE_IMAGE) -> Description:
        """Read a stored image's description, or describe an encoded image, with pooled rows from `crop` only.

        Raises the errors of decoding, ImageNotFound, DeadlineExceeded and RequestCancelled.
        """
        if example.image_id is not None:
            return self.collection.description(self.collection.indexed_image(example.image_id))
        assert example.content is not None
        cached = crop == WHOLE_IMAGE and self.description_cache.capacity > 0
        key = (example.content_hash, self._loaded.fingerprint) if cached else None
        if key is not None and (known := self.description_cache.find(key)) is not None:
            return known
        shorter_side = self.collection.recipe.shorter_side
        with context.stage("decode"):
            pixels = decode_image(
                example.content, "the query image", limits=self.limits, shorter_side=shorter_side
            ).pixels
        context.check()
        description = self.batcher.describe(self._loaded, pixels, crop, context)
        if key is not None:
            self.description_cache.keep(key, description)
        return description

    def own_id(self, example: Example) -> int | None:
        """Return the id of the stored image with the same content, None if there is none."""
        if example.image_id is not None:
            return example.image_id
        return self.collection.catalog.id_of_content(example.content_hash)

    def read_source(self, record: ImageRecord) -> bytes:
        """Return the bytes of a stored image's file, as the function `read_source` does."""
        return read_source(record, self.remote)

    def activations(self, example: Example, others: Sequence[ImageRecord], context: RequestContext) -> list[Tensor]:
        """Return new activations [h, w, C] of an image and of stored images, at a shorter side of EXACT_SHORTER_SIDE.

        Raises SourceUnavailable if the file of a stored image cannot be read.
        """
        own = example.content
        if own is None:
            own = self.read_source(self.collection.indexed_image(example.image_id or 0))
        pictures = []
        for content in itertools.chain([own], map(self.read_source, others)):  # one file in memory at a time
            context.check()
            decoded = decode_image(content, "an image", limits=ImageLimits(), shorter_side=EXACT_SHORTER_SIDE)
            pictures.append(decoded.pixels)
        return self.batcher.run(lambda: self._loaded.backbone.activations(pictures), context)

    def _expanded(self, vector: NDArray[np.float32], query: Query, only: Only | None) -> NDArray[np.float32]:
        """Add the vectors of the first results, without the query's own stored image, and normalize."""
        vectors = self.collection.index(query.descriptor).vectors
        own_id = self.own_id(query)
        _, ids = vectors.search(vector, query.expansion_count + 1, only)
        others = [int(found) for found in ids if found != own_id][: query.expansion_count]
        return expanded(vector, [vectors.vector(found) for found in others])

    def _boxes(
        self,
        query: Query,
        description: Description,
        chosen: frozenset[int] | None,
        found: Sequence[ImageRecord],
        context: RequestContext,
    ) -> Mapping[int, Box | None]:
        if not found:
            return {}
        with context.stage("localise"):
            if query.exact and chosen is None:
                query_grid, *grids = self.activations(query, found, context)
                boxes = localize_exact(query_grid, query.region, grids)
            else:
                factors = [self.collection.description(record).factors for record in found]
                boxes = localize_stored(description.factors, query.region, factors, chosen)
        return {record.id: box for record, box in zip(found, boxes, strict=True)}


def open_searcher(
    collection: CollectionReader,
    device: str = "auto",
    limits: ImageLimits | None = None,
    weights: Path | None = None,
    batcher: InferenceBatcher | None = None,
    threads: int | None = None,
) -> Searcher:
    """Load the collection's network, from the checkpoint `weights` if it was indexed with one.

    Raises CollectionMismatch if these weights, or the published ones without `weights`, are not the collection's.
    """
    recipe = collection.recipe
    layout = collection.layout
    if weights is None:  # fail before the published weights are downloaded for a collection made with others
        spec = find_backbone(recipe.backbone)
        recipe.require_network(spec.layer, spec.weights.sha256_prefix, layout)
    backbone = load_backbone(
        recipe.backbone, choose_device(device), weights=weights, precision=recipe.precision, threads=threads
    )
    recipe.require_network(backbone.spec.layer, backbone.weights_sha256, layout)
    describer = Describer(backbone, recipe.rank, pooled_by(recipe.methods))
    return Searcher(collection, describer, limits or ImageLimits(), batcher or InferenceBatcher())


def page_of(query: Query, scores: Vectors, ids: Ids) -> tuple[list[tuple[float, int]], bool]:
    """Return the scores and ids of a query's page of these best results, and whether more follow."""
    wanted = np.ones(len(ids), dtype=bool)
    if query.min_score is not None:
        wanted &= scores >= query.min_score - SCORE_TOLERANCE
    start = query.offset
    if query.after is not None:
        score, image_id = query.after
        wanted &= (scores < score) | ((scores == score) & (ids > image_id))
        start = 0
    kept = list(zip(scores[wanted].tolist(), ids[wanted].tolist(), strict=True))
    return kept[start : start + query.count], len(kept) > start + query.count


def to_stored_image(record: ImageRecord) -> StoredImage:
    """Return the public view of a catalog record."""
    return StoredImage(
        name=f"images/{record.id}",
        uris=record.uris,
        width_px=record.width,
        height_px=record.height,
        byte_count=record.byte_count,
        mime_type=record.mime_type,
        sha256=record.content_hash or "",
        create_time=record.created_at,
        metadata=dict(record.user_metadata),
    )


def read_source(record: ImageRecord, remote: Remote) -> bytes:
    """Return the indexed bytes of an image. Raises SourceUnavailable if no URI has them.

    Other content at the same URI is refused: the owner of the collection did not index it.
    """
    for uri in record.uris:  # from the catalog: no input of a client ever becomes a path
        try:
            content = read(uri, ImageLimits(), remote).content
        except (OSError, WhatwhereError):
            continue  # another URI may have the same content
        if hashlib.sha256(content).hexdigest() == record.content_hash:
            return content
    raise SourceUnavailable(
        f"the file of images/{record.id} cannot be read, or its content has changed: put it back, or use stored "
        "localization, which needs no files"
    )
