"""Named networks: upright pixels → non-negative activations. To add a network, add an entry to `BACKBONES`."""
