"""Query → hits, on one generation of one collection; knows nothing of gRPC."""

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
from whatwhere.indexer.collection.pushdown import condition_of, facts_of
from whatwhere.indexer.collection.reader import CollectionReader
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    InvalidRequest,
    SourceUnavailable,
    WhatwhereError,
)
from whatwhere.indexer.features.describe import Describer, Description
from whatwhere.indexer.features.descriptors import expanded, find_descriptor, pooled_by
from whatwhere.indexer.features.regions import Region
from whatwhere.indexer.images.decode import ImageLimits, decode_image
from whatwhere.indexer.metadata.filters import Expression
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import BRIEF, Remote
from whatwhere.indexer.vectors.conditions import holds
from whatwhere.indexer.vectors.store import Index, Only
from whatwhere.service.request_context import RequestContext
from whatwhere.service.results import CollectionInfo, Hit, SearchResult, StoredImage
from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.description_cache import DescriptionCache
from whatwhere.service.search.localize import EXACT_SHORTER_SIDE, localize_exact, localize_stored


@dataclass(frozen=True)
class Example:
    """A picture to ask about, already checked: one of `content` (encoded) and `image_id` (a stored one's).

    `known_hash` is the content's SHA-256 in hex, where it has been computed already.
    """

    content: bytes | None = None
    image_id: int | None = None
    known_hash: str | None = field(default=None, repr=False, compare=False)

    @cached_property
    def content_hash(self) -> str:
        """The SHA-256 of the encoded picture in hex, "" for a stored image: computed once, when it is first needed."""
        if self.content is None:
            return ""
        return self.known_hash or hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Query(Example):
    """What to search for, already checked.

    `region` keeps only what is inside it, `concepts` only these factors where there are any, `avoided` leaves factors
    out; without a `descriptor` the collection's best is taken; `filter` leaves out the images that it does not hold
    for, as if they were not there; `offset` and `count` choose the page.
    """

    region: Region | None = None
    concepts: frozenset[int] = frozenset()
    avoided: frozenset[int] = frozenset()
    descriptor: str | None = None
    expansion_count: int = 0
    localize_count: int = 0
    exact: bool = False
    min_score: float | None = None
    filter: Expression | None = None
    offset: int = 0
    count: int = 10

    def chosen(self, rank: int) -> frozenset[int] | None:
        """Return the factors of `rank` to search for, None for all; InvalidRequest for one that there is not."""
        if not self.concepts and not self.avoided:
            return None
        for field_name, factors in (("concepts", self.concepts), ("avoided_concepts", self.avoided)):
            if unknown := sorted(factors - frozenset(range(rank))):
                raise InvalidRequest(
                    f"{field_name} has {unknown[0]}: the factors of an image are 0 to {rank - 1}", field=field_name
                )
        if left := (self.concepts or frozenset(range(rank))) - self.avoided:
            return left
        raise InvalidRequest("avoided_concepts leaves no factor to search for: avoid fewer", field="avoided_concepts")


