"""Find the factors of stored images that are most similar to one factor of a description.

There is no index of single factors. A search for the factor alone in the collection's best index of factors finds
candidate images; their stored factors are then compared exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.collection.reader import CollectionReader, SearchableIndex
from whatwhere.indexer.errors import DescriptorNotIndexed, InvalidRequest
from whatwhere.indexer.features.description import Description, QuantizedFactors
from whatwhere.indexer.features.descriptors import find_descriptor, whiten
from whatwhere.indexer.features.names import FUSED, WHAT, WHAT_AND_WHERE
from whatwhere.indexer.features.nmf import restore
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.vectors.arrays import SCORE_DECIMALS
from whatwhere.service.search.localize import box_of_maps

# Measured on 806 photographs, 60 factors: 200 candidates contain 93 % of the true five most similar, 50: 73, 100: 81.
CANDIDATES = 200
# Their first part is made of factors. Measured as above with 200 candidates: 87 % by `what`, 93 % by the others.
_OF_FACTORS = (WHAT_AND_WHERE, FUSED, WHAT)
_EPS = 1e-6


@dataclass(frozen=True)
class FactorMatch:
    """A similar factor of a stored image.

    `score` is the cosine of the two rows of V, whitened as in the descriptor `what` if the collection has that
    whitener. `box` bounds the factor's most activated part.
    """

    image_id: int
    factor: int
    score: float
    box: Box | None


def row_of_factor(description: Description, factor: int) -> Tensor:
    """Return one factor's row of V, float32 [C]. Raises InvalidRequest(field="factor") if the index is out of range."""
    count = len(description.factors.what)
    if not 0 <= factor < count:
        raise InvalidRequest(
            f"factor {factor} does not exist, the image has {count} factors: give an index from 0 to {count - 1}",
            field="factor",
        )
    return restore(description.factors).what[factor]


def box_of_factor(factors: QuantizedFactors, factor: int) -> Box | None:
    """Return the box of the most activated part of one factor; None for a dead factor."""
    heatmap = restore(factors).where[:, factor]
    return box_of_maps(heatmap.reshape(1, factors.height, factors.width))


def similar_factors(
    collection: CollectionReader,
    description: Description,
    factors: Sequence[int],
    count: int,
    *,
    own_id: int | None = None,
    candidates: int = CANDIDATES,
) -> dict[int, list[FactorMatch]]:
    """Return for each factor the `count` most similar ones of other stored images: one per image, best first.

    `candidates` images are searched for each factor; all factors are compared with all candidates. `own_id` and removed
    images are excluded. The list of a dead factor is empty. Raises InvalidRequest(field="factor") if a factor is out of
    range, and DescriptorNotIndexed if the collection has no index of factors.
    """
    rows = {factor: row_of_factor(description, factor) for factor in factors}
    index = _index_of_factors(collection)
    method = find_descriptor(index.descriptor, collection.recipe.preset)
    living = [factor for factor, row in rows.items() if row.norm() > _EPS]
    ids: set[int] = set()
    for factor in living:
        query = method.vector(method.select(description, factors={factor}), index.whiteners)
        ids.update(index.vectors.search(query, max(count, candidates) + 1)[1].tolist())
    others = collection.indexed_images(sorted(ids - {own_id}))
    stored = [(image_id, collection.description(record).factors) for image_id, record in others.items()]
    found: dict[int, list[FactorMatch]] = {factor: [] for factor in rows}
    if stored:
        scores = _scores([rows[factor] for factor in living], stored, _whitener_of_what(collection))
        # As the scores of vectors: equal ones are ordered by id, and none exceeds 1.
        best, which = scores.clamp(max=1).round(decimals=SCORE_DECIMALS).max(dim=2)
        for factor, of_images, numbers in zip(living, best, which, strict=True):
            for place in of_images.argsort(descending=True, stable=True)[:count].tolist():
                image_id, factors_of_it = stored[place]
                score, number = float(of_images[place]), int(numbers[place])
                if score > -torch.inf:
                    score = max(score, -1.0)
                    box = box_of_factor(factors_of_it, number)
                    found[factor].append(FactorMatch(image_id, number, score, box))
    return found


def _index_of_factors(collection: CollectionReader) -> SearchableIndex:
    for name in _OF_FACTORS:
        if name in collection.indexes:
            return collection.indexes[name]
    raise DescriptorNotIndexed(
        f"similar factors need an index of factors, the collection has only {', '.join(collection.indexes)}: "
        f"make one with `whatwhere rebuild --descriptors {WHAT},{','.join(collection.indexes)}`",
        field="descriptor",
    )


def _whitener_of_what(collection: CollectionReader) -> Whitener | None:
    (part,) = find_descriptor(WHAT, collection.recipe.preset).parts
    held = (whitener for index in collection.indexes.values() for whitener in index.whiteners)
    return next((whitener for whitener in held if whitener.key.descriptor == part.whitener), None)


def _whitened(rows: Tensor, whitener: Whitener | None) -> Tensor:
    """Scale rows [K, C] to length 1, and whiten them if a whitener is given."""
    rows = functional.normalize(rows, dim=1, eps=_EPS)
    return rows if whitener is None else functional.normalize(whiten(rows, whitener), dim=1, eps=_EPS)


def _scores(
    rows: Sequence[Tensor], stored: Sequence[tuple[int, QuantizedFactors]], whitener: Whitener | None
) -> Tensor:
    """Return the similarity [F, N, K] of F rows of V to the K factors of N stored images; -inf for dead factors."""
    what = torch.from_numpy(np.stack([factors.what for _, factors in stored])).float()
    wanted = _whitened(torch.stack(list(rows)), whitener)
    scores = wanted @ _whitened(what.flatten(0, 1), whitener).mT
    # whitening would turn a dead factor's zeros into an arbitrary direction
    return torch.where(what.any(dim=2), scores.reshape(len(wanted), *what.shape[:2]), -torch.inf)
