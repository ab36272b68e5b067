"""Name what networks run on and in, and the default network. Plain values: importing this needs no torch."""

DEFAULT_BACKBONE = "efficientnet-lite0"
DEVICES = ("auto", "cpu", "cuda")
DEFAULT_DEVICE = "auto"
PRECISION_NAMES = ("float32", "bfloat16")
DEFAULT_PRECISION = "float32"
ENGINE_VARIABLE = "WHATWHERE_ENGINE"
ENGINES = ("auto", "torch", "openvino")
