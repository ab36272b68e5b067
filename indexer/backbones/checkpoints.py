"""Read checkpoint files without executing code, and check that they fit a network."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Size, Tensor

from whatwhere.indexer.errors import WeightsUnavailable

_NAMES_TOLD = 20  # of what is missing or unexpected


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint, name → tensor, onto the CPU: safetensors by its suffix, else a torch file without code.

    WeightsUnavailable for a torn file, and for one that holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes: UnpicklingError, EOFError, RuntimeError, KeyError, SafetensorError, ...
        raise WeightsUnavailable(
            f"{path} is torn, or holds more than tensors, which is never loaded since it can run code: save "
            "model.state_dict() with torch.save or safetensors"
        ) from error
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsUnavailable(f"{path} holds no tensors by name: save model.state_dict() itself, not what is around")
    return dict(content)


def require_fit(given: Mapping[str, Tensor], needed: Mapping[str, Size], optional: Collection[str]) -> None:
    """Raise ValueError that lists what is missing of `needed`, what is neither needed nor optional, what is misshapen.

    How many batches a batch norm has seen is never needed and always allowed: nothing is computed from it.
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
    problems = [f"{what}: {_listed(listed)}" for what, listed in found.items() if listed]
    if problems:
        raise ValueError("; ".join(problems))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return ", ".join(names[:_NAMES_TOLD]) + more
