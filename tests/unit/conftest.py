"""Photographs and their descriptions by the real network, made once; an empty catalogue."""

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import SCIKIT_IMAGE
from whatwhere.indexer.backbones.backbone import load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description

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


@pytest.fixture
def mortal() -> Iterator[None]:
    """Take root's right to read everything from this thread, where it has it."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    library, header = ctypes.CDLL(None), Header(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of the higher capabilities
    assert library.capget(ctypes.byref(header), sets) == 0
    before, overrides = sets[0], 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    sets[0] &= ~overrides
    assert library.capset(ctypes.byref(header), sets) == 0
    yield
    sets[0] = before
    assert library.capset(ctypes.byref(header), sets) == 0


@pytest.fixture
def path(address: Path | str) -> Path:
    """Give the path of a catalogue that is not there yet: who asks for it speaks of the SQLite file."""
    assert isinstance(address, Path)
    return address


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an SQLite file with the catalogue's tables and nothing in them: migrations take six times as long to run."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    Catalog.create(path).close()
    return path


@pytest.fixture
def catalog(address: Path | str, migrated: Path) -> Iterator[Catalog]:
    """Give a new catalogue, open for writing."""
    if isinstance(address, Path):
        shutil.copyfile(migrated, address)
    with Catalog.create(address) as opened:
        yield opened
