"""What computes a network: OpenVINO against torch, and torch wherever OpenVINO cannot or must not."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.conftest import SCIKIT_IMAGE
from tests.unit.indexer.backbones.test_backbones import independent
from tests.unit.indexer.backbones.test_torchvision_networks import saved, trained
from whatwhere.indexer.backbones import engines
from whatwhere.indexer.backbones.backbone import Backbone, load_backbone
from whatwhere.indexer.backbones.engines import Engine, OpenVinoEngine, make_engine
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.errors import DeviceUnavailable, UnknownName
from whatwhere.indexer.images.decode import decode_image

pytestmark = [pytest.mark.usefixtures("one_thread", "unasked"), pytest.mark.takes(45)]

CPU = torch.device("cpu")
SCALE = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
ROOT = Path(__file__).resolve().parents[4]
# Loads the default network as a program does that has loaded nothing, and says what else that did.
LOADING = """
import json, sys, warnings
import torch
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.backbones.backbone import load_backbone

asked = []

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        asked.append(str(arguments[-2:]))
        raise OSError("no network here")

sys.addaudithook(refuse)
with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter("always")
    backbone = load_backbone(DEFAULT_BACKBONE, torch.device("cpu"))
print(json.dumps({
    "engine": backbone.engine.name,
    "statistics": [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]],
    "asked": asked,
    "warnings": [str(warning.message) for warning in raised],
}))
"""


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for no engine, whatever the shell asks for."""
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def openvino() -> Any:
    """Give the package as the engine imports it: imported before, it would not be."""
    make_engine(nn.ReLU(), SCALE, CPU, "float32")
    return sys.modules["openvino"]


@pytest.fixture(scope="module")
def backbones() -> Iterator[tuple[Backbone, Backbone]]:
    """Give the default network by the engine that is chosen for it, and by torch because it was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        yield both(patch, DEFAULT_BACKBONE)


@pytest.fixture
def telling(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Give what reads the warnings logged so far."""
    caplog.set_level(logging.WARNING)
    return lambda: " | ".join(
        record.getMessage() for record in caplog.records if record.name == "whatwhere.indexer.backbones.engines"
    )


def both(patch: pytest.MonkeyPatch, name: str, weights: Path | None = None) -> tuple[Backbone, Backbone]:
    """Load a network twice: by the engine that is chosen for it, and by torch because it was asked for."""
    patch.delenv(ENGINE_VARIABLE, raising=False)
    chosen = load_backbone(name, CPU, weights=weights)
    patch.setenv(ENGINE_VARIABLE, "torch")
    asked = load_backbone(name, CPU, weights=weights)
    patch.delenv(ENGINE_VARIABLE)
    return chosen, asked


def photograph(name: str, rows: int | None = None, columns: int | None = None, shorter: int = 512) -> NDArray[np.uint8]:
    """Give a photograph as the network sees it, or the upper left of it."""
    path = SCIKIT_IMAGE / name
    pixels = decode_image(path.read_bytes(), path.name, shorter_side=shorter).pixels
    return pixels[:rows, :columns].copy()


def noise(rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Give one picture [1, rows, columns, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (1, rows, columns, 3), dtype=np.uint8)


def require_alike(found: Tensor, expected: Tensor) -> None:
    """Assert that activations are equal to a thousandth of the largest, which is above 0."""
    largest = float(expected.max())
    assert largest > 0.01
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * largest)


