"""Feed mutated camera formats to their decoders, in a child process: `python -m tests.fuzz_decoders --inputs N`.

HEIC, AVIF, JPEG XL, JPEG 2000, MPO and RAW are decoded by C libraries: a fault may end the process, take all memory or
never return. They are called without the child in which the product contains them. The child here may take 2 GiB of
memory more than at its start; a parent starts another after each crash, and ends one that takes 10 s of the processor,
or waits for 2 minutes, for an input. Every input must be read, or rejected with a named error, within 2 s of
the processor; else it is written to `--keep` and named, and the exit code is 1. Input `number` of a seed is always the
same: `--start` goes on where a run ended.
"""

import argparse
import functools
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests import camera_formats as made
from tests.fuzz import LONGEST_S, mutated, read_image
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.indexer.images import decode
from whatwhere.indexer.images.decoder_process import OPENERS

MEMORY_BYTES = 2 << 30
HANGS_S, WAITS_S = 10.0, 120.0  # of the processor, and of the clock: the machine may be busy
_STATE = struct.Struct("<QQ")  # the number of the input at work, and how many were read


@dataclass
class Findings:
    """Count the outcomes; `wrong` names the inputs at fault."""

    inputs: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return a readable summary."""
        refused = ", ".join(f"{count:,} {kind}" for kind, count in self.refused.most_common()) or "none"
        return "\n".join(
            [*self.wrong, f"{self.inputs:,} inputs: {self.read:,} read; {refused}; {len(self.wrong)} wrong"]
        )


@functools.cache
def whole_files() -> list[bytes]:
    """Return small files of every camera format, which mutations start from."""
    picture = made.photograph((64, 48))
    transparent = picture.copy()
    transparent.putalpha(128)
    samples = np.asarray(picture).astype(np.uint16) * 257
    sensor = made.dng(picture)
    return [
        *(path.read_bytes() for path in sorted(made.HEIF_FOLDER.glob("*.heic"))),
        *(made.avif(picture, exif=made.exif(6)), made.avif(transparent)),
        *(made.jpegxl(picture), made.jpegxl(transparent), made.jpegxl(samples, lossless=True)),
        made.jpegxl_container(made.jpegxl(picture, lossless=True), made.tiff_exif(), compressed=True),
        *(made.jpeg2000(picture, made.tiff_exif(6)), made.jpeg2000(transparent)),
        made.saved(picture, "JPEG2000", no_jp2=True, tile_size=(32, 32)),
        *(sensor, made.dng(picture, preview=picture, orientation=6), made.dng(picture, make="NIKON CORPORATION")),
        *(b"IIRO" + sensor[4:], b"IIU\0" + sensor[4:], sensor[:8] + b"CR\2\0" + sensor[12:]),
        made.mpo(picture),
    ]


def mutated_file(seed: int, number: int) -> bytes:
    """Return the input of this number."""
    chance = random.Random(f"{seed} {number}")
    return mutated(chance, whole_files())


def fuzz(inputs: int, seed: int, *, start: int = 0, keep: Path | None = None) -> Findings:
    """Decode inputs in child processes, one after the other."""
    found, end = Findings(inputs=inputs), start + inputs
    while start < end:
        start = _watch_child(found, seed, start, end, keep)
    return found


def _watch_child(found: Findings, seed: int, start: int, end: int, keep: Path | None) -> int:
    """Run one child until it ends; return the number of the first input that it did not come to."""
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile("w+") as printed:
        file.truncate(mmap.PAGESIZE)
        state = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        _STATE.pack_into(state, 0, start, 0)
        arguments = [sys.executable, "-m", __name__, "--child", str(file.fileno()), str(seed), str(start), str(end)]
        if __name__ == "__main__":
            arguments[2] = "tests.fuzz_decoders"
        child = subprocess.Popen(arguments, pass_fds=[file.fileno()], stdout=printed, stderr=subprocess.DEVNULL)
        hung = _wait(child, state)
        number, read = _STATE.unpack_from(state, 0)
        found.read += read
        printed.seek(0)
        for line in printed.read().splitlines():
            kind, _, text = line.partition(" ")
            if kind == "wrong":
                _note(found, seed, int(text.partition(" ")[0]), text.partition(" ")[2], keep)
            else:
                found.refused[text] += 1
    if child.returncode == 0:
        return end
    _note(found, seed, number, "no answer" if hung else f"ended by {_name(-child.returncode)}", keep)
    return int(number) + 1


def _wait(child: "subprocess.Popen[bytes]", state: mmap.mmap) -> bool:
    """Wait for the end of a child; kill it, and return True, if one input takes too long."""
    last, used_s, since = None, 0.0, time.monotonic()
    while child.poll() is None:
        now = _STATE.unpack_from(state, 0)
        if now != last:
            last, used_s, since = now, _cpu_s(child.pid), time.monotonic()
        elif _cpu_s(child.pid) - used_s > HANGS_S or time.monotonic() - since > WAITS_S:
            child.kill()
            child.wait()
            return True
        time.sleep(0.05)
    return False


def _cpu_s(process: int) -> float:
    """Return the time that a process had of the processor."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _name(number: int) -> str:
    return signal.Signals(number).name if number > 0 else f"exit code {-number}"


def _note(found: Findings, seed: int, number: int, text: str, keep: Path | None) -> None:
    place = ""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"seed-{seed}-input-{number}.bin"
        path.write_bytes(mutated_file(seed, number))
        place = f": {path}"
    found.wrong.append(f"input {number} of seed {seed}: {text}{place}")


# --- the child ---------------------------------------------------------------------------------------------------


def _decode_all(descriptor: int, seed: int, start: int, end: int) -> None:
    state = mmap.mmap(descriptor, mmap.PAGESIZE)
    read = 0
    # Here, not in the child that contains them: a crash must be found.
    decode.FAMILIES = tuple(replace(each, open=OPENERS.get(each.name, each.open)) for each in decode.FAMILIES)
    for warm in whole_files():  # libraries, and threads, are loaded before the limit is set
        _outcome(warm)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    for number in range(start, end):
        _STATE.pack_into(state, 0, number, read)
        content = mutated_file(seed, number)
        started = time.thread_time()
        outcome = _outcome(content)
        took_s = time.thread_time() - started
        read += outcome == ""
        if outcome:
            print(outcome.replace("wrong", f"wrong {number}", 1), flush=True)  # noqa: T201 - the parent reads it
        if took_s > LONGEST_S:
            print(f"wrong {number} {took_s:.1f} s", flush=True)  # noqa: T201
    _STATE.pack_into(state, 0, end, read)


def _outcome(content: bytes) -> str:
    try:
        read_image(content)
    except WhatwhereError as error:
        return f"refused {error.reason}"
    except Exception as error:  # the fault that is looked for
        return f"wrong {type(error).__name__}: {error}".replace("\n", " ")
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz and print the outcome; return 1 if an input failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_decoders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="number of inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder of inputs at fault")
    parser.add_argument("--child", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _decode_all(*options.child)
        os._exit(0)  # what a decoder left behind may crash at exit
    found = fuzz(options.inputs, options.seed, start=options.start, keep=options.keep)
    print(found)  # noqa: T201 - a command
    return min(len(found.wrong), 1)


if __name__ == "__main__":
    raise SystemExit(main())
