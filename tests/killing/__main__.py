"""Kill commands many times and report data loss: `python -m tests.killing --kills N --seed S`."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tests.killing.kills import Harness, Kill, every_step, random_moments


def main() -> int:
    """Kill `whatwhere index`, `remove` and `compact` at every step, then at random times; return 1 on data loss."""
    parser = argparse.ArgumentParser(prog="python -m tests.killing", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=500, help="number of kills")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the order and of the times")
    parser.add_argument("--scratch", type=Path, help="working folder; failed cases are kept there")
    arguments = parser.parse_args()
    if arguments.scratch is not None:
        arguments.scratch.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="killing-", dir=arguments.scratch))
    wrong = 0
    harness = Harness(scratch)
    for number, (kill, problems) in enumerate(harness.problems(_chosen(harness, arguments)), start=1):
        wrong += bool(problems)
        print(f"{number} {kill}: {'; '.join(problems) or 'ok'}", flush=True)  # noqa: T201 - a command
    print(f"{arguments.kills} kills, {wrong} failed; {scratch}")  # noqa: T201
    return min(wrong, 1)


def _chosen(harness: Harness, arguments: argparse.Namespace) -> list[Kill]:
    """Return the kills at steps in random order, then kills at random times."""
    random = np.random.default_rng(arguments.seed)
    steps = [kill for situation in harness.situations.values() for kill in every_step(situation)]
    chosen = [steps[place] for place in random.permutation(len(steps))][: arguments.kills]
    names = [*harness.situations]
    while len(chosen) < arguments.kills:
        chosen += random_moments(harness.situations[names[int(random.integers(len(names)))]], 1, random)
    return chosen


if __name__ == "__main__":
    raise SystemExit(main())
