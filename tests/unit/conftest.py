"""Photographs and their descriptions by the real network, made once."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer.backbones import DEFAULT_BACKBONE, load_backbone
from indexer.describe import POOLED, Describer, Description
from tests.conftest import SCIKIT_IMAGE

NAMES = ("motorcycle_left", "motorcycle_right", "coffee", "chelsea")


@pytest.fixture(scope="session")
def describer() -> Describer:
    """Give a describer at rank 6 that keeps everything there is, on the CPU."""
    return Describer(load_backbone(DEFAULT_BACKBONE, torch.device("cpu")), 6, tuple(POOLED))


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Give the pixels of photographs, two of them of one size."""
    sizes = [(320, 224), (320, 224), (288, 192), (224, 224)]
    opened = [Image.open(SCIKIT_IMAGE / f"{name}.png") for name in NAMES]
    return [np.array(image.convert("RGB").resize(size)) for image, size in zip(opened, sizes, strict=True)]


@pytest.fixture(scope="session")
def described(describer: Describer, pictures: list[NDArray[np.uint8]]) -> list[Description]:
    """Give the descriptions of the photographs, made together."""
    return describer.describe(pictures)