def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package look as if it was not installed."""
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] == "openvino" else find_spec(name, package)

    monkeypatch.setattr(engines.importlib.util, "find_spec", find)


def with_processor(monkeypatch: pytest.MonkeyPatch, openvino: Any, *, bfloat16: bool) -> list[dict[str, Any]]:
    """Let OpenVINO say that the processor has bfloat16 or not; return the settings that it is asked for from now on."""
    asked: list[dict[str, Any]] = []

    class Core(openvino.Core):
        def get_property(self, *names: Any) -> Any:
            value = super().get_property(*names)
            if names[-1] != "OPTIMIZATION_CAPABILITIES":
                return value
            return [name for name in value if name != "BF16"] + ["BF16"] * bfloat16

        def compile_model(self, model: Any, device: str, config: dict[str, Any]) -> Any:
            asked.append(config)
            return super().compile_model(model, device, config)

    monkeypatch.setattr(openvino, "Core", Core)
    return asked


def compiled_property(engine: Engine, name: str) -> Any:
    """Return what OpenVINO says of a network that it has compiled."""
    assert isinstance(engine, OpenVinoEngine)
    return engine._request.get_compiled_model().get_property(name)


# --- the same activations ---------------------------------------------------------------------------------------


def test_a_cpu_uses_openvino_unless_torch_is_asked_for(backbones: tuple[Backbone, Backbone]) -> None:
    """Where it is installed it is the faster one."""
    assert [backbone.engine.name for backbone in backbones] == ["openvino", "torch"]


@pytest.mark.parametrize(
    "pixels",
    [
        photograph("astronaut.png", shorter=128),
        photograph("astronaut.png", shorter=256),
        photograph("coffee.png"),
        photograph("rocket.jpg", shorter=224),
        photograph("chelsea.png", 128, 512),
        photograph("rocket.jpg", 448, 160),
        photograph("chelsea.png", 64, 512),
        photograph("coffee.png", 512, 32),
    ],
    ids=lambda pixels: f"{pixels.shape[0]} x {pixels.shape[1]}",
)
def test_photographs_of_any_size_have_the_activations_that_torch_gives(
    backbones: tuple[Backbone, Backbone], pixels: NDArray[np.uint8]
) -> None:
    """To a thousandth of the largest, with as many cells."""
    found, expected = (backbone.activations([pixels])[0] for backbone in backbones)

    assert found.shape == (pixels.shape[0] // 32, pixels.shape[1] // 32, 1280)
    require_alike(found, expected)


def test_activations_are_those_of_an_independent_implementation(backbones: tuple[Backbone, Backbone]) -> None:
    """Pixels are scaled and turned as the network was trained."""
    pixels = photograph("chelsea.png", shorter=160)

    found = backbones[0].activations([pixels])[0]

    with torch.inference_mode():
        scaled = (torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() - 127) / 128
        expected = independent(DEFAULT_BACKBONE).extract_features(scaled)[0].permute(1, 2, 0)
    require_alike(found, expected)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn:features.27", "mobilenet_v2:features.18"])
def test_networks_that_pad_by_reflection_have_the_activations_that_torch_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At sizes other than the one it was converted with, in both directions, and long and thin."""
    path = saved(trained(find_backbone(name).weights.network, side=128), tmp_path / "weights.pth")
    pictures = [
        photograph("coffee.png", 128, 224),
        photograph("rocket.jpg", 192, 128),
        photograph("astronaut.png", 32, 160),
        photograph("chelsea.png", 160, 64),
    ]

    chosen, asked = both(monkeypatch, name, path)

    assert (chosen.engine.name, asked.engine.name) == ("openvino", "torch")
    for found, expected in zip(chosen.activations(pictures), asked.activations(pictures), strict=True):
        require_alike(found, expected)


