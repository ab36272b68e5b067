"""Generate load on a server: `python -m tests.measure_server`, or `--server HOST:PORT` for a running one.

Sends requests as fast as 1, 4 and 16 clients can: uploads and stored images, with a box and without, with batches and
one image at a time. Then overloads the server for a minute with ten times the uploads that it can answer, and measures
throughput, latency, memory growth and the time to recover. Prints JSON. One process sends requests and another one
serves, on the same cores.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.conftest import DATA, INDEXED_PHOTOGRAPHS
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc

REGION = pb.Box(x_min=0.1, y_min=0.1, x_max=0.9, y_max=0.7)
TIMES_THE_CAPACITY = 10
STORED_PER_S = 5
PHOTOGRAPHS = 150
TIMEOUT_S = 30.0
ALL_NEW = ("--remembered-uploads", "0")  # each upload is described, as if it had never been sent before

Ask = Callable[[Any], Awaitable[Any]]


@dataclass
class Seen:
    """Hold the outcomes of one kind of request: seconds if answered, else the status code."""

    seconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def report(self, duration_s: float) -> dict[str, Any]:
        """Return requests per second and percentiles in milliseconds."""
        found: dict[str, Any] = {"answered_per_s": round(len(self.seconds) / duration_s, 1)}
        if len(self.seconds) > 1:
            hundredths = statistics.quantiles(self.seconds, n=100, method="inclusive")
            found |= {f"p{p}_ms": round(1000 * hundredths[p - 1], 1) for p in (50, 95, 99)}
        return found | ({"refused": dict(self.refused)} if self.refused else {})


def kinds(pictures: Sequence[bytes], images: int) -> dict[str, Callable[[], pb.SearchImagesRequest]]:
    """Return a function for each kind of request; each call chooses a random picture."""

    def upload(**options: Any) -> pb.SearchImagesRequest:
        return pb.SearchImagesRequest(image_content=random.choice(pictures), **options)

    def stored(**options: Any) -> pb.SearchImagesRequest:
        return pb.SearchImagesRequest(image=f"images/{random.randint(1, images)}", **options)

    return {
        "upload": upload,
        "upload, region": lambda: upload(region=REGION),
        "stored": stored,
        "stored, region": lambda: stored(region=REGION),
        "stored, region, 10 boxes": lambda: stored(region=REGION, localize_count=10),
    }


async def ask(channel: grpc.aio.Channel, request: pb.SearchImagesRequest, seen: Seen) -> None:
    """Send one request and record the outcome."""
    search = rpc.ImageSearchServiceStub(channel).SearchImages  # type: ignore[no-untyped-call] # generated
    started = time.perf_counter()
    try:
        await search(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        seen.refused[error.code().name] += 1
    else:
        seen.seconds.append(time.perf_counter() - started)


def connect(address: str) -> grpc.aio.Channel:
    """Open a separate connection."""
    return grpc.aio.insecure_channel(
        address, options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    )


async def closed_loop(
    address: str, make: Callable[[], pb.SearchImagesRequest], clients: int, duration_s: float
) -> dict[str, Any]:
    """Let each client send one request after the other."""
    seen, until = Seen(), time.perf_counter() + duration_s

    async def client() -> None:
        async with connect(address) as channel:
            while time.perf_counter() < until:
                await ask(channel, make(), seen)

    await asyncio.gather(*(client() for _ in range(clients)))
    return seen.report(duration_s)


async def open_loop(address: str, make: Callable[[], pb.SearchImagesRequest], per_s: float, duration_s: float) -> Seen:
    """Send requests at a constant rate, independent of the responses."""
    seen, sent = Seen(), []
    channels = [connect(address) for _ in range(8)]
    started = time.perf_counter()
    for number in range(int(per_s * duration_s)):
        await asyncio.sleep(max(0.0, started + number / per_s - time.perf_counter()))
        sent.append(asyncio.create_task(ask(channels[number % len(channels)], make(), seen)))
    await asyncio.gather(*sent)
    for channel in channels:
        await channel.close()
    return seen


async def overload(
    address: str,
    asked: dict[str, Callable[[], pb.SearchImagesRequest]],
    duration_s: float,
    memory_mib: Callable[[], int],
) -> dict[str, Any]:
    """Send ten times the uploads that the server can answer, and some searches with stored images."""
    alone = await closed_loop(address, asked["upload"], 1, 10)
    crowded, _ = await asyncio.gather(
        closed_loop(address, asked["upload"], 16, 20), open_loop(address, asked["stored"], STORED_PER_S, 20)
    )
    peak = crowded["answered_per_s"]
    memory, watching = [memory_mib()], True

    async def watch() -> None:
        while watching:
            memory.append(memory_mib())
            await asyncio.sleep(1)

    watcher = asyncio.create_task(watch())
    beside = asyncio.create_task(open_loop(address, asked["stored"], STORED_PER_S, duration_s))
    used = time.process_time()
    seen = await open_loop(address, asked["upload"], TIMES_THE_CAPACITY * peak, duration_s)
    used, ended = time.process_time() - used, time.perf_counter()
    watching = False
    await asyncio.gather(watcher, beside)
    calm = Seen()
    async with connect(address) as channel:
        while not calm.seconds or calm.seconds[-1] * 1000 > 1.5 * alone["p50_ms"]:
            await ask(channel, asked["upload"](), calm)
    found = seen.report(duration_s)
    return {
        "peak_per_s": peak,
        "alone_p50_ms": alone["p50_ms"],
        "sent_per_s": round(TIMES_THE_CAPACITY * peak, 1),
        "uploads": found,
        "answered_share_of_peak": round(found["answered_per_s"] / peak, 2),
        "cores that asking took": round(used / duration_s, 2),
        "stored searches beside them": beside.result().report(duration_s),
        "memory_mib": {"before": memory[0], "at a quarter": memory[len(memory) // 4], "at the end": memory[-1]},
        "recovered_after_s": round(time.perf_counter() - ended, 2),
    }


@contextmanager
def serving(collection: Path, *options: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Run a server; yield its address, and a function that returns its resident memory in MiB."""
    command = [
        sys.executable,
        "-m",
        "whatwhere.service.cli",
        "serve",
        "--collection",
        str(collection),
        "--listen",
        "127.0.0.1:0",
    ]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None

        def memory_mib() -> int:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

        try:
            yield process.stdout.readline().split()[-1], memory_mib
        finally:
            process.terminate()


