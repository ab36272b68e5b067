"""Measure the network's share of the time and the cost of the rest: `make bench`, ratios of one run on this machine.

`python -m tests.measure_speed [--photographs DIR] [--count 96] [--vectors 100000] [--json OUT] [--compare EARLIER]`;
nothing is downloaded. The photographs are those of the test data if present, else those of installed packages. Every
row is a median. Baselines and the code that they are compared with are measured alternately.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchnmf.nmf
from numpy.typing import NDArray
from sklearn.decomposition import NMF
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import DATA, INDEXED_PHOTOGRAPHS
from tests.measure_index import DESCRIPTOR, REGION, RESULTS, made_of, mapped, of_collection, recall
from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.checkpoints import read_tensors
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.batched import batched
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.shards import write_shard
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.names import DEFAULT_RANK, pooled_by
from whatwhere.indexer.features.nmf import Factors, factorize
from whatwhere.indexer.features.pooling import crow_channel_weights
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress
from whatwhere.indexer.vectors.factories import factory_for
from whatwhere.indexer.vectors.names import EXACT
from whatwhere.service.search.localize import localize_stored
from whatwhere.service.search.searcher import Query, open_searcher
from whatwhere.service.search.threads import use_threads
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

BACKBONE = "efficientnet-lite0"
BATCH = 8
CORES = len(os.sched_getaffinity(0))
AUTO = "auto.float32.ww"  # the collection of the engine that is chosen
SQUARE = 2048  # the side of the matrices of a large product
Calls = dict[str, Callable[[Any], object]]
Row = tuple[str, float, str]  # what, how much, of what kind: ms, x (a ratio), %, MB

# What one would write in an hour: torchvision's transforms, one picture at a time, scikit-learn, faiss.
PLAIN_SCRIPT = """
import sys, time
from pathlib import Path
import faiss, numpy as np, torch
from PIL import Image
import torchnmf.nmf
from sklearn.decomposition import NMF
from torchvision import transforms
from whatwhere.indexer.backbones.registry import find_backbone
from whatwhere.indexer.backbones.checkpoints import read_tensors

