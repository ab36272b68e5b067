"""Where chunks are described: here, on a Ray of this run's own, or on a cluster that runs already."""

from dataclasses import dataclass

from whatwhere.indexer.errors import InvalidRequest

HERE = "local"
OWN = "ray"
_PREFIX = "ray://"
_CLIENT_PORT = ":10001"  # of Ray's client, through which Ray Data does not run


@dataclass(frozen=True)
class ClusterSettings:
    """A Ray and the workers in it. `address` is None for a Ray that this run starts and stops, on this machine."""

    address: str | None = None
    workers: int | None = None  # None: as many as there is room for
    cpus: int = 1  # of each worker: threads of the network, of factorising and of decoding
    gpus: float | None = None  # of each worker; None: one where the device asked for is cuda, else none

    def __post_init__(self) -> None:
        """Refuse numbers that no worker can have."""
        for name, value in (("ray_workers", self.workers), ("ray_cpus", self.cpus)):
            if value is not None and value < 1:
                raise InvalidRequest(f"{name} {value} is out of range: give 1 or more", field=name)
        if self.gpus is not None and self.gpus < 0:
            raise InvalidRequest(f"ray_gpus {self.gpus} is out of range: give 0 or more", field="ray_gpus")


def choose_cluster(
    engine: str, workers: int | None = None, cpus: int = 1, gpus: float | None = None
) -> ClusterSettings | None:
    """Return the cluster that `local` (None), `ray` or `ray://ADDRESS` names; InvalidRequest for anything else."""
    if engine == HERE:
        return None
    if engine == OWN:
        return ClusterSettings(None, workers, cpus, gpus)
    address = engine.removeprefix(_PREFIX)
    if engine.startswith(_PREFIX) and address and not address.endswith(_CLIENT_PORT):
        return ClusterSettings(address, workers, cpus, gpus)
    raise InvalidRequest(
        f"engine {engine!r} is unknown: give local, ray (started on this machine for this run), ray://auto (the "
        "cluster that this machine is part of) or ray://HOST:6379, what `ray start --head` names; from outside a "
        "cluster (Ray's client, port 10001), use `ray job submit`",
        field="engine",
    )
