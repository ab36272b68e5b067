"""Ten thousand mutated inputs for what reads foreign bytes and text, the same each time."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests import fuzz, fuzz_decoders
from whatwhere.indexer.errors import UnreadableImage


@pytest.mark.parametrize(("kind", "inputs"), [("filters", 6_000), ("images", 4_000)])
def test_whatever_comes_is_read_or_refused_by_name(kind: str, inputs: int) -> None:
    """No other error comes out, each takes less than two seconds, and neither outcome is rare."""
    found = fuzz.fuzz_kind(kind, inputs, seed=1)

    assert found.wrong == []
    assert found.read > inputs / 20
    assert found.refused.total() > inputs / 20
    assert found.read + found.refused.total() == inputs


def test_decoders_of_camera_formats_neither_crash_nor_hang(tmp_path: Path) -> None:
    """In a child with limited memory; an input at fault would be kept."""
    found = fuzz_decoders.fuzz(300, 1, keep=tmp_path)

    assert found.wrong == []
    assert found.read + found.refused.total() == 300
    assert min(found.read, found.refused.total()) > 30


@pytest.mark.parametrize("inputs", [fuzz.images, fuzz.filters])
def test_the_seed_decides(inputs: Callable[[int], Iterator[bytes | str]]) -> None:
    """What went wrong once can be had again."""
    first, again, other = (list(islice(inputs(seed), 50)) for seed in (3, 3, 4))

    assert first == again
    assert first != other


def test_an_error_without_a_name_is_found_with_its_input() -> None:
    """Named ones are counted, others are listed; the command would end with 1."""

    def read(content: bytes) -> None:
        if content == b"bad":
            raise KeyError("oops")
        raise UnreadableImage("no picture")

    found = fuzz.fuzz(read, iter([b"good", b"bad", b"good"]))

    assert found.refused == {"UNREADABLE_IMAGE": 2}
    assert found.wrong == [f"KeyError: 'oops': {b'bad'.hex()}"]
    assert "1 wrong" in str(found)


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, and the slowest."""
    code = fuzz.main(["filters", "--inputs", "100", "--seed", "2"])

    printed = capsys.readouterr().out
    assert code == 0
    assert "INVALID_FILTER" in printed
    assert "the slowest took" in printed
