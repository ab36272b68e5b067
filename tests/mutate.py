"""Prove that the tests notice faults: `python -m tests.mutate` plants those of `mutants.toml`, one after the other.

Each fault is planted in a copy of the source, and its test is run there. A test that passes all the same does not
protect what it seems to.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants.toml"
COPIED = (
    *("indexer", "service", "migrations", "build/typing"),  # the links are relative: they lead to the copy
    *("tests", "proto", "deploy", "pyproject.toml", "Makefile", "README.md"),
)
LONGEST_S = 300
KILLED, SURVIVED, ERROR = "killed", "SURVIVED", "ERROR"
# Imported once: a process for each test takes them over, instead of seconds of its own.
LIBRARIES = ("torch", "torchvision.models", "faiss", "numba", "sklearn.decomposition", "skimage.data", "scipy.ndimage",
             "sqlalchemy.orm", "alembic.command", "grpc", "grpc_reflection.v1alpha.reflection", "lark", "hypothesis",
             "typer", "rich.progress", "starlette.applications", "uvicorn", "fsspec")  # fmt: skip
_OUTCOME = re.compile(r"^(PASSED|SKIPPED|FAILED|ERROR) (\S+)")
_mtimes = count(1_000_000_000)  # in seconds, another for each mutant: what is compiled from a file goes by its time


def import_path(tree: Path) -> list[str]:
    """Return the folders by which a copy of the repository is imported, and nothing else."""
    return [str(tree / "build" / "typing"), str(tree)]


@dataclass(frozen=True)
class Mutant:
    """A fault: `after` in the place of `before` in `file`. `test` must fail; `why` is what people would lose.

    `test` is what pytest calls a test, all of its cases, or with " -k EXPRESSION" those that it holds for.
    """

    file: str
    before: str
    after: str
    test: str
    why: str


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """Return the list of mutants."""
    return [Mutant(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]]


def main() -> int:
    """Return 0 where every mutant is killed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("--only", metavar="N,N", help="Plant only these, counted from 1.")
    parser.add_argument("--jobs", type=int, default=2, help="Run so many tests at once.")
    asked = parser.parse_args()
    mutants = dict(enumerate(read_mutants(), start=1))
    if asked.only is not None:
        mutants = {int(number): mutants[int(number)] for number in asked.only.split(",")}
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Tree.copied(Path(folder) / f"tree-{number}") for number in range(asked.jobs)]
        outcomes = outcomes_of(mutants, trees)
    _say(", ".join(f"{list(outcomes.values()).count(kind)} {kind}" for kind in (KILLED, SURVIVED, ERROR)))
    return 0 if set(outcomes.values()) == {KILLED} else 1


def outcomes_of(mutants: Mapping[int, Mutant], trees: Sequence["Tree"]) -> dict[int, str]:
    """Return what became of each mutant, and say it as it becomes known."""
    sound = sound_tests([mutant.test for mutant in mutants.values()], trees)
    outcomes = {number: ERROR for number, mutant in mutants.items() if mutant.test not in sound}
    for number in outcomes:
        _say(f"{number:3} {ERROR:8} {mutants[number].test} does not pass without a mutant")
    todo = [(mutant, arguments([mutant.test])) for number, mutant in mutants.items() if number not in outcomes]
    numbers = {mutant: number for number, mutant in mutants.items()}
    for mutant, code, told in tested(todo, trees):
        assert mutant is not None
        # 1 is of tests that failed; other codes of tests that could not be run.
        kind = {0: SURVIVED, 1: KILLED}.get(code, ERROR)
        outcomes[numbers[mutant]] = kind
        _say(f"{numbers[mutant]:3} {kind:8} {mutant.file}: {mutant.why}")
        if kind == ERROR:
            _say(told[-2000:])
    return outcomes


