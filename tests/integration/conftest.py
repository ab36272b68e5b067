"""Commands that are killed or find the disk full, and what they come to undisturbed: made once."""

from collections.abc import Iterator

import pytest

from tests.killing.kills import Harness


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """Give the situations, and the fork servers that run commands in them."""
    with Harness(tmp_path_factory.mktemp("killing")) as started:
        yield started
