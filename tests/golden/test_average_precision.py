"""Average precision against values that public reference code computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from whatwhere.service.evaluation.retrieval.metrics import average_precision


def test_average_precision_is_revisitops(golden: Path) -> None:
    """Every case to 1e-9, None where the query has no positives; as lists and as arrays."""
    cases = json.loads((golden / "average_precision.json").read_text())["cases"]

    assert len(cases) > 1
    assert {case["average_precision"] is None for case in cases} == {True, False}
    for case in cases:
        positives, junk = frozenset(case["positive"]), frozenset(case["junk"])
        expected = case["average_precision"]
        for ranking in (case["ranking"], np.array(case["ranking"])):
            found = average_precision(ranking, positives, junk)
            assert found == (expected if expected is None else pytest.approx(expected, abs=1e-9))
