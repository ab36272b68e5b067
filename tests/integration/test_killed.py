"""The command is killed wherever it changes the disk: what it leaves is sound, and run again it loses nothing."""

import dataclasses

import numpy as np
import pytest

from tests.killing.kills import Harness, Kill, random_moments, telling_steps
from tests.killing.situations import NAMES

pytestmark = pytest.mark.takes(150)

MOMENTS = 4  # random times in each situation, at which processes are killed
SEED = 1


def moments(harness: Harness, name: str) -> list[Kill]:
    return random_moments(harness.situations[name], MOMENTS, np.random.default_rng(SEED + NAMES.index(name)))


def test_steps_are_found_in_every_situation(harness: Harness) -> None:
    """At least 40 states are looked at, at commits, renames and removals of files among others."""
    steps = {name: " ".join(situation.steps) for name, situation in harness.situations.items()}

    assert sum(len(telling_steps(situation)) for situation in harness.situations.values()) >= 40
    for name, kinds in {
        "first run": ("mkdir", "commit", "rename", "replace first.ww/CURRENT", "replace shards/00000003.safetensors"),
        "later run": ("commit", "rename", "replace later run.ww/CURRENT", "replace shards/00000005.safetensors"),
        "removal": ("commit", "rename", "rmdir generations/000001", "unlink segments/"),
        "compaction": ("commit", "replace shards/00000006.safetensors", "unlink shards/00000001.safetensors"),
    }.items():
        assert [kind for kind in kinds if kind not in steps[name]] == []


@pytest.mark.timeout(600)  # where other processes compete for the cores
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_is_continued_to_the_same_end(harness: Harness, name: str) -> None:
    """After each kill the collection verifies and the old generation answers; the next run ends as undisturbed."""
    found = [
        *harness.problems_of_states(name, telling_steps(harness.situations[name])),
        *harness.problems(moments(harness, name)),
    ]

    assert {str(kill): problems for kill, problems in found if problems} == {}


def test_the_harness_sees_what_is_lost(harness: Harness) -> None:
    """A collection that comes to something else than expected is named: the checks above could fail."""
    situation = harness.situations["removal"]
    lost = situation.contents_after | {"vectors": harness.situations["later run"].contents_after["vectors"]}
    harness.situations["lost"] = dataclasses.replace(
        situation, contents_after=lost, answers_before=harness.situations["first run"].answers_after
    )

    ((_, problems),) = harness.problems([Kill("lost", 1)])

    assert sorted(problem.split(" answers ")[0] for problem in problems) == [
        "generation 2",
        "vectors of gem differ",
        "vectors of what differ",
    ]
