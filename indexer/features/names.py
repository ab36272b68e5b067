"""Name the descriptors and presets, and say what each is made of. Plain values: importing this needs no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from whatwhere.indexer.errors import UnknownName

WHAT, WHAT_AND_WHERE, FUSED = "what", "what-and-where", "fused"
BASELINES = ("mac", "r-mac", "crow", "gem")
DESCRIPTORS = (WHAT, WHAT_AND_WHERE, FUSED, *BASELINES)
BEST_FIRST = (FUSED, WHAT_AND_WHERE, WHAT, "r-mac", "gem", "crow", "mac")  # as measured
DEFAULT_PRESET = "default"
DEFAULT_DESCRIPTORS = (WHAT, WHAT_AND_WHERE, FUSED)
DEFAULT_RANK = 8  # factors of an image
MAX_RANK = 64
DEFAULT_DIMENSIONS = 512  # of a whitened vector
VISUALIZATION_STEPS = 128  # twice as many raise the objective by a tenth, and add texture rather than shapes


@dataclass(frozen=True)
class Part:
    """Rows that are summed with one whitener, trained on the rows `training_rows(whitener)`.

    `rows` names how the rows are made (see ROWS in `features.descriptors`). `share` is the fraction of the vector's
    squared length; `pooled` names the pooled rows that the part needs, if any.
    """

    rows: str
    whitener: str
    share: float = 1.0
    pooled: str | None = None


@dataclass(frozen=True)
class Composition:
    """What a descriptor of one preset is made of; its vector is the concatenation of its parts."""

    name: str
    preset: str
    parts: tuple[Part, ...]

    @property
    def uses_factors(self) -> bool:
        """Whether a region selects stored factors; a baseline's rows are pooled from the cropped image."""
        return self.name not in BASELINES

    @property
    def whiteners(self) -> tuple[str, ...]:
        """The names of the parts' whiteners (see `training_rows`)."""
        return tuple(part.whitener for part in self.parts)


_RMAC = Part("r-mac-windows", "r-mac", pooled="r-mac")
_BASELINES = {name: (Part(name, name, pooled=name),) for name in BASELINES}
_V_THESIS = Part("factors", "what")
_VU_THESIS = Part("interacting-factors", "what-and-where")
_V_DEFAULT = Part("weighted-factors", "cells")
_VU_DEFAULT = Part("windows", "cells")


def _half(part: Part) -> Part:
    return replace(part, share=0.5)


_TABLE: Mapping[str, Mapping[str, tuple[Part, ...]]] = MappingProxyType(
    {
        DEFAULT_PRESET: {
            WHAT: (_V_DEFAULT,),
            WHAT_AND_WHERE: (_VU_DEFAULT,),
            FUSED: (_half(_VU_DEFAULT), _half(_RMAC)),
            **_BASELINES,
        },
        "thesis": {
            WHAT: (_V_THESIS,),
            WHAT_AND_WHERE: (_VU_THESIS,),
            FUSED: (_half(_VU_THESIS), _half(_RMAC)),
            **_BASELINES,
        },
    }
)
PRESETS = tuple(_TABLE)


def find_composition(descriptor: str, preset: str = DEFAULT_PRESET) -> Composition:
    """Return what a descriptor of a preset is made of. Raises UnknownName if either does not exist."""
    if preset not in _TABLE:
        raise UnknownName(f"preset {preset!r} is unknown; there are: {', '.join(PRESETS)}", field="preset")
    if descriptor not in DESCRIPTORS:
        raise UnknownName(f"descriptor {descriptor!r} is unknown; there are: {', '.join(DESCRIPTORS)}")
    return Composition(descriptor, preset, _TABLE[preset][descriptor])


def pooled_by(methods: Iterable[Composition]) -> tuple[str, ...]:
    """Return the kinds of pooling that descriptions need for these descriptors."""
    return tuple(dict.fromkeys(part.pooled for method in methods for part in method.parts if part.pooled))
