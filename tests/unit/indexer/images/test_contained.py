"""A decoder that crashes, hangs or is left alone costs a child process, never this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import camera_formats as made
from tests.waiting import wait_until
from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images import contained
from whatwhere.indexer.images.decode import decode_image, open_picture, upright_size
from whatwhere.indexer.images.decoder_process import MEMORY_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children() -> set[int]:
    """Return the processes that this one has started and that run."""
    return set(map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()))


@pytest.fixture(autouse=True)
def _from_none() -> Iterator[None]:
    contained._end_all()
    yield
    contained._end_all()


def started() -> tuple[object, int]:
    """Open a picture and return the child that holds it."""
    before = children()
    picture = open_picture(made.heic())
    (child,) = children() - before
    return picture, child


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_of_the_decoder_is_an_error_of_the_picture(number: signal.Signals) -> None:
    """The next picture gets another child."""
    picture, child = started()
    os.kill(child, number)

    with pytest.raises(UnreadableImage, match=rf"HEIC that crashes its decoder \({number.name}\)"):
        picture.load()  # type: ignore[attr-defined]
    assert made.difference(decode_image(made.heic(), "x", shorter_side=None).pixels) < 4
    assert child not in children()


def test_a_child_that_ended_between_pictures_costs_none() -> None:
    """It is replaced."""
    before = children()
    decode_image(made.heic(), "x")
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: "Z" in Path(f"/proc/{child}/stat").read_text())

    assert decode_image(made.heic(), "x").width == 320
    assert child not in children()


def test_a_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline."""
    picture, child = started()
    monkeypatch.setattr(contained, "DEADLINE_S", 0.2)
    os.kill(child, signal.SIGSTOP)

    with pytest.raises(UnreadableImage, match=r"gave no answer within 0 s"):
        picture.load()  # type: ignore[attr-defined]
    assert child not in children()


def test_children_are_kept_and_have_limited_memory() -> None:
    """One serves picture after picture, refused ones and headers only, too."""
    before = children()
    for name, (content, _) in made.one_of_each().items():
        upright_size(content, name)
        decode_image(content, name)
        with pytest.raises(UnreadableImage):
            decode_image(content[:200], name)

    (child,) = children() - before
    limits = Path(f"/proc/{child}/limits").read_text()
    assert f"Max address space         {MEMORY_BYTES}" in limits


def test_the_child_gives_the_same_pixels(tmp_path: Path) -> None:
    """As its decoders do here."""
    from whatwhere.indexer.images.decoder_process import OPENERS  # noqa: PLC0415

    for name, family in (("photo.heic", "HEIC"), ("photo.jxl", "JPEG XL"), ("photo.dng", "RAW")):
        content = made.one_of_each()[name][0]
        with open_picture(content) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(OPENERS[family](content)))


def test_children_end_with_a_process_that_is_killed() -> None:
    """Their input ends."""
    code = f"""
import os, signal, sys
from pathlib import Path
from whatwhere.indexer.images.decode import upright_size
upright_size(Path({str(made.HEIF_FOLDER / "photo.heic")!r}).read_bytes(), "x")
print(Path(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read_text(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    child = int(done.stdout)

    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


def test_a_forked_process_starts_children_of_its_own() -> None:
    """Two processes must not speak to one child."""
    decode_image(made.heic(), "x")
    process = os.fork()
    if process == 0:
        try:
            own = not contained._idle and decode_image(made.heic(), "x").width == 320
        finally:
            contained._end_all()
            os._exit(0 if own else 1)

    assert os.waitpid(process, 0)[1] == 0
    assert decode_image(made.heic(), "x").width == 320


def test_a_picture_that_is_collected_under_the_lock_gives_its_child_back() -> None:
    """Garbage may be collected anywhere, also while a child is taken."""
    picture, child = started()
    with contained._lock:
        del picture

    assert decode_image(made.heic(), "x").width == 320
    assert child in children()
