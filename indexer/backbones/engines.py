"""Run networks with PyTorch, or on a CPU with OpenVINO if it is installed, which is faster.

Activations of both agree to a thousandth of the largest; this is checked when a network is loaded. `make bench`
measures both for one image of 512 x 672.
"""

import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.indexer.backbones.names import ENGINE_VARIABLE, ENGINES
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import DeviceUnavailable, UnknownName

PRECISIONS: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
# A traced network keeps the padding of the traced example; feature maps of one or two cells need a different padding.
_SMALLEST_SIDE = 128
_TRACED_CELLS = (4, 5)  # of 32 pixels
_DIFFERENCES = {"float32": 1e-3, "bfloat16": 0.1}  # tolerance relative to the largest activation

log = logging.getLogger(__name__)


_Scale = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std


class Engine(Protocol):
    """Runs one network; thread-safe.

    `torch_threads` is the number of torch threads that work well beside it; None for torch's own number.
    """

    name: str
    torch_threads: int | None

    def run(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Map images uint8 [B, h, w, 3] to activations float32 [B, h/stride, w/stride, C]."""


class TorchEngine:
    """Runs the network with PyTorch on any device."""

    name = "torch"
    torch_threads: int | None = None

    def __init__(
        self,
        network: nn.Module,
        scale: _Scale,
        device: torch.device,
        precision: str,
    ) -> None:
        self._device = device
        self._dtype = PRECISIONS[precision]
        # channels_last: measured 1.3 to 1.6 times the speed of NCHW on CPUs, equal results to 4e-5
        self.network = network.eval().to(device, self._dtype).to(memory_format=torch.channels_last)
        self._mean, self._std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in scale)

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Map images to activations."""
        scaled = (torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() - self._mean) / self._std
        # TF32 would move activations by 1e-3 between GPU generations
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            output: Tensor = self.network(scaled.to(self._dtype).contiguous(memory_format=torch.channels_last))
        return output.float().permute(0, 2, 3, 1)


class OpenVinoEngine:
    """Runs the network with OpenVINO on a CPU; very small images, which need other padding, run with PyTorch."""

    name = "openvino"
    # Its threads wait busily for a while after a picture. Measured on two cores: an upload's factorisation takes 23 ms
    # on one thread of torch beside them, 70 on two; batches take the same either way.
    torch_threads: int | None = 1

    def __init__(
        self,
        plain: TorchEngine,
        scale: _Scale,
        precision: str,
        threads: int,
    ) -> None:
        openvino = _openvino()
        self._plain = plain
        try:
            model = _with_pixels_in_and_cells_out(openvino, _converted(plain.network.float()), scale)
        finally:
            plain.network.to(PRECISIONS[precision])
        settings = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # another process may pin to the same cores
        }
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        self._running = threading.Lock()  # one image at a time: each uses all threads

    def run(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Map images to activations."""
        if min(pixels.shape[1:3]) < _SMALLEST_SIDE:
            return self._plain.run(pixels)
        with self._running:
            return torch.from_numpy(self._request.infer([pixels], share_inputs=True)[0])


def make_engine(
    network: nn.Module,
    scale: _Scale,
    device: torch.device,
    precision: str,
    threads: int | None = None,
) -> Engine:
    """Create the fastest available engine for a network with pixels scaled by (mean, std), or WHATWHERE_ENGINE's.

    `threads` is for OpenVINO, by default one per core; PyTorch uses the calling thread's setting. If OpenVINO fails or
    its output differs, PyTorch is used. Raises as `choose_engine`.
    """
    plain = TorchEngine(network, scale, device, precision)
    if choose_engine(device, precision) == TorchEngine.name:
        return plain
    try:
        engine = OpenVinoEngine(plain, scale, precision, threads or available_cores())
        difference = _difference(engine, plain)
    except Exception as error:  # OpenVINO's errors have no common base class
        log.warning("openvino cannot run the network, using torch: %s", (str(error) or repr(error)).splitlines()[0])
        return plain
    if not difference <= _DIFFERENCES[precision]:
        log.warning("openvino differs from torch by %.1e of the largest activation, using torch", difference)
        return plain
    return engine


def choose_engine(device: torch.device, precision: str) -> str:
    """Return the name of the engine to try first: WHATWHERE_ENGINE's, or the fastest available.

    Raises UnknownName if WHATWHERE_ENGINE is not an engine, and DeviceUnavailable if it is not available here.
    """
    asked = os.environ.get(ENGINE_VARIABLE, "auto")
    if asked not in ENGINES:
        raise UnknownName(f"{ENGINE_VARIABLE}={asked!r} is unknown; there are: {', '.join(ENGINES)}")
    obstacle = _obstacle(device, precision)
    if asked == OpenVinoEngine.name and obstacle:
        raise DeviceUnavailable(f"{ENGINE_VARIABLE}=openvino is not available: {obstacle}; use torch or auto")
    return TorchEngine.name if asked == TorchEngine.name or obstacle else OpenVinoEngine.name


def _openvino() -> Any:
    """Import OpenVINO with telemetry disabled."""
    blocked = "openvino_telemetry" not in sys.modules
    if blocked:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino  # noqa: PLC0415
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]
    return openvino


def _obstacle(device: torch.device, precision: str) -> str | None:
    """Return why OpenVINO cannot be used, None if it can."""
    if device.type != "cpu":
        return f"it runs on the CPU only, not on {device.type}"
    if importlib.util.find_spec("openvino") is None:
        return "it is not installed: pip install 'whatwhere[openvino]'"
    if precision == "bfloat16":
        openvino = _openvino()
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "it does not support bfloat16 on this processor"
    return None


def _converted(network: nn.Module) -> Any:
    """Convert a network to an OpenVINO model for any batch and image size.

    The frontend is called directly: OpenVINO's converter takes four times as long.
    """
    from openvino.frontend import FrontEndManager  # noqa: PLC0415 # an extra
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415

    rows, columns = (32 * cells for cells in _TRACED_CELLS)
    example = torch.zeros(1, 3, rows, columns)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated, but OpenVINO's frontend needs it
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced, example_input=example)  # the model does not keep it alive
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


def _with_pixels_in_and_cells_out(openvino: Any, model: Any, scale: _Scale) -> Any:
    """Add scaling and layout conversion to a model: uint8 [B, h, w, 3] in, float32 [B, h', w', C] out."""
    steps = openvino.preprocess.PrePostProcessor(model)
    picture = steps.input()
    picture.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    picture.model().set_layout(openvino.Layout("NCHW"))
    picture.preprocess().convert_element_type(openvino.Type.f32).mean(list(scale[0])).scale(list(scale[1]))
    steps.output().model().set_layout(openvino.Layout("NCHW"))
    steps.output().tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NHWC"))
    return steps.build()


def _difference(engine: Engine, other: Engine) -> float:
    """Return two engines' largest difference over the largest activation, for a test image of colored squares."""
    squares = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), dtype=np.uint8)
    pixels = squares.repeat(32, axis=1).repeat(32, axis=2)
    ours, theirs = engine.run(pixels), other.run(pixels)
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