@dataclass
class Searcher:
    """Searches one generation. Safe to use from several threads; all generations use one network."""

    collection: CollectionReader
    describer: Describer
    limits: ImageLimits = field(default_factory=ImageLimits)
    network: InferenceBatcher = field(default_factory=InferenceBatcher)
    uploads: DescriptionCache = field(default_factory=DescriptionCache)
    remote: Remote = field(default_factory=partial(Remote, BRIEF))  # few tries, short times: somebody waits

    @property
    def generation(self) -> int:
        """The number of the generation."""
        return self.collection.manifest.number

    @property
    def latest_generation(self) -> int:
        """The number of the newest published generation, this one's where none can be read."""
        try:
            return self.collection.layout.current_number() or self.generation
        except (CollectionCorrupt, OSError):
            return self.generation  # who follows the collection reports that

    @property
    def image_count(self) -> int:
        """How many images can be found."""
        return self.collection.manifest.image_count

    def on(self, collection: CollectionReader) -> "Searcher":
        """Return a searcher of another generation with the same network; CollectionMismatch where that does not fit."""
        recipe = collection.recipe
        if not recipe.describes_as(self.collection.recipe):
            raise CollectionMismatch(
                f"generation {collection.manifest.number} of {collection.layout} was described by another network "
                "or in another way than the one being served: restart the server to serve it"
            )
        describer = Describer(self.describer.backbone, recipe.rank, pooled_by(recipe.methods))
        return replace(self, collection=collection, describer=describer)

    def warm(self) -> None:
        """Search every descriptor once, so that the first request need not wait for the disk."""
        for name, entry in self.collection.manifest.indexes.items():
            self.collection.index(name).vectors.search(np.zeros(entry.dimensions, dtype=np.float32), 1)

    def try_network(self) -> None:
        """Describe a small grey picture; raises what that raises."""
        self.network.describe(self.describer, np.full((64, 64, 3), 127, dtype=np.uint8))

    def try_stores(self) -> None:
        """Ask the catalogue and the store of the vectors for little; raises what that raises."""
        self.collection.catalog.images_by_id(self.collection.ids[:1].tolist())
        self.collection.index().vectors.ping()

    def search(self, query: Query, ticket: RequestContext | None = None) -> SearchResult:
        """Return one page of hits, best first; those that were removed meanwhile are left out.

        Where the store of the vectors answers the filter, that sees metadata as of the generation: what fits by now is
        found from the next one on, what does no longer is left out.

        Raises the errors of reading an image, ImageNotFound, DescriptorNotIndexed, RegionNotSupported, and
        SourceUnavailable (exact localisation without a readable file); DeadlineExceeded or RequestCancelled where the
        ticket dies before an expensive step.
        """
        ticket = ticket or RequestContext()
        index = self.collection.index(query.descriptor)
        method = find_descriptor(index.descriptor, self.collection.recipe.preset)
        chosen = query.chosen(self.collection.recipe.rank)
        # The baselines are cropped; factors are chosen by the region.
        crop = WHOLE_IMAGE if method.uses_factors else query.region or WHOLE_IMAGE
        description = self.describe(query, ticket, crop)
        cropped = query.content is not None and not method.uses_factors
        selections = method.select(description, None if cropped else query.region, chosen)
        with ticket.stage("search"):
            only = None if query.filter is None else self._only(index.vectors, query.filter)
            vector = method.vector(selections, index.whiteners)
            if query.expansion_count:
                vector = self._expanded(vector, query, only)
            scores, ids = index.vectors.search(vector, query.offset + query.count + 1, only)
            if query.min_score is not None:
                good = scores >= query.min_score
                scores, ids = scores[good], ids[good]
            page = slice(query.offset, query.offset + query.count)
            records = self._holding(self.collection.indexed_images(ids[page].tolist()), only)
        localized = list(records.values())[: query.localize_count]
        boxes = self._boxes(query, description, chosen, localized, ticket)
        return SearchResult(
            hits=tuple(
                Hit(to_stored_image(records[identifier]), score, boxes.get(identifier))
                for identifier, score in zip(ids[page].tolist(), scores[page].tolist(), strict=True)
                if identifier in records
            ),
            region_fallback=any(selection.fallback for selection in selections),
            kept_factor_count=max(selection.kept for selection in selections),
            has_more=len(ids) > page.stop,
        )

    def image(self, image_id: int) -> StoredImage:
        """Return one indexed image, or raise ImageNotFound."""
        return to_stored_image(self.collection.indexed_image(image_id))

    def images(self, *, after_id: int, count: int, matching: Expression | None = None) -> tuple[list[StoredImage], int]:
        """Return `count` images by id, those after `after_id`, and the last one's id where more follow, else 0.

        Those that were removed meanwhile are left out.
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
        """Return the sorted ids, of this generation, of the images that a filter holds for."""
        return self.collection.live(self.collection.catalog.ids_where(expression))

    def _only(self, vectors: Index, expression: Expression) -> Only:
        """Return a filter as the store of the vectors can answer it, or the ids that the catalogue answers it by."""
        condition = condition_of(expression) if vectors.filterable else None
        return self.matching(expression) if condition is None else condition

    def _holding(self, records: dict[int, ImageRecord], only: Only | None) -> dict[int, ImageRecord]:
        """Return those of the images for which a condition still holds."""
        if only is None or isinstance(only, np.ndarray):
            return records
        return {image_id: record for image_id, record in records.items() if holds(only, facts_of(record))}

    def describe(self, example: Example, ticket: RequestContext, crop: Region = WHOLE_IMAGE) -> Description:
        """Read a stored image's description, or describe an encoded picture; of that pooled rows see only `crop`.

        Raises the errors of reading an image, ImageNotFound, DeadlineExceeded and RequestCancelled.
        """
        if example.image_id is not None:
            return self.collection.description(self.collection.indexed_image(example.image_id))
        assert example.content is not None
        remembered = crop == WHOLE_IMAGE and self.uploads.capacity > 0
        key = (example.content_hash, self.describer.fingerprint) if remembered else None
        if key is not None and (known := self.uploads.find(key)) is not None:
            return known
        shorter_side = self.collection.recipe.shorter_side
        with ticket.stage("decode"):
            pixels = decode_image(
                example.content, "the query image", limits=self.limits, shorter_side=shorter_side
            ).pixels
        ticket.check()
        description = self.network.describe(self.describer, pixels, crop, ticket)
        if key is not None:
            self.uploads.keep(key, description)
        return description

    def own_id(self, example: Example) -> int | None:
        """Return the id of the stored image of the same content as the picture, where there is one."""
        if example.image_id is not None:
            return example.image_id
        return self.collection.catalog.id_of_content(example.content_hash)

    def read_source(self, record: ImageRecord) -> bytes:
        """Return the bytes of a stored image's file, as `read_source` does."""
        return read_source(record, self.remote)

    def activations(self, example: Example, others: Sequence[ImageRecord], ticket: RequestContext) -> list[Tensor]:
        """Return new activations [h, w, C] of a picture and of stored images, at a shorter side of EXACT_SHORTER_SIDE.

        Raises SourceUnavailable where a stored image's file cannot be read.
        """
        own = example.content
        if own is None:
            own = self.read_source(self.collection.indexed_image(example.image_id or 0))
        pictures = []
        for content in itertools.chain([own], map(self.read_source, others)):  # one file in memory at a time
            ticket.check()
            decoded = decode_image(content, "a picture", limits=ImageLimits(), shorter_side=EXACT_SHORTER_SIDE)
            pictures.append(decoded.pixels)
        return self.network.run(lambda: self.describer.backbone.activations(pictures), ticket)

    def _expanded(self, vector: NDArray[np.float32], query: Query, only: Only | None) -> NDArray[np.float32]:
        """Add the descriptors of the first results, the query's own stored image left out, and renormalise."""
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
        ticket: RequestContext,
    ) -> Mapping[int, Box | None]:
        if not found:
            return {}
        with ticket.stage("localise"):
            if query.exact and chosen is None:
                query_grid, *grids = self.activations(query, found, ticket)
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
    network: InferenceBatcher | None = None,
    threads: int | None = None,
) -> Searcher:
    """Load the collection's network, with the checkpoint `weights` where it was made with one's own.

    CollectionMismatch when these weights, or without a file the published ones, are not the collection's.
    """
    recipe = collection.recipe
    layout = collection.layout
    if weights is None:  # before the published ones are fetched for a collection that was made with others
        spec = find_backbone(recipe.backbone)
        recipe.require_network(spec.layer, spec.weights.sha256_prefix, layout)
    backbone = load_backbone(
        recipe.backbone, choose_device(device), weights=weights, precision=recipe.precision, threads=threads
    )
    recipe.require_network(backbone.spec.layer, backbone.weights_sha256, layout)
    describer = Describer(backbone, recipe.rank, pooled_by(recipe.methods))
    return Searcher(collection, describer, limits or ImageLimits(), network or InferenceBatcher())


def to_stored_image(record: ImageRecord) -> StoredImage:
    """Return what callers see of a record."""
    return StoredImage(
        name=f"images/{record.id}",
        uris=record.uris,
        width=record.width,
        height=record.height,
        byte_count=record.byte_count,
        mime_type=record.mime_type,
        sha256=record.content_hash or "",
        created_at=record.created_at,
        metadata=dict(record.user_metadata),
    )


def read_source(record: ImageRecord, remote: Remote) -> bytes:
    """Return the bytes that were indexed; SourceUnavailable where no place holds them any more.

    Another content in the same place is not what the collection's owner chose to show.
    """
    for uri in record.uris:  # the catalogue's: whatever a client sends, nothing else is ever read
        try:
            content = read(uri, ImageLimits(), remote).content
        except (OSError, WhatwhereError):
            continue  # the same content may stand elsewhere
        if hashlib.sha256(content).hexdigest() == record.content_hash:
            return content
    raise SourceUnavailable(
        f"the file of images/{record.id} cannot be read, or holds another picture by now: put it back, or ask for "
        "stored localisation, which needs none"
    )