spec = find_backbone("efficientnet-lite0")
network = spec.build()
spec.load(network, read_tensors(spec.weights.locate().path))
network.eval()
scale = transforms.Normalize([127 / 255] * 3, [128 / 255] * 3)
prepare = transforms.Compose([transforms.Resize(512), transforms.ToTensor(), scale])
index = faiss.IndexFlatIP(1280)
paths = sorted(Path(sys.argv[1]).iterdir())
started = time.perf_counter()
for path in paths:
    picture = prepare(Image.open(path).convert("RGB")).unsqueeze(0)
    picture = picture[:, :, : picture.shape[2] // 32 * 32, : picture.shape[3] // 32 * 32]
    with torch.no_grad():
        activations = network(picture)[0].flatten(1).T.numpy()
    model = NMF(8)
    model.fit(activations)
    vector = (model.components_ / np.linalg.norm(model.components_, axis=1, keepdims=True)).sum(axis=0)
    index.add((vector / np.linalg.norm(vector)).astype(np.float32)[None])
print((time.perf_counter() - started) / len(paths))
faiss.write_index(index, sys.argv[2])
"""
# Peak memory of a process of its own, in MiB; not ru_maxrss, which begins with that of the process that started it.
INDEXING = """
import re, sys
from pathlib import Path
from whatwhere.indexer.pipeline.run import index_paths
index_paths([Path(sys.argv[1])], Path(sys.argv[2]))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""

# What the command line cannot do without, and what of it is measured.
REFERENCE = "import numpy, sqlalchemy.orm, typer, rich.console"
COMMAND = """
import atexit, re, sys
from pathlib import Path
status = Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1], file=sys.stderr))
from whatwhere.service.cli import main
main()
"""
COMMANDS = ("--help", "info", "images", "verify", "backbones", "search --server", "search --collection")
STARTS = 3  # of each, in turns


def main() -> None:
    """Measure and print the table; write and compare it if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=DATA, help="folder of photographs, with subfolders")
    parser.add_argument("--count", type=int, default=96, help="number of photographs")
    parser.add_argument(
        "--vectors", type=int, default=100_000, help="number of vectors to search, derived from the photographs"
    )
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--compare", type=Path, help="results of an earlier run (--json)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs = chosen(arguments.photographs, arguments.count, Path(folder) / "photographs")
        rows = measure(photographs, Path(folder), arguments.vectors)
    earlier = json.loads(arguments.compare.read_text())["rows"] if arguments.compare else {}
    show(rows, earlier)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        kept = {"machine": machine(), "rows": {name: [round(value, 4), kind] for name, value, kind in rows}}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


def chosen(source: Path, count: int, folder: Path) -> Path:
    """Link `count` evenly spaced photographs into a folder."""
    found = sorted(source.rglob("*.jpg")) if source.is_dir() else list(INDEXED_PHOTOGRAPHS)
    folder.mkdir()
    for place, path in enumerate(found[:: max(1, len(found) // count)][:count]):
        (folder / f"{place:05d}{path.suffix}").symlink_to(path.resolve())
    return folder


def measure(photographs: Path, folder: Path, vectors: int) -> list[Row]:
    """Return all rows."""
    contents = [path.read_bytes() for path in sorted(photographs.iterdir())]
    device = choose_device()
    with engine("auto"):
        best = load_backbone(BACKBONE, device)
        half = load_backbone(BACKBONE, device, precision="bfloat16")
    with engine("torch"):
        eager = load_backbone(BACKBONE, device)
    # where neither a processor nor a GPU has bfloat16 it is computed in float32, slowly
    has_half = half.engine.name == best.engine.name != "torch" or device.type == "cuda"
    rows = forward(contents, best, eager, half if has_half else None)
    rows += factorizing(contents, best)
    rows += indexing(photographs, folder, has_half)
    rows += stages(contents, best, folder)
    with engine("auto"):
        rows += searching(contents, folder, vectors)
    return rows + starting(folder / AUTO)


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Choose the engine of networks that are loaded within the context."""
    before = os.environ.get(ENGINE_VARIABLE)
    os.environ[ENGINE_VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENGINE_VARIABLE]
        else:
            os.environ[ENGINE_VARIABLE] = before


def in_turns(calls: Calls, items: Sequence[Any]) -> dict[str, float]:
    """Return the median milliseconds of each call over the items; calls alternate every BATCH items, all warm."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for group in batched(items, BATCH):
        for name, call in calls.items():
            call(group[0])  # threads of the one before wait busily for a while, and take a core
            times[name] += [milliseconds(call, item) for item in group]
    return {name: statistics.median(values) for name, values in times.items()}


def on_all_cores(call: Callable[[Any], object]) -> Callable[[Any], object]:
    """Let torch use all cores for the call: the best engine leaves it one, and factorizing uses one."""

    def called(item: Any) -> object:
        torch.set_num_threads(CORES)
        try:
            return call(item)
        finally:
            torch.set_num_threads(1)

    return called


def milliseconds(call: Callable[[Any], object], item: Any) -> float:
    """Return the time of a call, including its GPU work."""
    started = time.perf_counter()
    call(item)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def forward(contents: Sequence[bytes], best: Backbone, eager: Backbone, half: Backbone | None) -> list[Row]:
    """Compare the engine with default torch: float32, NCHW, eager."""
    spec, device = best.spec, best.device
    plain = spec.build()
    spec.load(plain, read_tensors(spec.weights.locate().path))
    plain = plain.eval().to(device)
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))

    @torch.inference_mode()
    def as_it_comes(pixels: NDArray[np.uint8]) -> torch.Tensor:
        scaled = (torch.tensor(pixels, device=device).permute(2, 0, 1)[None].float() - mean) / std
        output: torch.Tensor = plain(scaled.contiguous())
        return output

    pictures = [decode_image(content, "").pixels for content in contents[::3]]
    square = torch.rand(SQUARE, SQUARE, device=device)
    calls: Calls = {
        "plain": on_all_cores(as_it_comes),
        "torch": on_all_cores(lambda pixels: eager.activations([pixels])),
        "best": lambda pixels: best.activations([pixels]),
        "square": on_all_cores(lambda _: square @ square),
    }
    if half is not None:
        calls["half"] = lambda pixels: half.activations([pixels])
    took = in_turns(calls, pictures)
    difference = max(
        float((best.activations([pixels])[0].cpu() - as_it_comes(pixels)[0].permute(1, 2, 0).cpu()).abs().max())
        for pixels in pictures[:8]
    )
    with FlopCounterMode(display=False) as counter:
        for pixels in pictures:
            as_it_comes(pixels)
    share = counter.get_total_flops() / len(pictures) / took["best"] / (2 * SQUARE**3 / took["square"])
    rows: list[Row] = [
        ("forward pass, torch as it comes (NCHW)", took["plain"], "ms"),
        ("forward pass, torch (channels_last)", took["torch"], "ms"),
        (f"forward pass, {best.engine.name}", took["best"], "ms"),
        ("forward pass: torch as it comes / ours", took["plain"] / took["best"], "x"),
        ("forward pass: largest difference to it", difference, ""),
        ("forward pass: operations a second / those of a large matrix product", share, "x"),
    ]
    if "half" in took:
        rows.append(("forward pass: torch as it comes / ours in bfloat16", took["plain"] / took["half"], "x"))
    return rows


def factorizing(contents: Sequence[bytes], backbone: Backbone) -> list[Row]:
    """Compare the factorization with scikit-learn's and torchnmf's: default settings, the default rank."""
    matrices = []
    for content in contents[: 4 * BATCH]:
        grid = backbone.activations([decode_image(content, "").pixels])[0].cpu()
        matrices.append((grid * crow_channel_weights(grid)).flatten(0, 1))
    errors: dict[str, list[float]] = {"ours": [], "scikit-learn": []}

    def ours(batch: Sequence[torch.Tensor]) -> list[Factors]:
        return factorize(batch, DEFAULT_RANK)

    def scikit_learn(batch: Sequence[torch.Tensor]) -> list[float]:
        return [float(NMF(DEFAULT_RANK).fit(matrix.numpy()).reconstruction_err_) for matrix in batch]

    def scikit_learn_stopped(batch: Sequence[torch.Tensor]) -> list[float]:
        # as soon as it has our error, which it is told beforehand
        return [
            float(NMF(DEFAULT_RANK, tol=0, max_iter=stops[id(matrix)]).fit(matrix.numpy()).n_iter_) for matrix in batch
        ]

    def torch_nmf(batch: Sequence[torch.Tensor]) -> None:
        torchnmf.nmf.NMF(batch[0].shape, rank=DEFAULT_RANK).fit(batch[0])

    batches = [matrices[start : start + BATCH] for start in range(0, len(matrices), BATCH)]
    stops = {}
    for batch in batches:
        for matrix, factors in zip(batch, ours(batch), strict=True):
            errors["ours"].append(float((matrix - factors.where @ factors.what).norm()))
            errors["scikit-learn"].append(scikit_learn([matrix])[0])
            stops[id(matrix)] = iterations_to(errors["ours"][-1], matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not having converged, which is asked for
        took = in_turns(
            {
                "ours": ours,
                "scikit-learn": scikit_learn,
                "stopped": scikit_learn_stopped,
                "torchnmf": on_all_cores(torch_nmf),
            },
            batches,
        )
    alone = in_turns({"alone": lambda matrix: ours([matrix])}, matrices)["alone"]
    higher = [100 * (mine / theirs - 1) for mine, theirs in zip(errors["ours"], errors["scikit-learn"], strict=True)]
    each = took["ours"] / BATCH
    return [
        (f"factorisation, {BATCH} at once", each, "ms"),
        ("factorisation, alone", alone, "ms"),
        ("factorisation: scikit-learn / ours", took["scikit-learn"] / took["ours"], "x"),
        ("factorisation: scikit-learn until it has our error / ours", took["stopped"] / took["ours"], "x"),
        ("factorisation: torchnmf / ours", took["torchnmf"] / each, "x"),
        ("factorisation: our error above scikit-learn's", statistics.median(higher), "%"),
    ]


def iterations_to(error: float, matrix: torch.Tensor) -> int:
    """Return the number of iterations until scikit-learn's error is as small, at most its default of 200."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = 1, 200
        while low < high:
            middle = (low + high) // 2
            fitted = NMF(DEFAULT_RANK, tol=0, max_iter=middle).fit(matrix.numpy())
            low, high = (low, middle) if fitted.reconstruction_err_ <= error else (middle + 1, high)
    return low


def stages(contents: Sequence[bytes], backbone: Backbone, folder: Path) -> list[Row]:
    """Measure each step around the network separately."""
    method = find_descriptor(DESCRIPTOR)
    describer = Describer(backbone, DEFAULT_RANK, pooled_by([method]))
    pictures = [decode_image(content, "").pixels for content in contents[: 2 * BATCH]]
    grids = backbone.activations(pictures)
    described = describer.describe_activations(grids)
    whole = in_turns({"describe": describer.describe_activations}, [grids[:BATCH], grids[BATCH:]])["describe"] / BATCH
    decoders: Calls = {
        "decode": lambda content: decode_image(content, "", shorter_side=None),
        "scale": lambda content: decode_image(content, ""),
    }
    decoded = in_turns(decoders, contents)
    with open_collection(folder / AUTO) as reader:
        whiteners = reader.index(DESCRIPTOR).whiteners
    rows = in_turns({"rows": method.select}, described)["rows"]
    vector = in_turns({"vector": lambda rows: method.vector(rows, whiteners)}, [*map(method.select, described)])
    write = milliseconds(lambda entries: write_shard(folder / "shard", entries), described) / len(described)
    return [
        ("decode at full size", decoded["decode"], "ms"),
        ("decode and scale", decoded["scale"], "ms"),
        (f"activations to description, {BATCH} at once", whole, "ms"),
        ("description to a descriptor's rows", rows, "ms"),
        ("rows to whitened vector", vector["vector"], "ms"),
        ("write a description", write, "ms"),
    ]


def indexing(photographs: Path, folder: Path, has_half: bool) -> list[Row]:
    """Compare the whole pipeline with the forward pass alone, and with a plain script."""
    count = len(list(photographs.iterdir()))
    pictures = [decode_image(path.read_bytes(), "").pixels for path in sorted(photographs.iterdir())]
    device = choose_device()
    found: dict[str, list[Row]] = {}  # the same title twice where there is one engine
    for name, precision in (("torch", "float32"), ("auto", "float32"), ("auto", "bfloat16"))[: 3 if has_half else 2]:
        with engine(name):
            torch.set_num_threads(CORES)
            backbone = load_backbone(BACKBONE, device, precision=precision)
            marks: list[tuple[float, int]] = []
            collection = folder / f"{name}.{precision}.ww"
            index_paths([photographs], collection, IndexSettings(precision=precision), partial(mark, marks))
            # from the first batch, start-up aside, to the published generation
            each = 1000 * (time.perf_counter() - marks[1][0]) / (count - marks[1][1])
            bare = statistics.median(
                milliseconds(backbone.activations, pictures[start : start + BATCH]) / BATCH
                for start in range(0, count - BATCH + 1, BATCH)
            )
        title = backbone.engine.name if precision == "float32" else f"{backbone.engine.name} in {precision}"
        found[title] = [
            (f"index, {title}", each, "ms"),
            (f"index, {title}: bare forward pass / all", bare / each, "x"),
        ]
        if precision == "float32":
            ours = each
    rows = [row for of_title in found.values() for row in of_title]
    script = subprocess.run(
        [sys.executable, "-c", PLAIN_SCRIPT, str(photographs), str(folder / "plain.faiss")],
        capture_output=True,
        text=True,
        check=True,
    )
    rows.append(("index: a plain script / ours", 1000 * float(script.stdout.split()[-1]) / ours, "x"))
    few = folder / "few"
    few.mkdir()
    for path in sorted(photographs.iterdir())[: count // 4]:
        (few / path.name).symlink_to(path.resolve())
    peaks = {
        source.name: int(
            subprocess.run(
                [sys.executable, "-c", INDEXING, str(source), str(folder / f"{source.name}.memory.ww")],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-1]
        )
        for source in (few, photographs)
    }
    rows += [
        ("index: peak of resident memory", peaks["photographs"], "MiB"),
        ("index: the same / of a quarter of the pictures", peaks["photographs"] / peaks["few"], "x"),
    ]
    return rows


def mark(marks: list[tuple[float, int]], progress: Progress) -> None:
    """Record the time, and the number of images done."""
    marks.append((time.perf_counter(), progress.done))


def searching(contents: Sequence[bytes], folder: Path, count: int) -> list[Row]:
    """Measure searches as a server runs them, on one thread: the vector search, and the steps around it."""
    rows: list[Row] = []
    with open_collection(folder / AUTO) as reader:
        searcher = open_searcher(reader)
        use_threads(1)  # a server's searches have a thread each
        ids = reader.ids.tolist()
        region = in_turns({"region": lambda image: searcher.search(Query(image_id=image, region=REGION))}, ids)
        index = reader.index(DESCRIPTOR)
        real, regions = of_collection(reader)
        small = in_turns({"small": lambda query: index.vectors.search(query, RESULTS)}, list(regions))["small"]
        around = region["region"] - small
        rows.append(("stored-image region search, all but the vectors", around, "ms"))
        vectors = made_of(real, count)
        asked = list(made_of(regions, 200, like=0.85, seed=1))
        factory = factory_for(count, vectors.shape[1])
        large, exact = mapped(vectors, factory, folder), mapped(vectors, EXACT, folder)
        searches: Calls = {
            "large": lambda query: large.search(query, RESULTS),
            "exact": lambda query: exact.search(query, RESULTS),
        }
        took = in_turns(searches, asked)
        rows += [
            (f"search of {count:,} vectors, {factory}", took["large"], "ms"),
            (f"search of {count:,}: exact / ours", took["exact"] / took["large"], "x"),
            (f"search of {count:,}: recall@{RESULTS}", 100 * recall(large, exact, asked, RESULTS), "%"),
            (f"stored-image region search of {count:,}", around + took["large"], "ms"),
        ]
        stored = [reader.description(reader.indexed_image(image)).factors for image in ids[: RESULTS + 1]]
        localize = in_turns({"ten": lambda query: localize_stored(query, REGION, stored[1:])}, stored)["ten"]
        rows.append((f"localise {RESULTS} results from stored factors", localize, "ms"))
        use_threads(CORES)
        pictures = {content: decode_image(content, "").pixels for content in contents[:24]}
        took = in_turns(
            {
                "upload": lambda content: searcher.search(Query(content=content)),
                "forward": lambda content: searcher.describer.backbone.activations([pictures[content]]),
            },
            list(pictures),
        )
        rows += [
            ("search by an upload", took["upload"], "ms"),
            ("search by an upload / its forward pass", took["upload"] / took["forward"], "x"),
        ]
    return rows


def starting(root: Path) -> list[Row]:
    """Return what commands take from start to end, in processes of their own: CPU time and memory."""
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    here = ("-c", str(root))
    arguments = {"--help": (), "backbones": (), "search --server": ("images/1", "--server", f"127.0.0.1:{port}")}
    arguments["search --collection"] = ("images/1", *here)
    seconds: dict[str, list[float]] = {name: [] for name in ("", *COMMANDS)}
    megabytes: dict[str, float] = {}
    for _ in range(STARTS):
        seconds[""].append(cpu_seconds([sys.executable, "-c", REFERENCE])[0])
        for name in COMMANDS:
            command = [sys.executable, "-c", COMMAND, name.partition(" ")[0], *arguments.get(name, here)]
            took, said = cpu_seconds(command)
            seconds[name].append(took)
            megabytes[name] = int(said.split()[-1]) * 1024 / 1e6
    serving.stop(grace=None)
    reference = statistics.median(seconds.pop(""))
    rows: list[Row] = [("importing numpy, SQLAlchemy, Typer, Rich: CPU", 1000 * reference, "ms")]
    for name, took_each in seconds.items():
        rows += [
            (f"whatwhere {name}: CPU / importing these", statistics.median(took_each) / reference, "x"),
            (f"whatwhere {name}: peak memory", megabytes[name], "MB"),
        ]
    return rows


def cpu_seconds(command: Sequence[str]) -> tuple[float, str]:
    """Run a command to its end; return its CPU time, user and system, and what it wrote on standard error."""
    before = os.times()
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    after = os.times()
    took = after.children_user + after.children_system - before.children_user - before.children_system
    return took, done.stderr


def machine() -> dict[str, str]:
    """Return the machine and the versions that the numbers depend on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "processor": f"{CORES} x {models[0] if models else platform.machine()}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        **{name: version(name) for name in ("torch", "scikit-learn", "numpy")},
    }


def show(rows: Sequence[Row], earlier: dict[str, list[Any]]) -> None:
    """Print the table; on another machine, compare ratios, not times."""
    print(f"| measured | now |{' earlier |' if earlier else ''}")
    print(f"|---|---:|{'---:|' if earlier else ''}")
    for name, value, kind in rows:
        before = earlier.get(name)
        print(f"| {name} | {spelled(value, kind)} |" + (f" {spelled(*before) if before else ''} |" if earlier else ""))


def spelled(value: float, kind: str) -> str:
    """Return a number with its unit."""
    return f"{value:.2g} {kind}".rstrip() if abs(value) < 1 else f"{value:.1f} {kind}"


if __name__ == "__main__":
    main()
