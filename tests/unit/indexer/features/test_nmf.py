"""The factorisation: its conventions, two routes that must agree, and recovery of what is known by construction."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from whatwhere.indexer.features import hals
from whatwhere.indexer.features.nmf import (
    Dense,
    Factors,
    LowRank,
    _sweep,
    factorize,
    factorize_batch,
    quantize,
    restore,
)

shapes = st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(1, 6), st.integers(0, 1000))
# A matrix may have entries of any usual size; what is compared is compared relative to it.
slow = settings(deadline=None, max_examples=40)


def random_activations(positions: int, channels: int, seed: int = 0) -> Tensor:
    """Draw activations as a ReLU leaves them: about half of them zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(positions, channels, generator=generator).clamp_min(0)


def random_product(positions: int, rank: int, channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw non-negative factors U [P, R] and V [R, C]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(positions, rank, generator=generator), torch.rand(rank, channels, generator=generator)


def relative_error(matrix: Tensor, factors: Factors) -> float:
    """Return ‖A - U V‖ / ‖A‖."""
    return float((matrix - factors.where @ factors.what).norm() / matrix.norm())


# --- conventions ------------------------------------------------------------------------------------------------


@slow
@given(shapes)
def test_factors_are_non_negative_and_finite(shape: tuple[int, int, int, int]) -> None:
    """U [P, K] and V [K, C] hold no negative number, whatever the shape, ranks above P and C included."""
    positions, channels, rank, seed = shape

    factors = factorize([random_activations(positions, channels, seed)], rank)[0]

    assert factors.where.shape == (positions, rank)
    assert factors.what.shape == (rank, channels)
    for part in (factors.where, factors.what):
        assert part.isfinite().all()
        assert (part >= 0).all()


@slow
@given(shapes)
def test_both_sides_of_a_factor_have_the_same_length(shape: tuple[int, int, int, int]) -> None:
    """‖U_k‖₂ = ‖V_k‖₂ for each factor."""
    positions, channels, rank, seed = shape

    factors = factorize([random_activations(positions, channels, seed)], rank)[0]

    torch.testing.assert_close(factors.where.norm(dim=0), factors.what.norm(dim=1), rtol=1e-4, atol=1e-6)


@slow
@given(shapes)
def test_the_strongest_factor_comes_first(shape: tuple[int, int, int, int]) -> None:
    """The energies ‖U_k‖ ‖V_k‖ never grow."""
    positions, channels, rank, seed = shape

    factors = factorize([random_activations(positions, channels, seed)], rank)[0]

    energy = factors.where.norm(dim=0) * factors.what.norm(dim=1)
    assert (energy.diff() <= 1e-5 * energy[0]).all()


@slow
@given(shapes)
def test_the_product_is_never_further_from_the_activations_than_nothing_is(shape: tuple[int, int, int, int]) -> None:
    """Factors explain a part of the activations: U V is nearer to A than 0 is."""
    positions, channels, rank, seed = shape
    matrix = random_activations(positions, channels, seed)

    factors = factorize([matrix], rank)[0]

    assert (matrix - factors.where @ factors.what).norm() <= matrix.norm() * (1 + 1e-6)


def test_zero_rows_stay_zero() -> None:
    """A position without activations has no factor on it."""
    matrix = random_activations(60, 40)
    matrix[10:20] = 0

    factors = factorize([matrix], 5)[0]

    assert (factors.where[10:20] == 0).all()
    assert (factors.where[:10].sum(dim=1) > 0).all()


def test_zero_channels_stay_zero() -> None:
    """A channel without activations belongs to no concept."""
    matrix = random_activations(60, 40)
    matrix[:, 7] = 0

    factors = factorize([matrix], 5)[0]

    assert (factors.what[:, 7] == 0).all()


def test_activations_that_are_all_zero_have_factors_that_are_all_zero() -> None:
    """A black picture is no reason for a not-a-number, not even beside another."""
    factors, _ = factorize([torch.zeros(12, 8), random_activations(12, 8)], 3)

    assert (factors.where == 0).all()
    assert (factors.what == 0).all()


@pytest.mark.parametrize(
    "matrix",
    [
        torch.outer(torch.tensor([1.0, 2.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, 2.0, 8.0, 1.0])),
        torch.block_diag(torch.full((3, 4), 2.0), torch.full((5, 2), 3.0)),
        torch.eye(3),
        torch.matmul(*random_product(40, 2, 30, seed=0)),
        torch.matmul(*random_product(40, 2, 30, seed=1)),
    ],
    ids=["one", "two blocks", "identity", "two", "two again"],
)
def test_a_factor_beyond_the_rank_is_zero_on_both_sides(matrix: Tensor) -> None:
    """Where fewer factors explain everything, the others are dead: none is split to fill the count."""
    rank = int(torch.linalg.matrix_rank(matrix, rtol=1e-5))

    factors = factorize([matrix], rank + 2)[0]

    assert (factors.where[:, :rank].sum(dim=0) > 0).all()
    assert (factors.where[:, rank:] == 0).all()
    assert (factors.what[rank:] == 0).all()


@pytest.mark.parametrize("scale", [0.25, 16.0])
def test_brighter_activations_scale_both_sides_alike(scale: float) -> None:
    """4 A has the factors 2 U and 2 V."""
    matrix = random_activations(50, 40)

    plain, scaled = factorize([matrix], 4)[0], factorize([matrix * scale], 4)[0]

    torch.testing.assert_close(scaled.where, plain.where * scale**0.5, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scaled.what, plain.what * scale**0.5, rtol=1e-3, atol=1e-4)


# --- determinism and independence -------------------------------------------------------------------------------


def test_the_same_activations_give_the_same_bytes() -> None:
    """There is no random start."""
    matrices = [random_activations(80, 60, seed) for seed in range(3)]

    first, second = factorize(matrices, 6), factorize(matrices, 6)

    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.where, other.where)
        assert torch.equal(one.what, other.what)


