"""The same concept in other images: against a comparison with every stored factor, and by known construction."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.made_up import CHANNELS, DESCRIPTORS, RANK, RECIPE, WHITENERS, described, found, take_away
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import DescriptorNotIndexed, InvalidRequest
from whatwhere.indexer.features.description import Description, QuantizedFactors
from whatwhere.indexer.features.nmf import Factors, quantize, restore
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.service.search.similar_factors import FactorMatch, similar_factors

Rows = NDArray[np.float64]


def keep(root: Path, images: Sequence[Description], indexed: Sequence[str] = DESCRIPTORS) -> None:
    """Store descriptions as images 1, 2, ... of a collection with these descriptors."""
    recipe = replace(RECIPE, descriptors=tuple(indexed))
    with open_for_writing(root, recipe) as writer:
        writer.append(found(range(len(images))), images)
        publish(writer.layout, writer.catalog, writer.recipe, {name: WHITENERS[name] for name in indexed})


def similar(root: Path, to: Description, factor: int, count: int, own_id: int | None = None) -> list[FactorMatch]:
    """Compare with all images there are."""
    with open_collection(root) as collection:
        return similar_factors(collection, to, [factor], count, own_id=own_id, candidates=1000)[factor]


def rows_of(description: Description, whitener: Whitener | None) -> Rows:
    """Compute the unit rows of V a second time, whitened where there is a whitener."""
    stored = description.factors
    rows = stored.what.astype(np.float64) * stored.what_scale[:, np.newaxis]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if whitener is not None:
        rows = (rows - whitener.mean) @ whitener.projection
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def exhaustive(
    images: Sequence[Description], to: Description, factor: int, whitener: Whitener | None
) -> list[tuple[int, int, float]]:
    """Compare every factor of every image: (id, best factor, its cosine), best first."""
    wanted = rows_of(to, whitener)[factor]
    cosines = [rows_of(image, whitener) @ wanted for image in images]
    best = [(number, int(each.argmax()), float(each.max())) for number, each in enumerate(cosines, start=1)]
    return sorted(best, key=lambda entry: -entry[2])


def made_of(concepts: torch.Tensor, cell: int = 0) -> Description:
    """Describe a picture of 3 x 4 cells with these concepts [K, C], the first at one cell alone."""
    where = torch.rand(12, len(concepts), generator=torch.Generator().manual_seed(cell))
    where[:, 0] = torch.eye(12)[cell]
    return Description(quantize(Factors(where, concepts), 3, 4), {"r-mac": np.ones((1, CHANNELS), np.float16)})


@pytest.mark.parametrize("factor", range(RANK))
@pytest.mark.parametrize("indexed", [DESCRIPTORS, ("what",), ("what", "r-mac")], ids=str)
def test_the_answer_is_that_of_comparing_every_factor(tmp_path: Path, indexed: Sequence[str], factor: int) -> None:
    """Whitened as `what` whitens, one factor an image, best first."""
    images = [described(seed) for seed in range(12)]
    query = described(100)
    keep(tmp_path / "c.ww", images, indexed)

    answer = similar(tmp_path / "c.ww", query, factor, 5)

    expected = exhaustive(images, query, factor, WHITENERS["what"][0])[:5]
    assert [(each.image_id, each.factor) for each in answer] == [entry[:2] for entry in expected]
    assert [each.score for each in answer] == pytest.approx([entry[2] for entry in expected], abs=1e-4)


def test_several_factors_have_the_answers_of_each(tmp_path: Path) -> None:
    """All are looked for at once, a dead one among them too."""
    images, query, other = [described(seed) for seed in range(12)], described(100), described(100)
    query.factors.what[2] = query.factors.where[:, 2] = 0
    keep(tmp_path / "c.ww", images)

    with open_collection(tmp_path / "c.ww") as collection:
        together = similar_factors(collection, query, [1, 2, 0], 4)

    assert list(together) == [1, 2, 0]
    assert together[2] == []
    for factor in (0, 1):
        expected = exhaustive(images, other, factor, WHITENERS["what"][0])[:4]
        assert [(each.image_id, each.factor) for each in together[factor]] == [entry[:2] for entry in expected]
        assert [each.score for each in together[factor]] == pytest.approx([entry[2] for entry in expected], abs=1e-4)


@pytest.mark.parametrize("indexed", [("what-and-where",), ("fused",)], ids=str)
def test_without_the_whitener_of_what_the_rows_are_compared_as_they_are(tmp_path: Path, indexed: Sequence[str]) -> None:
    """The thesis whitens V and V' differently: a collection of V' alone has nothing for V."""
    images = [described(seed) for seed in range(12)]
    query = described(100)
    keep(tmp_path / "c.ww", images, indexed)

    answer = similar(tmp_path / "c.ww", query, 1, 12)

    expected = exhaustive(images, query, 1, None)
    assert [(each.image_id, each.factor) for each in answer] == [entry[:2] for entry in expected]
    assert [each.score for each in answer] == pytest.approx([entry[2] for entry in expected], abs=1e-4)


@pytest.mark.parametrize("descriptor", ["what", "what-and-where", "fused"])
def test_few_candidates_hold_the_image_that_shows_the_concept(tmp_path: Path, descriptor: str) -> None:
    """One of forty images consists of the concept alone: the index finds it among the first three."""
    concept = restore(described(100).factors).what[1]
    keep(tmp_path / "c.ww", [*map(described, range(39)), made_of(concept.repeat(RANK, 1))], [descriptor])

    with open_collection(tmp_path / "c.ww") as collection:
        answer = similar_factors(collection, described(100), [1], 1, candidates=3)[1]

    assert [each.image_id for each in answer] == [40]
    assert answer[0].score == pytest.approx(1, abs=1e-3)


def test_an_image_is_not_similar_to_itself(tmp_path: Path) -> None:
    """Its own id is left out; a picture that is not stored has none, and finds the stored one first."""
    images = [described(seed) for seed in range(4)]
    keep(tmp_path / "c.ww", images)

    own, foreign = (similar(tmp_path / "c.ww", images[2], 0, 10, own_id) for own_id in (3, None))

    assert sorted(each.image_id for each in own) == [1, 2, 4]
    assert (foreign[0].image_id, foreign[0].factor) == (3, 0)
    assert foreign[0].score == pytest.approx(1, abs=1e-5)


def test_the_box_is_around_the_factor_that_is_similar(tmp_path: Path) -> None:
    """Its heatmap is the last cell of 3 x 4 alone."""
    concepts = torch.eye(RANK, CHANNELS) + 0.01
    keep(tmp_path / "c.ww", [made_of(concepts, cell=11)])

    (answer,) = similar(tmp_path / "c.ww", made_of(concepts), 0, 1)

    assert answer.factor == 0
    assert answer.box is not None
    assert np.allclose(answer.box, (3 / 4, 2 / 3, 1, 1), atol=0.5 / 3)


def test_what_was_removed_does_not_come_back(tmp_path: Path) -> None:
    """Neither in the next generation nor in this one, which was opened before."""
    images = [described(seed) for seed in range(4)]
    keep(tmp_path / "c.ww", images)

    with open_collection(tmp_path / "c.ww") as collection:
        take_away(tmp_path / "c.ww", 1)
        meanwhile = similar_factors(collection, images[1], [0], 10)[0]
    with open_for_writing(tmp_path / "c.ww", RECIPE) as writer:
        publish(writer.layout, writer.catalog, writer.recipe, WHITENERS)
    afterwards = similar(tmp_path / "c.ww", images[1], 0, 10)

    assert sorted(each.image_id for each in meanwhile) == [1, 3, 4]
    assert sorted(each.image_id for each in afterwards) == [1, 3, 4]


def test_a_dead_factor_is_similar_to_nothing(tmp_path: Path) -> None:
    """Neither asked for nor stored, though whitening moves zero to somewhere."""
    living = described(0)
    dead = without(living, 1)
    empty = without(without(without(living, 0), 1), 2)
    keep(tmp_path / "c.ww", [dead, empty])

    assert similar(tmp_path / "c.ww", dead, 1, 10) == []
    for factor in range(RANK):
        (answer,) = similar(tmp_path / "c.ww", described(7), factor, 10)
        assert answer.image_id == 1
        assert answer.factor != 1


def without(description: Description, factor: int) -> Description:
    """Take one factor out of a description, as a picture of too few concepts lacks it."""
    stored = description.factors
    living = np.arange(RANK) != factor
    factors = QuantizedFactors(
        stored.where * living.astype(np.uint8),
        stored.where_scale * living,
        stored.what * living.astype(np.uint8)[:, np.newaxis],
        stored.what_scale * living,
        stored.height,
        stored.width,
    )
    return replace(description, factors=factors)


@pytest.mark.parametrize("factor", [-1, RANK, 99])
def test_a_factor_that_the_image_has_not_is_refused(tmp_path: Path, factor: int) -> None:
    """The message says which there are."""
    keep(tmp_path / "c.ww", [described(0)])

    with pytest.raises(InvalidRequest, match=f"factor {factor} .* from 0 to 2") as caught:
        similar(tmp_path / "c.ww", described(0), factor, 1)

    assert caught.value.field == "factor"


def test_a_collection_without_an_index_of_factors_says_what_to_do(tmp_path: Path) -> None:
    """Baselines hold no concepts."""
    keep(tmp_path / "c.ww", [described(0)], ["r-mac"])

    with pytest.raises(DescriptorNotIndexed, match="rebuild --descriptors what,r-mac"):
        similar(tmp_path / "c.ww", described(0), 0, 1)
