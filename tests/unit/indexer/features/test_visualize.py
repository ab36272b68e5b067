"""Pictures of concepts: the ascent climbs far above what noise and photographs reach, and is repeatable."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tests.unit.indexer.backbones.test_torchvision_networks import saved, trained
from whatwhere.indexer.backbones.backbone import Backbone, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, ENGINE_VARIABLE
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.nmf import restore
from whatwhere.indexer.features.pooling import crow_channel_weights
from whatwhere.indexer.features.visualize import cosine_to, objective, visualize_row

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 96
STEPS = 48
CHANNELS = 1280
DEAD_ON_NOISE = (805, 1259)


@pytest.fixture(scope="module")
def backbone(describer: Describer) -> Backbone:
    """Give the network that is used by default."""
    return describer.backbone


@pytest.fixture(scope="module")
def noise(backbone: Backbone) -> list[Tensor]:
    """Give the activations of a hundred pictures of coloured noise, of grain 1 to 32."""
    random = torch.Generator().manual_seed(0)
    pictures = []
    for number in range(100):
        grains = torch.rand(1, 3, SIZE >> number % 6, SIZE >> number % 6, generator=random)
        pictures.append((functional.interpolate(grains, size=SIZE)[0].permute(1, 2, 0) * 255).byte().numpy())
    return backbone.activations(pictures)


def dots_and_cosines(concept: Tensor, activations: Sequence[Tensor]) -> NDArray[np.float64]:
    """Compare activations of pictures with a concept in plain NumPy, as the factorisation weighs channels: [N, 2]."""
    row = concept.double().numpy()
    found = []
    for grid in activations:
        shown = (grid * crow_channel_weights(grid)).mean(dim=(0, 1)).double().numpy()
        dot = shown @ row / np.linalg.norm(row)
        found.append((dot, dot / max(np.linalg.norm(shown), 1e-9)))
    return np.array(found)


@pytest.mark.parametrize("number", [0, 3], ids=["motorbike", "cat"])
def test_the_ascent_climbs_far_above_noise_and_photographs(
    backbone: Backbone,
    described: list[Description],
    pictures: list[NDArray[np.uint8]],
    noise: list[Tensor],
    number: int,
) -> None:
    """Nothing else shows so much of the concept, nor so much like it: not even the photograph that it is of."""
    concept = restore(described[number].factors).what[0]

    made = visualize_row(backbone, concept, size=SIZE, steps=STEPS)

    reached = dots_and_cosines(concept, backbone.activations([made]))[0]
    others = dots_and_cosines(concept, [*noise, *backbone.activations(pictures)])
    assert made.shape == (SIZE, SIZE, 3)
    assert made.dtype == np.uint8
    assert reached[0] > 3 * others[:, 0].max()
    assert reached[1] > others[:, 1].max()


@pytest.mark.parametrize("channel", DEAD_ON_NOISE)
def test_a_channel_that_is_dead_on_noise_becomes_the_strongest_of_all(
    backbone: Backbone, noise: list[Tensor], channel: int
) -> None:
    """A concept of one channel has no gradient on grey: it is found nevertheless."""
    concept = functional.one_hot(torch.tensor(channel), CHANNELS).float()

    made = visualize_row(backbone, concept, size=SIZE, steps=STEPS)

    means = backbone.activations([made])[0].mean(dim=(0, 1))
    of_noise = torch.stack([grid[..., channel].mean() for grid in noise])
    assert (of_noise == 0).float().mean() > 0.5
    assert int(means.argmax()) == channel
    assert means[channel] > 3 * of_noise.max()


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_other_networks_are_climbed_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks without a ceiling on activations; their weights are random, so that all pictures look much alike."""
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")  # only torch has gradients
    backbone = load_backbone(
        name, torch.device("cpu"), weights=saved(trained(name, side=128), tmp_path / "weights.safetensors")
    )
    concept = torch.zeros(backbone.spec.channels)
    concept[[3, 50, 200, 400]] = 1

    start, made = (visualize_row(backbone, concept, size=64, steps=steps) for steps in (0, 32))

    before, after = dots_and_cosines(concept, backbone.activations([start, made]))
    assert after[0] > 2 * before[0]
    assert after[1] > before[1]


def test_the_same_seed_gives_the_same_picture(backbone: Backbone, described: list[Description]) -> None:
    """And another seed another one."""
    concept = restore(described[0].factors).what[0]

    first, second, other = (visualize_row(backbone, concept, size=64, steps=3, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_engine_that_describes_pictures_has_no_say(
    backbone: Backbone, described: list[Description], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is torch that climbs, also where OpenVINO runs the network."""
    monkeypatch.setenv("WHATWHERE_ENGINE", "torch")
    plain = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"))
    concept = restore(described[0].factors).what[0]

    made = [visualize_row(network, concept, size=64, steps=3) for network in (backbone, plain)]

    assert np.array_equal(made[0], made[1])


def test_the_network_stays_as_it_was(described: list[Description], pictures: list[NDArray[np.uint8]]) -> None:
    """Who describes pictures at the same time does so with the network as it was loaded."""
    backbone = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"))
    modules = [type(module) for module in backbone.network.modules()]
    (before,) = backbone.activations(pictures[:1])

    visualize_row(backbone, restore(described[0].factors).what[0], size=64, steps=2)

    assert [type(module) for module in backbone.network.modules()] == modules
    assert all(parameter.requires_grad and parameter.grad is None for parameter in backbone.network.parameters())
    assert torch.equal(backbone.activations(pictures[:1])[0], before)


def test_progress_is_told_after_every_step(backbone: Backbone, described: list[Description]) -> None:
    """How many are done, and of how many."""
    told: list[tuple[int, int]] = []

    visualize_row(
        backbone,
        restore(described[0].factors).what[0],
        size=32,
        steps=3,
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("size", [0, 100, -32])
def test_a_size_that_the_network_cannot_take_is_refused(backbone: Backbone, size: int) -> None:
    """The message names it."""
    with pytest.raises(InvalidRequest, match=f"size is {size}: it must be a multiple of 32") as caught:
        visualize_row(backbone, torch.ones(CHANNELS), size=size)

    assert caught.value.field == "size"


def test_the_objective_is_that_of_the_weighted_means_by_hand() -> None:
    """Means 3 and 0.5, shares of active cells 1 and 0.5: weights log(1.5 / 1) and log(1.5 / 0.5)."""
    activations = torch.tensor([[[2.0, 0.0]], [[4.0, 1.0]]])
    shown = np.array([3 * np.log(1.5), 0.5 * np.log(3)])

    score, cosine = (float(each) for each in scores(activations, torch.tensor([5.0, 0.0])))

    assert cosine == pytest.approx(shown[0] / np.linalg.norm(shown))
    assert score == pytest.approx(shown[0] * cosine**2)


def test_what_does_not_show_the_concept_yet_has_a_way_up() -> None:
    """A cosine below a tenth counts as a tenth."""
    activations = torch.tensor([[[0.01, 1.0]]])

    score, cosine = (float(each) for each in scores(activations, torch.tensor([1.0, 0.0])))

    assert 0 < cosine < 0.1
    assert score == pytest.approx(0.01 * np.log(2) * 0.1**2)


def scores(activations: Tensor, concept: Tensor) -> tuple[Tensor, Tensor]:
    return objective(activations, concept), cosine_to(concept, activations)