def test_the_input_is_left_as_it_was() -> None:
    """Factorising changes no activation."""
    matrix = random_activations(30, 20)
    before = matrix.clone()

    factorize([matrix], 4)

    assert torch.equal(matrix, before)


def test_factors_do_not_depend_on_what_else_is_there() -> None:
    """Together with others a matrix has the very factors that it has alone."""
    matrices = [random_activations(positions, 64, positions) for positions in (30, 120, 336, 500, 7)]

    together = factorize(matrices, 6)

    for matrix, shared in zip(matrices, together, strict=True):
        alone = factorize([matrix], 6)[0]
        assert torch.equal(shared.where, alone.where)
        assert torch.equal(shared.what, alone.what)


def test_a_padded_batch_has_the_factors_of_each() -> None:
    """Rows of zeros below a matrix, which those of a batch have, change its factors by rounding alone."""
    matrices = [random_activations(positions, 64, positions) for positions in (30, 120, 336, 500, 7)]

    where, what = factorize_batch(Dense(pad_sequence(matrices, batch_first=True)), 6)

    for matrix, maps, concepts, alone in zip(matrices, where, what, factorize(matrices, 6), strict=True):
        assert not maps[len(matrix) :].any()
        torch.testing.assert_close(maps[: len(matrix)], alone.where, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(concepts, alone.what, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_compiled_sweeps_are_those_of_a_gpu(rank: int) -> None:
    """What is compiled for a CPU improves factors as the tensor operations do that run elsewhere, dead ones as well."""
    matrices = LowRank(
        *(torch.stack(sides) for sides in zip(*(random_product(50, 12, 70, s) for s in (1, 2)), strict=True))
    )
    generator = torch.Generator().manual_seed(0)
    maps, what = (torch.rand(2, rank, length, generator=generator) for length in (50, 70))
    maps[0, -1] = what[1, 0] = 0
    expected_maps, expected_what = maps.clone(), what.clone()

    hals.sweep(maps.numpy(), what.numpy(), matrices.where.mT.contiguous().numpy(), matrices.what.numpy(), 3)
    for _ in range(3):
        _sweep(matrices, expected_maps, expected_what)

    torch.testing.assert_close(maps, expected_maps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(what, expected_what, rtol=1e-3, atol=1e-4)


# --- what is found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_known_factorization_is_recovered(seed: int) -> None:
    """Sparse concepts on sparse heatmaps are found up to their order and scale."""
    where, what = random_activations(60, 4, seed), random_activations(4, 50, seed + 100)
    matrix = where @ what

    found = factorize([matrix], 4, sweeps=100)[0]

    assert relative_error(matrix, found) < 1e-4
    likeness = normalize(found.what, dim=1) @ normalize(what, dim=1).T
    partner = likeness.argmax(dim=1)
    assert sorted(partner.tolist()) == [0, 1, 2, 3]
    assert likeness.amax(dim=1).min() > 0.9999
    assert (normalize(found.where, dim=0) * normalize(where[:, partner], dim=0)).sum(dim=0).min() > 0.9999


def test_blocks_that_share_nothing_are_the_factors() -> None:
    """Two disjoint rank-one blocks come back as they are, the stronger first, each balanced."""
    small = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0]))
    large = torch.outer(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1.0, 3.0, 2.0, 9.0]))

    factors = factorize([torch.block_diag(small, large)], 2)[0]

    expected = torch.block_diag(small, large)
    torch.testing.assert_close(torch.outer(factors.where[:, 0], factors.what[0])[3:, 2:], large)
    torch.testing.assert_close(torch.outer(factors.where[:, 1], factors.what[1])[:3, :2], small)
    torch.testing.assert_close(factors.where @ factors.what, expected)


