"""Commands that are killed or find the disk full, and what they come to undisturbed: made once."""

import pytest

from tests.killing.kills import Harness


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """Give the situations, and what kills commands in them."""
    return Harness(tmp_path_factory.mktemp("killing"))
