"""The list of faults that tests must notice: each can still be planted."""

from tests.mutate import ROOT, read_mutants


def test_each_fault_can_be_planted() -> None:
    """Its file holds the text that it replaces, once, and another text takes its place."""
    wrong = [
        f"{number}: {mutant.file} holds {mutant.before!r} {held} times"
        for number, mutant in enumerate(read_mutants(), start=1)
        if (held := (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before)) != 1
        or mutant.after == mutant.before
    ]

    assert wrong == []


def test_each_fault_has_a_test_and_a_reason() -> None:
    """The test stands in its file, and no fault is listed twice."""
    mutants = read_mutants()
    for mutant in mutants:
        file, _, name = mutant.test.partition(" -k ")[0].partition("::")

        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), mutant.test
        assert mutant.why

    assert len({(mutant.file, mutant.before) for mutant in mutants}) == len(mutants)