def test_more_sweeps_never_make_the_error_larger() -> None:
    """Every column update is optimal for its column: where the projection loses nothing, the error only falls."""
    matrix = random_activations(120, 15) @ random_activations(15, 80, seed=1)

    errors = [relative_error(matrix, factorize([matrix], 6, sweeps)[0]) for sweeps in (1, 2, 5, 10, 25, 100)]

    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(errors))
    assert errors[-1] < errors[0] - 0.005


def test_more_factors_make_the_error_smaller() -> None:
    """Each further concept explains something more."""
    matrix = random_activations(120, 80)

    errors = [relative_error(matrix, factorize([matrix], rank)[0]) for rank in (1, 2, 4, 8, 16)]

    assert all(later < earlier for earlier, later in pairwise(errors))


def test_no_faint_concept_is_missed() -> None:
    """Of three faint and one bright group of equal rows each becomes a concept, although the bright one is larger."""
    groups = torch.block_diag(*(torch.full((1, 5), strength) for strength in (10.0, 0.1, 0.2, 0.1)))
    matrix = groups.repeat_interleave(torch.tensor([40, 3, 3, 3]), dim=0)

    found = factorize([matrix], 4)[0]

    torch.testing.assert_close(found.where @ found.what, matrix)


# --- two routes -------------------------------------------------------------------------------------------------


@pytest.fixture
def routes() -> tuple[Dense, LowRank]:
    """Give the same three matrices as they are and as products of rank 5."""
    pairs = [random_product(40, 5, 30, seed) for seed in range(3)]
    where, what = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return Dense(where @ what), LowRank(where, what)


def test_both_routes_multiply_by_concepts_alike(routes: tuple[Dense, LowRank]) -> None:
    """A Vᵀ [B, P, K] is the same."""
    dense, low_rank = routes
    what = torch.stack([random_product(1, 4, 30, seed)[1] for seed in range(7, 10)])

    expected = torch.einsum("bpc,bkc->bpk", dense.values, what)

    torch.testing.assert_close(dense.times_rows(what), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low_rank.times_rows(what), expected, rtol=1e-5, atol=1e-5)


