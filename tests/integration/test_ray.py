"""Indexing with Ray: workers on two nodes of a real cluster, killed for real; the result is that of one process."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import whatwhere.indexer.pipeline.run
from tests import commands, waiting
from tests.conftest import less_id, rows, written
from tests.object_store import s3_server
from tests.postgres import PostgresServer
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.errors import InvalidRequest, WorkersLost
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings, choose_cluster
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings, RunSummary
from whatwhere.indexer.storage.object_store import ObjectFolder

pytest.importorskip("ray", reason="Ray is not installed: pip install 'whatwhere[ray]'")

from ray.cluster_utils import Cluster

from tests.ray_workers import Dying
from whatwhere.indexer.pipeline.ray import running

ROOT = Path(__file__).resolve().parent.parent.parent
SHARD_SOURCES = 4  # so small that few pictures fill several
TOKEN = f"whatwhere-test-{os.getpid()}"
# Ray makes its workers nice by 15: beside other tests they would wait for minutes.
QUICK = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
# A node that does not answer for a second and a half is gone, not after a quarter of a minute.
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1500,
    "health_check_failure_threshold": 3,
}
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("small_shards"), pytest.mark.takes(200)]


# What the command does first: small shards, and workers that can be held.
FIRST = f"""
import whatwhere.indexer.pipeline.run
whatwhere.indexer.pipeline.run.SHARD_SOURCES = {SHARD_SOURCES}
from whatwhere.indexer.pipeline.ray import running
from tests.ray_workers import Held
running.ChunkWorker = Held
"""
# The same as a process of its own.
AFRESH = f"""{FIRST}
from whatwhere.service.cli import main
main()
"""


@pytest.fixture(scope="module", autouse=True)
def torch_engine() -> Iterator[None]:
    """Run networks with PyTorch: each worker process would compile the network for OpenVINO, some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE_VARIABLE, "torch")
        yield


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LONGEST_S", 300.0)  # a worker starts in a quarter of a minute beside others
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", SHARD_SOURCES)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of 15 pictures: one is none, and two chunks apart or less there are two of the same content."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(13):
        tiles = generator.integers(0, 256, (4, 4 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(tiles.repeat(32, axis=0).repeat(32, axis=1)).save(folder / f"{number:02d}.png")
    shutil.copy(folder / "02.png", folder / "05 again.png")
    (folder / "07 torn.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, pictures: Path, one_thread: None) -> Path:
    """Give the collection that this process makes of them alone."""
    root = tmp_path_factory.mktemp("here") / "c.ww"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", SHARD_SOURCES)
        index_paths([pictures], root, IndexSettings(batch_size=2))
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Give a cluster of two nodes with room for one worker each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("WHATWHERE_TEST", TOKEN)
        for name, value in QUICK.items():
            patch.setenv(name, value)
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
        started = Cluster(initialize_head=True, head_node_args=head)
        started.add_node(num_cpus=1)
        yield started
        started.shutdown()


def index(cluster: Cluster, pictures: Path, root: Path) -> RunSummary:
    """Index on the cluster with one worker, from this process."""
    there = ClusterSettings(cluster.address, workers=1)
    return index_paths([pictures], root, IndexSettings(batch_size=2, cluster=there))


def options(engine: str, pictures: Path, root: Path | str, *more: str, workers: int = 2) -> list[str]:
    """Return the command that indexes with some workers; the process of one takes 5 s to start."""
    cluster = ["--engine", engine, "--ray-workers", str(workers)]
    return ["index", str(pictures), "-c", str(root), *cluster, "--batch-size", "2", *more]


def environment(root: Path | str) -> dict[str, str]:
    return os.environ | QUICK | {"PYTHONPATH": str(ROOT), "WHATWHERE_TEST": f"{root}"}


def command(engine: str, pictures: Path, root: Path | str, *more: str, workers: int = 2) -> commands.Process:
    """Start the command."""
    arguments = options(engine, pictures, root, *more, workers=workers)
    return commands.start(*arguments, environment=environment(root), before=FIRST)


def held(root: Path) -> list[int]:
    """Return the numbers of the worker processes that wait."""
    return [int(path.name) for path in root.with_suffix(".held").iterdir()]


def processes_with(token: str) -> list[str]:
    """Return the command lines of the processes whose environment names the token, this one left out."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and folder.name != str(os.getpid())
                and token.encode() in (folder / "environ").read_bytes()
            ):
                found.append((folder / "cmdline").read_text())
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found


def assert_same(root: Path, here: Path) -> None:
    assert rows(root) == rows(here)
    assert written(root) == written(here)
    assert not (root / "arriving").exists()


def test_workers_make_the_same_collection_to_the_last_bit(
    cluster: Cluster, pictures: Path, here: Path, tmp_path: Path
) -> None:
    """Ids, shards and vectors are those of one process, and the command says the same, without a word of Ray's."""
    root = tmp_path / "c.ww"
    afresh = [sys.executable, "-c", AFRESH, *options(f"ray://{cluster.address}", pictures, root)]

    done = subprocess.run(afresh, check=False, capture_output=True, text=True, cwd=ROOT, env=environment(root))

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("described 13, failed 1, duplicates 1, unchanged 0\n")
    assert done.stderr == ""
    assert_same(root, here)


def test_a_worker_that_is_killed_is_made_up_for(cluster: Cluster, pictures: Path, here: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a chunk costs nothing but time."""
    (tmp_path / "c.held").mkdir()
    with command(f"ray://{cluster.address}", pictures, tmp_path / "c.ww") as process:
        waiting.wait_until(lambda: bool(held(tmp_path / "c.ww")))
        os.kill(held(tmp_path / "c.ww")[0], signal.SIGKILL)
        shutil.rmtree(tmp_path / "c.held")
        _, err = process.communicate(timeout=300)

    assert process.returncode == 0, err
    assert "worker lost chunk=" in err
    assert_same(tmp_path / "c.ww", here)


def test_a_node_that_goes_is_done_without(cluster: Cluster, pictures: Path, here: Path, tmp_path: Path) -> None:
    """What was described on a node that is gone is described on the one that is left."""
    cluster.add_node(num_cpus=1)
    (tmp_path / "c.held").mkdir()
    with command(f"ray://{cluster.address}", pictures, tmp_path / "c.ww") as process:
        waiting.wait_until(lambda: len(held(tmp_path / "c.ww")) == 2)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        shutil.rmtree(tmp_path / "c.held")
        _, err = process.communicate(timeout=300)

    assert process.returncode == 0, err
    assert_same(tmp_path / "c.ww", here)


def test_a_run_whose_process_is_killed_continues(cluster: Cluster, pictures: Path, here: Path, tmp_path: Path) -> None:
    """After SIGKILL the same command again leaves what one run leaves."""
    (tmp_path / "c.held").mkdir()
    with command(f"ray://{cluster.address}", pictures, tmp_path / "c.ww", workers=1) as process:
        waiting.wait_until(lambda: bool(held(tmp_path / "c.ww")))
        process.kill()
    shutil.rmtree(tmp_path / "c.held")

    index(cluster, pictures, tmp_path / "c.ww")

    assert_same(tmp_path / "c.ww", here)


def test_a_picture_that_kills_its_worker_ends_the_run_by_name(
    cluster: Cluster, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three lost workers the run ends and names where; the chunks before are kept."""
    monkeypatch.setattr(running, "ChunkWorker", Dying)
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "06.png").rename(folder / "06 deadly.png")

    with pytest.raises(WorkersLost, match=r"lost 3 times between .*04\.png and .*06%20deadly\.png"):
        index(cluster, folder, tmp_path / "c.ww")

    assert len(rows(tmp_path / "c.ww")) == SHARD_SOURCES


def test_ctrl_c_leaves_nothing_running(pictures: Path, here: Path, tmp_path: Path) -> None:
    """A Ray that the command started ends with it; a run here continues where it was."""
    root = tmp_path / "c.ww"
    (tmp_path / "c.held").mkdir()
    with command("ray", pictures, root, workers=1) as process:
        waiting.wait_until(lambda: bool(held(root)))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; finished images are kept: run again to continue"
    waiting.wait_until(lambda: not processes_with(str(root)))
    index_paths([pictures], root, IndexSettings(batch_size=2))
    assert_same(root, here)


def test_workers_write_into_an_object_store(
    pictures: Path, here: Path, tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards there are those of one process in a directory, and none is left in between."""
    monkeypatch.setenv("WHATWHERE_CACHE", str(tmp_path / "cache"))
    with s3_server("bucket"):
        stores = ["--catalog", postgres.url(postgres.database())]
        with command("ray", pictures, "s3://bucket/c", *stores, workers=1) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        layout = Layout(tmp_path / "elsewhere", ObjectFolder("s3://bucket/c"))
        shards = {name: less_id(layout, layout.shards / name) for name in layout.names(layout.shards)}
        arriving = layout.names(layout.arriving)

    assert out.startswith("described 13, failed 1, duplicates 1, unchanged 0\n")
    assert shards == {path.name: less_id(Layout(here), path) for path in (here / "shards").iterdir()}
    assert arriving == []


@pytest.mark.parametrize("engine", ["rya", "ray://", "ray:127.0.0.1:6379", "ray://127.0.0.1:10001"])
def test_an_engine_that_there_is_not_is_refused(engine: str) -> None:
    """The message says what there is, and the way for those outside of a cluster."""
    with pytest.raises(InvalidRequest, match=r"unknown: give local, ray .*ray job submit"):
        choose_cluster(engine)