def photographs() -> list[Path]:
    """Return photographs to index and to search with: the test data's if present, else those of installed packages."""
    found = sorted((DATA / "paris-mini/jpg").glob("*.jpg"))[:PHOTOGRAPHS]
    return found or list(INDEXED_PHOTOGRAPHS)


def measure(address: str, images: int, options: argparse.Namespace) -> dict[str, Any]:
    """Send each kind of request with each number of clients."""
    asked = kinds([path.read_bytes() for path in photographs()], images)
    for make in asked.values():  # warm
        asyncio.run(closed_loop(address, make, 4, 1))
    return {
        name: {
            f"{clients} clients": asyncio.run(closed_loop(address, make, clients, options.seconds))
            for clients in options.clients
        }
        for name, make in asked.items()
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="use this server (HOST:PORT) and skip the overload")
    parser.add_argument("--images", type=int, default=8, help="number of images on that server, images/1 to images/N")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 16])
    parser.add_argument(
        "--seconds", type=float, default=10, help="duration for each kind of request and number of clients"
    )
    parser.add_argument("--overload-seconds", type=float, default=60, help="duration of the overload; 0: none")
    options = parser.parse_args()
    if options.server:
        print(json.dumps(measure(options.server, options.images, options), indent=2))
        return
    from whatwhere.indexer.pipeline.run import index_paths  # noqa: PLC0415 - brings torch, which asking a server does without

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs.ww"
        files = photographs()
        index_paths(files, root)
        for name, batch_size in (("batches of 4", "4"), ("one at a time", "1")):
            with serving(root, "--batch-size", batch_size, *ALL_NEW) as (address, _):
                found[name] = measure(address, len(files), options)
        if options.overload_seconds:
            with serving(root, *ALL_NEW) as (address, memory_mib):
                asked = kinds([path.read_bytes() for path in files], len(files))
                found["overload"] = asyncio.run(overload(address, asked, options.overload_seconds, memory_mib))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