def test_both_routes_multiply_by_maps_alike(routes: tuple[Dense, LowRank]) -> None:
    """Uᵀ A [B, K, C] is the same."""
    dense, low_rank = routes
    where = torch.stack([random_product(40, 4, 1, seed)[0] for seed in range(7, 10)])

    expected = torch.einsum("bpk,bpc->bkc", where, dense.values)

    torch.testing.assert_close(dense.times_maps(where), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low_rank.times_maps(where), expected, rtol=1e-5, atol=1e-5)


def test_both_routes_find_the_same_factors(routes: tuple[Dense, LowRank]) -> None:
    """Factorising the product without multiplying it out changes nothing but rounding."""
    dense, low_rank = routes

    where, what = factorize_batch(dense, 4)
    low_rank_where, low_rank_what = factorize_batch(low_rank, 4)

    torch.testing.assert_close(low_rank_where, where, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(low_rank_what, what, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(low_rank_where @ low_rank_what, where @ what, rtol=1e-3, atol=1e-3)


# --- the stored form --------------------------------------------------------------------------------------------


@slow
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 20), st.integers(1, 5), st.integers(0, 1000))
def test_restored_factors_are_within_half_a_step(height: int, width: int, channels: int, rank: int, seed: int) -> None:
    """No entry moves by more than half of 1/255 of its own factor's largest entry."""
    where, what = random_product(height * width, rank, channels, seed)
    strengths = 10.0 ** torch.arange(rank)  # a weak factor beside strong ones keeps its precision
    factors = Factors(where * strengths, what / strengths.unsqueeze(1))

    restored = restore(quantize(factors, height, width))

    where_step, what_step = factors.where.amax(dim=0) / 255, factors.what.amax(dim=1, keepdim=True) / 255
    assert ((restored.where - factors.where).abs() <= where_step * 0.5001).all()
    assert ((restored.what - factors.what).abs() <= what_step * 0.5001).all()


def test_the_stored_form_is_bytes_with_a_scale_for_each_factor() -> None:
    """Types and shapes are those that shards keep, and the largest entry of each factor is 255."""
    stored = quantize(Factors(*random_product(12, 5, 30)), 3, 4)

    assert (stored.where.shape, stored.where.dtype) == ((12, 5), np.uint8)
    assert (stored.what.shape, stored.what.dtype) == ((5, 30), np.uint8)
    assert (stored.where_scale.shape, stored.where_scale.dtype) == ((5,), np.float32)
    assert (stored.what_scale.shape, stored.what_scale.dtype) == ((5,), np.float32)
    assert stored.where.max(axis=0).tolist() == [255] * 5
    assert stored.what.max(axis=1).tolist() == [255] * 5
    assert (stored.height, stored.width) == (3, 4)


def test_quantizing_rounds_to_the_nearest_step() -> None:
    """With the largest entry at 255, 1.4 becomes 1 and 1.6 becomes 2."""
    where = torch.tensor([[255.0], [1.4], [1.6], [0.0]])

    stored = quantize(Factors(where, torch.tensor([[510.0, 2.9]])), 2, 2)

    assert stored.where[:, 0].tolist() == [255, 1, 2, 0]
    assert stored.what[0].tolist() == [255, 1]
    assert (stored.where_scale.item(), stored.what_scale.item()) == (1.0, 2.0)


def test_a_dead_factor_is_restored_as_zero() -> None:
    """Zero on both sides stays zero: nothing is divided by its largest entry."""
    where, what = random_product(6, 2, 4)
    where[:, 1], what[1] = 0, 0

    restored = restore(quantize(Factors(where, what), 2, 3))

    assert (restored.where[:, 1] == 0).all()
    assert (restored.what[1] == 0).all()
    assert restored.where.dtype == restored.what.dtype == torch.float32


def test_quantizing_twice_changes_nothing_more() -> None:
    """The restored factors lie on the grid already."""
    once = quantize(Factors(*random_product(12, 3, 20)), 3, 4)

    twice = quantize(restore(once), 3, 4)

    np.testing.assert_array_equal(twice.where, once.where)
    np.testing.assert_array_equal(twice.what, once.what)
