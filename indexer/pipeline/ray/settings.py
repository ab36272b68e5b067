"""Where chunks are described: in this process, on a temporary local Ray, or on a running cluster."""

from dataclasses import dataclass

from whatwhere.indexer.errors import InvalidRequest

HERE = "local"
OWN = "ray"
_PREFIX = "ray://"
_CLIENT_PORT = ":10001"  # the port of Ray's client, which does not support Ray Data


@dataclass(frozen=True)
class ClusterSettings:
    """A Ray cluster and its workers. `address` is None for a local Ray that the run starts and stops."""

    address: str | None = None
    workers: int | None = None  # None: as many as fit
    cpus: int = 1  # per worker: threads of the network, of the factorization and of decoding
    gpus: float | None = None  # per worker; None: one if the device is cuda, else none

    def __post_init__(self) -> None:
        """Raise InvalidRequest if a number is out of range."""
        for name, value in (("ray_workers", self.workers), ("ray_cpus", self.cpus)):
            if value is not None and value < 1:
                raise InvalidRequest(f"{name} {value} is out of range: give 1 or more", field=name)
        if self.gpus is not None and self.gpus < 0:
            raise InvalidRequest(f"ray_gpus {self.gpus} is out of range: give 0 or more", field="ray_gpus")


def choose_cluster(
    engine: str, workers: int | None = None, cpus: int = 1, gpus: float | None = None
) -> ClusterSettings | None:
    """Return the cluster for `local` (None), `ray` or `ray://ADDRESS`. Raises InvalidRequest for other values."""
    if engine == HERE:
        return None
    if engine == OWN:
        return ClusterSettings(None, workers, cpus, gpus)
    address = engine.removeprefix(_PREFIX)
    if engine.startswith(_PREFIX) and address and not address.endswith(_CLIENT_PORT):
        return ClusterSettings(address, workers, cpus, gpus)
    raise InvalidRequest(
        f"engine {engine!r} is unknown: give local, ray (started on this machine for this run), ray://auto (the "
        "cluster of this machine) or ray://HOST:6379 (printed by `ray start --head`); from outside a cluster (Ray's "
        "client, port 10001), use `ray job submit`",
        field="engine",
    )
