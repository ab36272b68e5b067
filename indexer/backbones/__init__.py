"""Named networks: upright pixels → non-negative activations. To add a network, add an entry to `BACKBONES`."""

from indexer.backbones.backbone import Backbone, choose_device, load_backbone
from indexer.backbones.registry import BACKBONES, DEFAULT_BACKBONE, BackboneSpec

__all__ = ["BACKBONES", "DEFAULT_BACKBONE", "Backbone", "BackboneSpec", "choose_device", "load_backbone"]
