"""Kill a command in a situation, check the files, run it again, and compare with an undisturbed run.

The states that kills at steps leave can also be taken from one run that goes on: half the time.
"""

import hashlib
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.killing.children import Request, run
from tests.killing.collections import answers, contents, faults
from tests.killing.situations import Situation, situations
from whatwhere.indexer.errors import CollectionNotFound, WhatwhereError


@dataclass(frozen=True)
class Kill:
    """Define when a command is killed: before a step (the number of steps means after the last), or after a time."""

    situation: str
    before_step: int | None = None
    after_s: float | None = None

    def __str__(self) -> str:
        """Return the name of the moment."""
        return f"{self.situation}, " + (f"step {self.before_step}" if self.after_s is None else f"{self.after_s:.3f} s")


def every_step(situation: Situation) -> list[Kill]:
    """Return a kill before each step, and one after the last."""
    return [Kill(situation.name, step) for step in range(len(situation.steps) + 1)]


def telling_steps(situation: Situation) -> list[int]:
    """Return the steps before and after each that changes what a killed process leaves.

    An fsync does so only when the power fails, and the temporary file that is taken away first is hardly ever there.
    """
    changing = {
        step
        for step, name in enumerate(situation.steps)
        if not name.startswith("fsync") and not (name.startswith("unlink") and name.endswith(".tmp"))
    }
    return sorted(changing | {step + 1 for step in changing})


def random_moments(situation: Situation, number: int, random: np.random.Generator) -> list[Kill]:
    """Return kills at random times of the run."""
    return [Kill(situation.name, after_s=float(random.uniform(0, situation.duration_s))) for _ in range(number)]


class Harness:
    """Hold the situations in a scratch folder, and kill commands in them, a few at a time."""

    def __init__(self, scratch: Path, at_once: int = 2) -> None:
        self._scratch = scratch
        self._at_once = at_once
        self._numbers = count()
        self.situations = situations(scratch)

    def problems(self, kills: Iterable[Kill]) -> Iterator[tuple[Kill, list[str]]]:
        """Yield each kill with its problems, none if all is well."""
        with ThreadPoolExecutor(self._at_once) as pool:
            listed = [*kills]
            yield from zip(listed, pool.map(self._problems, listed), strict=True)

    def problems_of_states(self, name: str, steps: Iterable[int]) -> Iterator[tuple[Kill, list[str]]]:
        """Yield a kill before each step with its problems; one process runs to its end, and copies what each leaves."""
        situation, copies = self.situations[name], self._scratch / f"copies-{next(self._numbers)}"
        copies.mkdir()
        trial = _Trial(situation, self._begun(situation))
        chosen = sorted(steps)
        trial.copy_states(copies, chosen)
        assert not trial.problems, trial.problems
        trial.root.rename(copies / str(len(situation.steps)))  # the state after the last step
        # Several steps leave the same to the last byte: it is looked at once.
        alike = {_fingerprint(copies / str(step)): step for step in chosen}

        def look(step: int) -> list[str]:
            return self._judged(_Trial(situation, copies / str(step)))

        with ThreadPoolExecutor(self._at_once) as pool:
            different = alike.values()
            yield from (
                (Kill(name, step), found) for step, found in zip(different, pool.map(look, different), strict=True)
            )

    def _begun(self, situation: Situation) -> Path:
        root = self._scratch / f"killed-{next(self._numbers)}.ww"
        if situation.before is not None:
            shutil.copytree(situation.before, root)
        return root

    def _problems(self, kill: Kill) -> list[str]:
        situation = self.situations[kill.situation]
        trial = _Trial(situation, self._begun(situation))
        trial.kill(kill)
        return self._judged(trial)

    def _judged(self, trial: "_Trial") -> list[str]:
        """Check what a kill left, continue, and return what was wrong; what was right is deleted."""
        try:
            trial.look()
            trial.run_again()
        except WhatwhereError as error:
            trial.problems.append(f"{error.reason}: {error}")
        if not trial.problems:
            shutil.rmtree(trial.root)
            trial.output.unlink()
        return trial.problems


def _fingerprint(root: Path) -> str:
    """Return a hash of the names and contents of everything in a folder."""
    summed = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        summed.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return summed.hexdigest()


class _Trial:
    """Run one kill and check the consequences."""

    def __init__(self, situation: Situation, root: Path) -> None:
        self._situation = situation
        self.root = root
        self.output = root.with_suffix(".output")
        self.problems: list[str] = []

    def kill(self, kill: Kill) -> None:
        """Run the command until it is killed."""
        code = self._run(kill_before=kill.before_step, kill_after_s=kill.after_s)
        late = kill.after_s is not None or kill.before_step == len(self._situation.steps)
        if code != -signal.SIGKILL and not (late and code == 0):
            self.problems.append(f"ended with {code} and was to be killed: {self.output.read_text()}")

    def copy_states(self, copies: Path, steps: Sequence[int]) -> None:
        """Run the command to its end, and copy what a process would leave that is killed before each step."""
        code = self._run(copied=os.fspath(self.root), copies=os.fspath(copies), copy_before=tuple(steps))
        if code != 0:
            self.problems.append(f"ended with {code}: {self.output.read_text()}")

    def look(self) -> None:
        """Check that the collection is intact, and that the old generation answers as before or the new one exists."""
        self.problems += [f"verify after the kill: {fault}" for fault in faults(self.root)]
        before, after = self._situation.answers_before, self._situation.answers_after
        try:
            number, found = answers(self.root)
        except CollectionNotFound:
            if before is not None:
                self.problems.append("the old generation is gone")
            return
        published = before is None or number > self._situation.generation_before
        if found != (after if published else before):
            self.problems.append(f"generation {number} answers {found}")

    def run_again(self) -> None:
        """Run the command again: the result equals an undisturbed run's, without leftovers."""
        code = self._run()
        if code != 0:
            self.problems.append(f"the run after it ended with {code}: {self.output.read_text()}")
            return
        self.problems += [f"verify at the end: {fault}" for fault in faults(self.root)]
        self.problems += differences(self._situation.contents_after, contents(self.root))
        if answers(self.root)[1] != self._situation.answers_after:
            self.problems.append("answers differ at the end")

    def _run(self, **how: Any) -> int:
        arguments = (*self._situation.arguments, "--collection", str(self.root))
        return run(Request(arguments, os.fspath(self.output), **how))


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the differences between two collections."""
    problems = []
    for part, values in expected.items():
        for name in values.keys() | found[part].keys():
            mine, theirs = values.get(name), found[part].get(name)
            if mine != theirs:
                detail = f": {theirs} and not {mine}" if part in {"catalogue", "files"} else ""
                problems.append(f"{part} of {name} differ{detail}")
    return problems
