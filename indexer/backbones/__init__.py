"""Named networks: upright pixels → non-negative activations. To add a network, add an entry to `BACKBONES`."""

from indexer.backbones.backbone import DEFAULT_PRECISION, Backbone, choose_device, load_backbone
from indexer.backbones.engines import ENGINE_VARIABLE, choose_engine
from indexer.backbones.listing import list_backbones
from indexer.backbones.registry import BACKBONES, DEFAULT_BACKBONE, BackboneSpec, find_backbone

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "DEFAULT_PRECISION",
    "ENGINE_VARIABLE",
    "Backbone",
    "BackboneSpec",
    "choose_device",
    "choose_engine",
    "find_backbone",
    "list_backbones",
    "load_backbone",
]
