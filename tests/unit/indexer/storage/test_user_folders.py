"""A user of a container: without a home, and without a place for temporary files."""

import os
import tempfile
from pathlib import Path

import pytest

from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.collection.cache import cache_of
from whatwhere.indexer.errors import InvalidRequest, WeightsUnavailable
from whatwhere.indexer.storage.user_folders import cache_folder, temporary_folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user whom neither the environment nor passwd gives a home."""
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "WHATWHERE_CACHE", "WHATWHERE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)


def test_caches_are_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, homeless: None) -> None:
    """XDG_CACHE_HOME, else ~/.cache, else nowhere."""
    assert cache_folder() is None
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache")


def test_what_needs_a_home_names_its_variable(homeless: None) -> None:
    """Instead of a traceback, or a folder named ~."""
    with pytest.raises(InvalidRequest, match="this user has no home: set WHATWHERE_CACHE"):
        cache_of("s3://bucket/name")
    weights = find_backbone("resnet18").weights
    with pytest.raises(WeightsUnavailable, match="no home: set WHATWHERE_WEIGHTS to a folder with the file, or TORCH"):
        weights.locate()


def test_temporary_files_need_a_writable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one can be in shared memory."""

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    assert temporary_folder() == tempfile.gettempdir()
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(InvalidRequest, match="set TMPDIR"):
        temporary_folder()
    assert temporary_folder(small=True) == "/dev/shm"
