"""Choose the network and the recipe of a run: from the settings, else the collection, else the defaults."""

from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_PRECISION
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.names import (
    DEFAULT_DESCRIPTORS,
    DEFAULT_PRESET,
    DEFAULT_RANK,
    DESCRIPTORS,
    MAX_RANK,
    pooled_by,
)
from whatwhere.indexer.images.decode import SHORTER_SIDE
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.indexer.vectors.names import AUTO


def choose_backbone(collection: CollectionAddress, known: Recipe | None, settings: IndexSettings) -> Backbone:
    """Load the network of the settings, else that of the collection or the default, with the weights of the settings.

    Raises UnknownName, CollectionMismatch if the collection has another layer or other weights, and the errors of
    loading a backbone.
    """
    spec = find_backbone(settings.backbone or (known.backbone if known else DEFAULT_BACKBONE))
    if known and known.backbone == spec.name and settings.weights is None:
        # Before the published weights are downloaded for a collection with other weights.
        known.require_network(spec.layer, spec.weights.sha256_prefix, collection)
    precision = settings.precision or (known.precision if known else DEFAULT_PRECISION)
    device = choose_device(settings.device)
    return load_backbone(spec.name, device, weights=settings.weights, precision=precision, threads=settings.threads)


def choose_recipe(known: Recipe | None, backbone: Backbone, settings: IndexSettings) -> Recipe:
    """Return the recipe of the settings, completed by the collection's own or the defaults. Raises InvalidRequest."""
    rank = settings.rank if settings.rank is not None else (known.rank if known else DEFAULT_RANK)
    if not 1 <= rank <= MAX_RANK:
        raise InvalidRequest(f"rank {rank} is out of range: give 1 to {MAX_RANK} factors per image", field="rank")
    if settings.batch_size < 1:
        raise InvalidRequest(f"batch size {settings.batch_size} is out of range: give 1 or more", field="batch_size")
    preset = settings.preset or (known.preset if known else DEFAULT_PRESET)
    chosen = settings.descriptors or (known.descriptors if known else DEFAULT_DESCRIPTORS)
    methods = {name: find_descriptor(name, preset) for name in chosen}
    return Recipe(
        backbone.spec.name,
        backbone.spec.layer,
        backbone.weights_sha256,
        rank,
        SHORTER_SIDE,
        precision=backbone.precision,
        pooled=known.pooled if known else pooled_by(methods.values()),
        descriptors=tuple(name for name in DESCRIPTORS if name in methods),
        preset=preset,
        index_factory=known.index_factory if known else AUTO,
    )
