"""The recipe of a collection: how its images are described, and how vectors are computed from that."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from whatwhere.indexer.collection import identity as identities
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.sealed import read_sealed, write_sealed
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, CollectionNotFound, InvalidRequest
from whatwhere.indexer.features.names import Composition, find_composition, pooled_by
from whatwhere.indexer.features.whitening import WhitenerKey
from whatwhere.indexer.vectors.names import AUTO

# These decide the vectors, and may change with any generation. All other fields decide the descriptions, for good.
_DERIVING = ("descriptors", "preset", "index_factory")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how the images of a collection are described and searched.

    `pooled` names the rows that shards keep of an image beside its factors. `index_factory` is the faiss factory string
    of large segments, or `auto`.
    """

    backbone: str
    layer: str
    weights_sha256: str
    rank: int
    shorter_side: int
    precision: str
    pooled: tuple[str, ...]
    descriptors: tuple[str, ...]
    preset: str
    index_factory: str = AUTO

    def save(self, layout: Layout, identity: Identity | None = None) -> None:
        """Write the recipe and the identity of a collection, by default the identity that it has."""
        write_sealed(layout.recipe, asdict(self) | {identities.NAME: asdict(identity or Identity.of(layout))})
        layout.keep(layout.recipe)

    @classmethod
    def load(cls, layout: Layout) -> Self:
        """Read the recipe that the collection was created with; the live generation's manifest has the current one.

        Raises CollectionNotFound, CollectionCorrupt, CollectionMismatch (written by a newer version).
        """
        try:
            values, _ = read_sealed(layout.fetch(layout.recipe, refetch=True))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CollectionNotFound(
                f"{layout} holds no collection: create one with `whatwhere index PATH... --collection {layout}`"
            ) from error
        try:
            return cls.from_json(values)
        except (KeyError, TypeError, ValueError) as error:
            raise CollectionCorrupt(
                f"{layout.recipe} lacks an entry or has an unknown one ({error}): restore it"
            ) from error

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the recipe in JSON values, converted from older formats; KeyError, TypeError for other values."""
        known = {name: value for name, value in values.items() if name not in ("format_version", identities.NAME)}
        known["descriptors"] = tuple(known["descriptors"])
        if values.get("format_version") == 1:  # format 1 had no choice of these
            pooled = pooled_by(find_composition(name, "thesis") for name in known["descriptors"])
            known |= {"precision": "float32", "preset": "thesis", "pooled": pooled}
        known["pooled"] = tuple(known["pooled"])
        return cls(**known)

    @property
    def methods(self) -> tuple[Composition, ...]:
        """The descriptors of the preset; UnknownName for one that this version does not have."""
        return tuple(find_composition(name, self.preset) for name in self.descriptors)

    def whitener_key(self, rows: str) -> WhitenerKey:
        """Return the key that a whitener of these rows (see `Part.whitener`) must have."""
        return WhitenerKey(self.backbone, self.layer, self.weights_sha256, rows)

    def derived_as(self, descriptors: tuple[str, ...], preset: str, index_factory: str) -> Self:
        """Return the recipe of the same images with other vectors; InvalidRequest if shards lack what these need."""
        changed = replace(self, descriptors=descriptors, preset=preset, index_factory=index_factory)
        lacking = set(pooled_by(changed.methods)) - set(self.pooled)
        if lacking:
            raise InvalidRequest(
                f"the shards keep no rows of {', '.join(sorted(lacking))}, which {', '.join(descriptors)} need: leave "
                "these descriptors out, or index the images into a new directory with --descriptors",
                field="descriptors",
            )
        return changed

    def require_network(self, layer: str, weights_sha256: str, root: object) -> None:
        """Raise CollectionMismatch if the network is cut at another layer or has other weights than the collection's.

        `weights_sha256` may be a prefix of the checksum, as file names carry it.
        """
        if layer != self.layer or not self.weights_sha256.startswith(weights_sha256):
            raise CollectionMismatch(
                f"{root} was made with {self.backbone}, layer {self.layer}, weights {self.weights_sha256[:12]}…; this "
                f"network has layer {layer}, weights {weights_sha256[:12]}…: give the original checkpoint with "
                "--weights FILE, install the version of whatwhere that made the collection, or index into a new "
                "directory"
            )

    def require_same(self, wanted: "Recipe", root: object) -> None:
        """Raise CollectionMismatch if `wanted` describes images, or computes vectors, differently."""
        theirs = asdict(wanted)
        differing = [name for name, mine in asdict(self).items() if mine != theirs[name]]
        if not differing:
            return
        said = "; ".join(f"{name} {getattr(self, name)!r}, not {theirs[name]!r}" for name in differing)
        derived = set(differing) <= set(_DERIVING)
        remedy = "change it for all images with `whatwhere rebuild`" if derived else "index into a new directory"
        raise CollectionMismatch(f"{root} was made with {said}: use the collection's own, or {remedy}")

    def describes_as(self, other: "Recipe") -> bool:
        """Tell whether both describe images alike, whatever vectors are computed from that."""
        return all(value == getattr(other, name) for name, value in asdict(self).items() if name not in _DERIVING)
