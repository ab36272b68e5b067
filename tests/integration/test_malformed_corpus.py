"""Hundreds of malformed files among good ones, indexed by the real command: none is lost, none does harm."""

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import commands
from tests.malformed import Entry, Expected, corpus, damaged, write
from tests.networks import BY_TORCH, small_network
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import INDEXED
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.storage.files import path_of_uri

pytestmark = pytest.mark.takes(40)

SEED = 1
DEADLINE_S = 240
# Measured: 2.5 GB. The network and its libraries take 0.8, the largest WebP that is allowed 1.6; what is decoded
# at the same time is small. (3.3 GB where large pictures are decoded side by side.)
PEAK_MEMORY_MB = 3_000
# Root reads everything, unless it gives up that right: here, and in the processes that it starts.
WITHOUT_RIGHTS = """
import ctypes, os
READ_ALL = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for right in READ_ALL:
        assert libc.prctl(24, right, 0, 0, 0) == 0  # PR_CAPBSET_DROP
        for place in range(3):  # effective, permitted, inheritable
            sets[place] &= ~(1 << right)
    assert libc.capset(header, sets) == 0
"""
MEASURED = """
import resource
from whatwhere.service.cli import main
try:
    main()
finally:
    with open({peak!r}, "w") as file:
        file.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
"""


@dataclass(frozen=True)
class Run:
    """A run over the corpus."""

    root: Path
    network: tuple[str | Path, ...]  # the options that name it
    exit_code: int
    output: str
    messages: str
    peak_mb: int
    indexed: Counter[str]  # how often each name is listed
    failed: dict[str, tuple[str, str]]  # name → reason and message


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """Give the corpus."""
    return corpus(SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, entries: Sequence[Entry]) -> Iterator[Path]:
    """Give the folder of the corpus."""
    made = tmp_path_factory.mktemp("corpus")
    write(entries, made)
    yield made
    shutil.rmtree(made)  # pytest would keep it, and stumble over names that it cannot print


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, entries: Sequence[Entry], folder: Path) -> Run:
    """Index the corpus, and have some files vanish when they have been listed and not yet read."""
    scratch = tmp_path_factory.mktemp("run")
    root = scratch / "corpus.ww"

    def vanish(running: commands.Process) -> None:
        while not root.exists() and running.poll() is None:  # it is made when the files have been listed
            time.sleep(0.02)
        for entry in entries:
            if entry.vanishes:
                (folder / entry.name).unlink()

    network = small_network(scratch)
    exit_code, peak_mb = index(folder, root, scratch, network, meanwhile=vanish)
    listed = json.loads(commands.run("images", "-c", root, "--state", "failed", "--json").stdout)
    with Catalog.open(Layout(root).catalog) as catalog:
        indexed = Counter(name_of(uri, folder) for image in catalog.images(state=INDEXED) for uri in image.uris)
    failed = {
        name_of(uri, folder): (image["failure_reason"], image["failure_message"])
        for image in listed
        for uri in image["uris"]
    }
    texts = ((scratch / name).read_text(errors="replace") for name in ("output", "messages"))
    return Run(root, network, exit_code, *texts, peak_mb, indexed, failed)


def index(
    folder: Path,
    root: Path,
    scratch: Path,
    network: Sequence[str | Path],
    meanwhile: Callable[[commands.Process], None] = lambda _: None,
) -> tuple[int, int]:
    """Run the command with many threads and return its exit code and its peak memory in MB."""
    peak = scratch / "peak"
    with (scratch / "messages").open("wb") as messages:
        process = commands.start(
            *("index", folder, "-c", root, "--workers", "8", *network),
            environment=os.environ | BY_TORCH | {"COLUMNS": "500"},
            before=WITHOUT_RIGHTS + MEASURED.format(peak=str(peak)),
            stderr=messages.fileno(),
        )
    with process:
        meanwhile(process)
        output, _ = process.communicate(DEADLINE_S)
    (scratch / "output").write_text(output)
    return process.wait(), int(peak.read_text())


def name_of(uri: str, folder: Path) -> str:
    return os.fspath(path_of_uri(uri).relative_to(folder))


def names(entries: Sequence[Entry], *expected: Expected) -> set[str]:
    return {entry.name for entry in entries if entry.expected in expected}


def test_the_corpus_is_large_and_the_same_for_the_same_seed(entries: Sequence[Entry], folder: Path) -> None:
    """At least 300 malformed files of distinct names; another seed has other bytes under them."""
    malformed = names(entries, Expected.FAILED, Expected.EITHER)
    for seed in (SEED, SEED + 1):
        made = damaged.good(np.random.default_rng(seed))  # the first part
        picture = next(entry for entry in made if entry.name == "good/lossless-webp.webp")
        picture.make(folder / f"again-{seed}.txt")

    assert len(malformed) >= 300
    first = (folder / "good/lossless-webp.webp").read_bytes()
    assert (folder / f"again-{SEED}.txt").read_bytes() == first
    assert (folder / f"again-{SEED + 1}.txt").read_bytes() != first


def test_the_run_ends_well(run: Run) -> None:
    """Exit code 0, no traceback, and the sums that the listings have."""
    assert run.exit_code == 0
    assert "Traceback" not in run.messages
    found = dict(re.findall(r"(described|failed|duplicates|unchanged) (\d+)", run.output))
    assert sum(map(int, found.values())) == run.indexed.total() + len(run.failed)


def test_all_good_files_are_in(run: Run, entries: Sequence[Entry]) -> None:
    """Whatever lies beside them; and of the malformed ones only those whose format cannot tell."""
    good = names(entries, Expected.GOOD)

    assert good - set(run.indexed) == set()
    assert set(run.indexed) - good <= names(entries, Expected.EITHER)


def test_every_bad_file_is_listed_with_its_reason(run: Run, entries: Sequence[Entry]) -> None:
    """The reason is the one expected, the message names the file and fits a line."""
    expected = {entry.name: entry.reason for entry in entries if entry.expected is Expected.FAILED}

    assert {name: run.failed.get(name, ("", ""))[0] for name in expected} == expected
    for name, (_, message) in run.failed.items():
        assert message.isprintable(), ascii(name)
        assert len(message) < 600


def test_nothing_is_lost_or_twice(run: Run, entries: Sequence[Entry]) -> None:
    """Each file that is called as an image is, once, in one of the two listings."""
    assert run.indexed.keys() | run.failed.keys() == names(entries, Expected.GOOD, Expected.FAILED, Expected.EITHER)
    assert run.indexed.keys() & run.failed.keys() == set()
    assert set(run.indexed.values()) == {1}


def test_memory_is_bounded(run: Run) -> None:
    """Eight decoding threads and bombs by the dozen cost what the largest allowed picture costs."""
    assert run.peak_mb < PEAK_MEMORY_MB


def test_what_is_printed_is_one_line_for_each_failure(run: Run) -> None:
    """No warning of a library for each of its entries, no character that a terminal would obey."""
    lines = run.messages.splitlines()
    ours = [line for line in lines if line.startswith("WARNING whatwhere.")]

    assert len(ours) == len(run.failed)
    assert all(re.search(r" source=file:///\S+ reason=[A-Z_]+$", line) for line in ours)
    assert len(lines) - len(ours) < 40  # of libtiff, which speaks for itself
    assert not re.search(r"[^\n -~]", run.messages)


def test_a_second_run_describes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    """What was found good or bad by its content is not tried again, and the collection stays as it is."""
    exit_code, _ = index(folder, run.root, tmp_path, run.network)

    assert exit_code == 0
    assert "described 0, " in (tmp_path / "output").read_text()
    assert Layout(run.root).current_number() == 1