@pytest.mark.parametrize(("rows", "columns"), [(32, 512), (512, 32), (64, 256), (96, 96)])
def test_a_long_thin_picture_stays_with_torch(
    backbones: tuple[Backbone, Backbone], monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    """OpenVINO is not even there to be asked, and the numbers are those of torch to the last bit."""
    monkeypatch.setattr(backbones[0].engine, "_request", None)
    pixels = photograph("coffee.png", rows, columns)

    found, expected = (backbone.activations([pixels])[0] for backbone in backbones)

    assert torch.equal(found, expected)


def test_a_picture_of_four_cells_a_side_does_not_stay_with_torch(
    backbones: tuple[Backbone, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the smallest that OpenVINO is asked for."""
    monkeypatch.setattr(backbones[0].engine, "_request", None)

    with pytest.raises(AttributeError, match="infer"):
        backbones[0].activations([photograph("coffee.png", 128, 128)])


def test_activations_stay_as_they_are_when_another_picture_is_run(backbones: tuple[Backbone, Backbone]) -> None:
    """What OpenVINO writes into next is not what it gave."""
    engine = backbones[0].engine
    pixels = noise(128, 160)
    given = engine.run(pixels)
    before = given.clone()

    engine.run(255 - pixels)

    assert torch.equal(given, before)


def test_threads_at_once_get_the_activations_they_get_alone(backbones: tuple[Backbone, Backbone]) -> None:
    """Eight threads with pictures of two sizes, several times over."""
    engine = backbones[0].engine
    pictures = [noise(128, 160 if seed % 2 else 192, seed) for seed in range(8)]
    alone = [engine.run(pixels) for pixels in pictures]

    with ThreadPoolExecutor(len(pictures)) as pool:
        together = list(pool.map(engine.run, pictures * 4))

    for found, expected in zip(together, alone * 4, strict=True):
        assert torch.equal(found, expected)


# --- which engine -----------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_told_the_names_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong value and the remedy stand in the message."""
    monkeypatch.setenv(ENGINE_VARIABLE, "nonsense")

    with pytest.raises(UnknownName, match="WHATWHERE_ENGINE='nonsense' is unknown; there are: auto, torch, openvino"):
        load_backbone(DEFAULT_BACKBONE, CPU)


def test_openvino_that_is_not_installed_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name, it is not silently replaced; the extra to install stands in the message."""
    without_openvino(monkeypatch)
    monkeypatch.setenv(ENGINE_VARIABLE, "openvino")

    with pytest.raises(DeviceUnavailable, match=r"openvino is not available: .*pip install 'whatwhere\[openvino\]'"):
        load_backbone(DEFAULT_BACKBONE, CPU)


@pytest.mark.parametrize("asked", [None, "auto", "torch"])
def test_torch_does_without_openvino(
    monkeypatch: pytest.MonkeyPatch, telling: Callable[[], str], asked: str | None
) -> None:
    """An extra that is not installed is nothing to warn of."""
    without_openvino(monkeypatch)
    if asked:
        monkeypatch.setenv(ENGINE_VARIABLE, asked)

    engine = make_engine(nn.ReLU(), SCALE, CPU, "float32")

    assert engine.name == "torch"
    assert not telling()


@pytest.mark.parametrize("asked", ["auto", "openvino"])
def test_openvino_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, telling: Callable[[], str], asked: str) -> None:
    """By name, or as what is best."""
    monkeypatch.setenv(ENGINE_VARIABLE, asked)

    engine = make_engine(nn.ReLU(), SCALE, CPU, "float32")

    assert engine.name == "openvino"
    assert not telling()


def test_openvino_is_for_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network on another device is torch's, and asking for OpenVINO there is a named error."""
    assert make_engine(nn.ReLU(), SCALE, torch.device("meta"), "float32").name == "torch"

    monkeypatch.setenv(ENGINE_VARIABLE, "openvino")
    with pytest.raises(DeviceUnavailable, match="on the CPU only, not on meta"):
        make_engine(nn.ReLU(), SCALE, torch.device("meta"), "float32")


@pytest.mark.parametrize(("asked", "used"), [(1, 1), (None, 2)])
def test_openvino_takes_the_threads_that_are_asked_for(
    openvino: Any, monkeypatch: pytest.MonkeyPatch, asked: int | None, used: int
) -> None:
    """Without a number it takes as many as torch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    settings = with_processor(monkeypatch, openvino, bfloat16=False)

    engine = make_engine(nn.ReLU(), SCALE, CPU, "float32", asked)

    assert [setting["INFERENCE_NUM_THREADS"] for setting in settings] == [used]
    assert compiled_property(engine, "INFERENCE_NUM_THREADS") <= used  # fewer where there are fewer cores


def test_a_network_is_loaded_with_the_threads_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach OpenVINO, which would otherwise take as many as torch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    backbone = load_backbone(DEFAULT_BACKBONE, CPU, threads=1)

    assert compiled_property(backbone.engine, "INFERENCE_NUM_THREADS") == 1


# --- bfloat16 ---------------------------------------------------------------------------------------------------


def test_half_precision_stays_near_by_the_engine_that_the_processor_allows(
    backbones: tuple[Backbone, Backbone], openvino: Any
) -> None:
    """OpenVINO only where it says that it computes in bfloat16 here; the activations point the same way."""
    pixels = photograph("chelsea.png", shorter=160)

    half = load_backbone(DEFAULT_BACKBONE, CPU, precision="bfloat16")

    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert half.engine.name == ("openvino" if capable else "torch")
    found, full = half.activations([pixels])[0], backbones[1].activations([pixels])[0]
    assert found.dtype == torch.float32
    assert not torch.equal(found, full)
    assert torch.cosine_similarity(found.flatten(), full.flatten(), dim=0) > 0.99


def test_a_processor_without_bfloat16_leaves_it_to_torch(openvino: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for OpenVINO there is a named error; in float32 it is used all the same."""
    with_processor(monkeypatch, openvino, bfloat16=False)
    assert make_engine(nn.ReLU(), SCALE, CPU, "bfloat16").name == "torch"
    assert make_engine(nn.ReLU(), SCALE, CPU, "float32").name == "openvino"

    monkeypatch.setenv(ENGINE_VARIABLE, "openvino")
    with pytest.raises(DeviceUnavailable, match="does not support bfloat16"):
        make_engine(nn.ReLU(), SCALE, CPU, "bfloat16")


def test_a_processor_with_bfloat16_is_asked_to_use_it(
    backbones: tuple[Backbone, Backbone], openvino: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 it is not; thin pictures are torch's in bfloat16 too."""
    settings = with_processor(monkeypatch, openvino, bfloat16=True)
    pictures = [photograph("chelsea.png", shorter=160), photograph("chelsea.png", 64, 256)]

    half = load_backbone(DEFAULT_BACKBONE, CPU, precision="bfloat16")
    make_engine(nn.ReLU(), SCALE, CPU, "float32")

    assert half.engine.name == "openvino"
    assert [setting["INFERENCE_PRECISION_HINT"] for setting in settings] == ["bf16", "f32"]
    pairs = list(zip(half.activations(pictures), backbones[1].activations(pictures), strict=True))
    for found, full in pairs:
        assert torch.cosine_similarity(found.flatten(), full.flatten(), dim=0) > 0.99
    assert torch.equal(pairs[1][0], pairs[1][0].bfloat16().float())


# --- what OpenVINO cannot ---------------------------------------------------------------------------------------


class DependsOnValues(nn.Module):
    """Traced with a black picture, it is taken for one that gives nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if bool(x.abs().sum() > 0) else x * 0


class DependsOnSize(nn.Module):
    """Traced with a picture of one size, it is taken for one that multiplies by a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() * int(x.shape[2] * x.shape[3])


@pytest.mark.parametrize("network", [DependsOnValues(), DependsOnSize()], ids=lambda network: type(network).__name__)
def test_a_network_that_openvino_gets_wrong_is_left_to_torch(network: nn.Module, telling: Callable[[], str]) -> None:
    """It is compared when it is loaded, and a warning tells why."""
    engine = make_engine(network, SCALE, CPU, "float32")

    assert engine.name == "torch"
    assert "openvino differs from torch" in telling()
    pixels = noise(192, 224)
    scaled = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
    torch.testing.assert_close(engine.run(pixels), network(scaled).permute(0, 2, 3, 1))


def test_a_network_that_openvino_gives_no_numbers_for_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, telling: Callable[[], str]
) -> None:
    """NaN is as far from torch as can be, though it compares as no larger than anything."""
    run = OpenVinoEngine.run
    monkeypatch.setattr(OpenVinoEngine, "run", lambda engine, pixels: run(engine, pixels) * float("nan"))

    engine = make_engine(nn.ReLU(), SCALE, CPU, "float32")

    assert engine.name == "torch"
    assert "openvino differs from torch" in telling()


class Bessel(nn.Module):
    """Computes what OpenVINO has no operation for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x).relu()


def test_a_network_with_an_operation_that_openvino_has_not_is_left_to_torch(telling: Callable[[], str]) -> None:
    """A warning tells why."""
    engine = make_engine(Bessel(), SCALE, CPU, "float32")

    assert engine.name == "torch"
    assert "openvino cannot run the network, using torch" in telling()


def _failing(words: Sequence[str]) -> Callable[[nn.Module], NoReturn]:
    def convert(_: nn.Module) -> NoReturn:
        raise RuntimeError(*words)

    return convert


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("words", [("no such operation\nand many lines of where",), ()], ids=["told", "untold"])
def test_a_network_that_cannot_be_converted_is_computed_by_torch(
    openvino: Any, monkeypatch: pytest.MonkeyPatch, telling: Callable[[], str], words: Sequence[str], precision: str
) -> None:
    """In the precision that was asked for; the first line of the reason is logged, where there is one."""
    with_processor(monkeypatch, openvino, bfloat16=True)
    monkeypatch.setattr(engines, "_converted", _failing(words))
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 1)
    weight, bias = network.weight.detach().clone().reshape(4, 3), network.bias.detach().clone()  # type: ignore[union-attr]

    engine = make_engine(network, SCALE, CPU, precision)

    assert engine.name == "torch"
    assert "openvino cannot run the network, using torch" in telling()
    assert "many lines" not in telling()
    assert not words or "no such operation" in telling()
    pixels = noise(128, 128)
    expected = (torch.from_numpy(pixels).float() - 127) / 128 @ weight.T + bias
    torch.testing.assert_close(engine.run(pixels), expected, rtol=0, atol=1e-5 if precision == "float32" else 0.05)


# --- loading ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Path]]:
    """Give what loading the network does in a process of its own, and the files in its fresh home."""
    home = tmp_path_factory.mktemp("home")
    # in continuous integration nothing would be sent anyway
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS", "LANG")}
    done = subprocess.run(
        [sys.executable, "-c", LOADING], env=kept | {"HOME": str(home)}, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1]), sorted(home.rglob("*"))


def test_loading_sends_no_statistics(loaded: tuple[dict[str, Any], list[Path]]) -> None:
    """What OpenVINO would send them with is not imported, and the network is not asked for."""
    assert loaded[0]["engine"] == "openvino"
    assert loaded[0]["statistics"] == []
    assert loaded[0]["asked"] == []


def test_loading_writes_nothing_into_the_home(loaded: tuple[dict[str, Any], list[Path]]) -> None:
    """No number to know this user by."""
    assert loaded[0]["engine"] == "openvino"
    assert loaded[1] == []


def test_loading_raises_no_warning(loaded: tuple[dict[str, Any], list[Path]]) -> None:
    """Tracing is deprecated in torch: nobody who loads a network can do anything about it."""
    assert loaded[0]["engine"] == "openvino"
    assert loaded[0]["warnings"] == []