def sound_tests(tests: Sequence[str], trees: Sequence["Tree"]) -> set[str]:
    """Return the tests that pass where nothing is planted: some of their cases may skip, not all."""
    together: dict[tuple[str, str], list[str]] = {}
    for test in dict.fromkeys(tests):
        node, _, keyword = test.partition(" -k ")
        together.setdefault((node.partition("::")[0], keyword), []).append(test)
    found: dict[str, set[str]] = {test: set() for test in tests}
    for _, code, told in tested([(None, arguments(share)) for share in together.values()], trees):
        if code:
            _say(told[-4000:])
        for line in told.splitlines():
            if match := _OUTCOME.match(line):
                for test, kinds in found.items():
                    node = test.partition(" -k ")[0]
                    if match[2] == node or match[2].startswith((f"{node}[", f"{node}::")):
                        kinds.add(match[1])
    return {test for test, kinds in found.items() if "PASSED" in kinds and not kinds & {"FAILED", "ERROR"}}


def arguments(tests: Sequence[str]) -> list[str]:
    """Return what pytest is told to run tests that have a keyword in common, or none."""
    keyword = tests[0].partition(" -k ")[2]
    return [*(test.partition(" -k ")[0] for test in tests), *(("-k", keyword) if keyword else ())]


def tested(
    todo: Sequence[tuple[Mutant | None, Sequence[str]]], trees: Sequence["Tree"]
) -> Iterator[tuple[Mutant | None, int, str]]:
    """Run tests, each with its mutant, one in each tree at a time; yield pytest's exit code and what it said."""
    waiting, free = list(reversed(todo)), list(trees)
    running: dict[BaseProcess, tuple[Tree, Mutant | None]] = {}
    while waiting or running:
        while waiting and free:
            tree = free.pop()
            mutant, tests = waiting.pop()
            tree.plant(mutant)
            process = multiprocessing.get_context("fork").Process(target=tree.test, args=(tests, mutant is not None))
            process.start()
            running[process] = (tree, mutant)
        connection.wait([process.sentinel for process in running])
        for ended in [process for process in running if process.exitcode is not None]:
            tree, mutant = running.pop(ended)
            tree.restore(mutant)
            free.append(tree)
            yield mutant, int(ended.exitcode or 0), tree.said.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Tree:
    """A copy of the repository's source, to plant faults in, one at a time."""

    root: Path

    @classmethod
    def copied(cls, root: Path) -> "Tree":
        """Copy the working tree, without what was made of it."""
        root.mkdir(parents=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, symlinks=True)
            else:
                shutil.copy2(ROOT / name, root / name)
        return cls(root)

    @property
    def said(self) -> Path:
        """The file of what pytest said last."""
        return self.root / "said.txt"

    def plant(self, mutant: Mutant | None) -> None:
        """Put a mutant in."""
        if mutant is None:
            return
        path = self.root / mutant.file
        original = path.read_text(encoding="utf-8")
        if original.count(mutant.before) != 1:
            raise ValueError(f"{mutant.file} does not hold once: {mutant.before!r}")
        path.write_text(original.replace(mutant.before, mutant.after), encoding="utf-8")
        time_s = next(_mtimes)
        os.utime(path, (time_s, time_s))

    def restore(self, mutant: Mutant | None) -> None:
        """Take a mutant out."""
        if mutant is not None:
            shutil.copy2(ROOT / mutant.file, self.root / mutant.file)

    def test(self, tests: Sequence[str], to_the_first_failure: bool) -> None:
        """Run tests on this copy, and end the process by pytest's exit code."""
        with self.said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(self.root)
        for name in [name for name in os.environ if name.startswith("WHATWHERE_")]:
            del os.environ[name]
        os.environ["PYTHONPATH"] = os.pathsep.join(import_path(self.root))
        sys.path[:] = [*import_path(self.root), *(path for path in sys.path if path not in ("", *import_path(ROOT)))]
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        options = ["-q", "-rpfEs", "--tb=short", "-p", "no:cacheprovider", f"--timeout={LONGEST_S}"]
        # It may not rewrite what is imported already, and need not.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += ["-x"] if to_the_first_failure else []
        code = pytest.main([*options, *tests])
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(int(code))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main())
