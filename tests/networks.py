"""A small network of one's own, for tests that describe many pictures and look at something else."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import models

from tests import commands
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE

# By torch, as OpenVINO takes seconds to compile a network.
BY_TORCH = {ENGINE_VARIABLE: "torch"}


def small_network(folder: Path) -> tuple[str | Path, ...]:
    """Write seeded weights and whiteners for them, and return the options of `whatwhere index` that use them.

    A picture costs a quarter of what it costs by the default network.
    """
    weights, pictures, whiteners = (folder / name for name in ("weights.pth", "pictures", "whiteners"))
    torch.manual_seed(0)
    torch.save(models.shufflenet_v2_x0_5().state_dict(), weights)
    pictures.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (2, 16, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    network = ("--backbone", "shufflenet_v2_x0_5:stage4", "--weights", weights)
    arguments = ("whiten", pictures, "--output", whiteners, "--dimensions", "8", *network)
    done = commands.run(*arguments, environment=os.environ | BY_TORCH)
    assert done.returncode == 0, done.stderr
    return *network, "--whiteners", whiteners
