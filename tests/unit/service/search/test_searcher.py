"""Pages of a search, of scores and ids."""

import numpy as np

from whatwhere.service.search.searcher import Query, page_of

SCORES = np.array([0.9, 0.8, 0.8, 0.8, 0.5, 0.4], dtype=np.float32)
IDS = np.array([5, 1, 3, 8, 2, 4], dtype=np.int64)


def ids_of(query: Query) -> tuple[list[int], bool]:
    """Return the ids of a page, and whether more follow."""
    page, has_more = page_of(query, SCORES, IDS)
    return [image_id for _, image_id in page], has_more


def test_a_page_begins_after_the_last_one() -> None:
    """By score and id, if they are known, so that a better result that comes late repeats nothing."""
    score = float(SCORES[1])

    assert ids_of(Query(count=2)) == ([5, 1], True)
    assert ids_of(Query(offset=2, count=2)) == ([3, 8], True)
    assert ids_of(Query(offset=2, after=(score, 3), count=2)) == ([8, 2], True)
    assert ids_of(Query(offset=4, after=(score, 8), count=2)) == ([2, 4], False)
    assert ids_of(Query(offset=6, after=(float(SCORES[5]), 4), count=2)) == ([], False)


def test_a_score_passes_a_minimum_that_float32_rounds() -> None:
    """Within a millionth; the next one does not."""
    assert ids_of(Query(min_score=0.8)) == ([5, 1, 3, 8], False)
    assert ids_of(Query(min_score=0.8000005)) == ([5, 1, 3, 8], False)
    assert ids_of(Query(min_score=0.800002)) == ([5], False)
    assert ids_of(Query(min_score=0.8, offset=1, after=(float(SCORES[0]), 5), count=2)) == ([1, 3], True)
