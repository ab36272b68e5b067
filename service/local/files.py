"""Explain and compare files with a network named here, without any collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_DEVICE
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.names import DEFAULT_RANK
from whatwhere.service.local.explain import Compared, Explained, read_photograph
from whatwhere.service.search.factor_maps import compare_exact, factor_maps
from whatwhere.service.settings import Limits


@dataclass(frozen=True)
class NetworkChoice:
    """A network to describe files with, by its name, with the published weights or those of a file, on a device."""

    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    device: str = DEFAULT_DEVICE

    def load(self) -> Backbone:
        """Load the network."""
        return load_backbone(self.backbone, choose_device(self.device), weights=self.weights)


def explain_file(
    path: Path, ranks: Sequence[int] = (DEFAULT_RANK,), network: NetworkChoice | None = None, *, pca: bool = False
) -> Explained:
    """Describe a file at each rank. Raises InvalidRequest if it cannot be read, and the errors of loading a network."""
    _, photograph, decoded = read_photograph(path)
    backbone = (network or NetworkChoice()).load()
    (grid,) = backbone.activations([decoded.pixels])
    described = {rank: Describer(backbone, rank).describe_activations([grid])[0].factors for rank in ranks}
    by_rank = {rank: factor_maps(factors) for rank, factors in described.items()}
    if not pca:
        return Explained(photograph, by_rank)
    from whatwhere.service.search.principal_maps import principal_maps  # noqa: PLC0415 - brings scikit-learn

    return Explained(photograph, by_rank, principal_maps(grid))


def compare_files(
    paths: Sequence[Path], rank: int = Limits.default_compared_rank, network: NetworkChoice | None = None
) -> Compared:
    """Factorize files jointly from their activations. Raises the errors of `explain_file`."""
    read = [read_photograph(path) for path in paths]
    grids = (network or NetworkChoice()).load().activations([decoded.pixels for _, _, decoded in read])
    return Compared(tuple(photograph for _, photograph, _ in read), tuple(compare_exact(grids, rank)))
