"""Read checkpoints without executing code, and check that they fit a network."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Size, Tensor

from whatwhere.indexer.errors import WeightsUnavailable

_MAX_NAMES = 20  # listed in an error message, per problem


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint, name → tensor, onto the CPU: safetensors by extension, else a PyTorch file.

    Raises WeightsUnavailable if the file is corrupt, or if it contains anything but named tensors (it could run code).
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # invalid bytes: UnpicklingError, EOFError, RuntimeError, KeyError, SafetensorError, ...
        raise WeightsUnavailable(
            f"{path} is corrupt, or contains other objects than tensors, which could run code and are not loaded: save "
            "model.state_dict() with torch.save or safetensors"
        ) from error
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsUnavailable(f"{path} is not a mapping of names to tensors: save model.state_dict() only")
    return dict(content)


def require_fit(given: Mapping[str, Tensor], needed: Mapping[str, Size], optional: Collection[str]) -> None:
    """Raise ValueError if tensors are missing, unexpected (neither needed nor optional) or of another shape; list them.

    `num_batches_tracked` of batch norms is ignored: inference does not use it.
    """
    names = {name for name in given if not name.endswith(".num_batches_tracked")}
    misshapen = [
        f"{name} {list(given[name].shape)}, not {list(shape)}"
        for name, shape in needed.items()
        if name in names and given[name].shape != shape
    ]
    found = {
        "missing": [name for name in needed if name not in names],
        "unexpected": sorted(names - needed.keys() - set(optional)),
        "of another shape": misshapen,
    }
    problems = [f"{problem}: {_listed(listed)}" for problem, listed in found.items() if listed]
    if problems:
        raise ValueError("; ".join(problems))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
