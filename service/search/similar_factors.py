"""Where else a concept is: the factors of stored images most similar to one factor of a description.

There is no index of single factors. A concept alone makes a query of the collection's best index of factors, and the
stored factors of what that finds are compared one by one.
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
from whatwhere.indexer.features.describe import Description
from whatwhere.indexer.features.descriptors import FUSED, WHAT, WHAT_AND_WHERE, find_descriptor
from whatwhere.indexer.features.nmf import QuantizedFactors
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.service.search.localize import box_of_maps

# Measured on 806 photographs, 60 concepts: so many hold 93 % of the five most similar of all, 50 hold 73, 100 hold 81.
CANDIDATES = 200
# In each the first part is of the factors. Measured as above, 200 candidates: by `what` 87 %, by the others 93.
_OF_FACTORS = (WHAT_AND_WHERE, FUSED, WHAT)
_EPS = 1e-6


@dataclass(frozen=True)
class FactorMatch:
    """A stored image's factor that shows the same concept.

    `score` is the cosine of the two rows of V, whitened as the descriptor `what` whitens them where the collection has
    its whitener, else plain; `box` is around the factor's most activated part.
    """

    image_id: int
    factor: int
    score: float
    box: Box | None


def row_of_factor(description: Description, factor: int) -> Tensor:
    """Return one factor's row of V, float32 [C]; InvalidRequest(field="factor") where there is no such factor."""
    count = len(description.factors.what)
    if not 0 <= factor < count:
        raise InvalidRequest(
            f"factor {factor} is none of the image's, which has {count}: give one from 0 to {count - 1}",
            field="factor",
        )
    return description.factors.restore().what[factor]


def box_of_factor(factors: QuantizedFactors, factor: int) -> Box | None:
    """Box the most activated part of one factor's heatmap; None for a dead factor."""
    heatmap = factors.restore().where[:, factor]
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
    """Return for each of these factors those of other stored images most similar to it: one an image, best first.

    `candidates` images are found for each factor, and all of them are looked at for all, once; `own_id` and removed
    ones are left out, and none is similar to a dead factor. Raises InvalidRequest(field="factor") for a factor out of
    range, DescriptorNotIndexed where no index is of factors.
    """
    concepts = {factor: row_of_factor(description, factor) for factor in factors}
    index = _index_of_factors(collection)
    method = find_descriptor(index.descriptor, collection.recipe.preset)
    living = [factor for factor, concept in concepts.items() if concept.norm() > _EPS]
    ids: set[int] = set()
    for factor in living:
        query = method.vector(method.select(description, factors={factor}), index.whiteners)
        ids.update(index.vectors.search(query, max(count, candidates) + 1)[1].tolist())
    others = collection.indexed_images(sorted(ids - {own_id}))
    stored = [(image_id, collection.description(record).factors) for image_id, record in others.items()]
    found: dict[int, list[FactorMatch]] = {factor: [] for factor in concepts}
    if stored:
        scores = _scores([concepts[factor] for factor in living], stored, _whitener_of_what(collection))
        best, which = scores.max(dim=2)
        for factor, of_images, numbers in zip(living, best, which, strict=True):
            for place in of_images.argsort(descending=True, stable=True)[:count].tolist():
                image_id, factors_of_it = stored[place]
                score, number = float(of_images[place]), int(numbers[place])
                if score > -torch.inf:
                    box = box_of_factor(factors_of_it, number)
                    found[factor].append(FactorMatch(image_id, number, score, box))
    return found


def _index_of_factors(collection: CollectionReader) -> SearchableIndex:
    for name in _OF_FACTORS:
        if name in collection.indexes:
            return collection.indexes[name]
    raise DescriptorNotIndexed(
        f"similar concepts need an index of factors, the collection has {', '.join(collection.indexes)}: "
        f"make one with `whatwhere rebuild --descriptors {WHAT},{','.join(collection.indexes)}`",
        field="descriptor",
    )


def _whitener_of_what(collection: CollectionReader) -> Whitener | None:
    (part,) = find_descriptor(WHAT, collection.recipe.preset).parts
    held = (whitener for index in collection.indexes.values() for whitener in index.whiteners)
    return next((whitener for whitener in held if whitener.key.descriptor == part.whitener), None)


def _whitened(rows: Tensor, whitener: Whitener | None) -> Tensor:
    """Return rows [K, C] at length 1, whitened where there is a whitener."""
    rows = functional.normalize(rows, dim=1, eps=_EPS)
    return rows if whitener is None else functional.normalize(whitener.apply(rows), dim=1, eps=_EPS)


def _scores(
    concepts: Sequence[Tensor], stored: Sequence[tuple[int, QuantizedFactors]], whitener: Whitener | None
) -> Tensor:
    """Return the similarity [F, N, K] of concepts to each factor of stored images, that of a dead factor -inf."""
    what = torch.from_numpy(np.stack([factors.what for _, factors in stored])).float()
    wanted = _whitened(torch.stack(list(concepts)), whitener)
    scores = wanted @ _whitened(what.flatten(0, 1), whitener).mT
    # whitened, a dead factor would be similar to something
    return torch.where(what.any(dim=2), scores.reshape(len(wanted), *what.shape[:2]), -torch.inf)
