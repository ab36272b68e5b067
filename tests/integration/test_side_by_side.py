"""Servers side by side over one collection: one dies under load, one comes back, all follow; no caller notices."""

import json
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.commands import start
from tests.generations import Publisher
from tests.waiting import wait_until
from whatwhere.indexer.errors import PageTokenExpired
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

pytestmark = pytest.mark.takes(30)

CALLERS = 8
PAUSE_S = 0.03  # of each caller: what is to start beside needs the cores, too
ADDED = 4


class ServerProcess:
    """A server of a process of its own, that can be killed and started again on its port."""

    def __init__(self, root: Path, log: Path) -> None:
        self._root = root
        self._log = log
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Begin; `wait` until it serves."""
        flags = ["--collection", self._root, "--threads", "1", "--listen", self.address]
        flags += ["--metrics", "127.0.0.1:0", "--log-format", "json", "--refresh", "0.5"]
        with self._log.open("wb") as log:
            self._process = start("serve", *flags, stderr=log.fileno())

    def wait(self) -> None:
        """Wait until it serves."""
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        self.address = line.split()[-1]
        wait_until(lambda: self._ready() is not None)  # the log is written by a thread of its own
        self._metrics = (self._ready() or {})["metrics"]

    def _ready(self) -> dict[str, Any] | None:
        """Return the log's event that it serves, None if it is not there yet."""
        whole = self._log.read_text().rpartition("\n")[0].splitlines()
        return next((event for event in map(json.loads, whole) if event["event"] == "ready"), None)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    @property
    def searches(self) -> float:
        """How many searches it has answered since its start, as it counts itself."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        counted = 'whatwhere_requests_total{code="OK",method="SearchImages"} '
        return sum(float(line.removeprefix(counted)) for line in lines if line.startswith(counted))


@dataclass
class Callers:
    """Threads of one client that search for stored images until they are told to stop; each notes its failures."""

    client: Client
    answered: int = 0
    failures: list[Exception] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def asking(self) -> Iterator[None]:
        with ThreadPoolExecutor(CALLERS) as pool:
            futures: list[Future[None]] = [pool.submit(self._ask, number) for number in range(CALLERS)]
            try:
                yield
            finally:
                self.stopping.set()
            for future in futures:
                future.result()

    def _ask(self, number: int) -> None:
        name = f"images/{1 + number}"
        while not self.stopping.wait(PAUSE_S):
            try:
                found = self.client.search(name, SearchOptions(page_size=1))
            except Exception as error:
                self.failures.append(error)
                continue
            assert found.hits[0].image.name == name
            with self._counting:
                self.answered += 1

    def wait_for(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal)


@pytest.fixture
def servers(collection: Path, tmp_path: Path) -> Iterator[tuple[Path, list[ServerProcess]]]:
    """Give a collection and three servers of it."""
    root = tmp_path / "photographs.ww"
    shutil.copytree(collection, root)
    with ExitStack() as stack:
        started = []
        for number in range(3):
            started.append(ServerProcess(root, tmp_path / f"{number}.log"))
            stack.callback(started[-1].kill)
        for server in started:
            server.wait()
        yield root, started


def test_no_caller_notices_a_server_that_dies_or_a_new_generation(servers: tuple[Path, list[ServerProcess]]) -> None:
    """Of three under load one is killed, its share goes to the others, it comes back; then all take a generation."""
    root, (killed, *others) = servers
    addresses = [server.address for server in (killed, *others)]
    with Client(addresses) as client, Publisher(root) as publisher:
        callers = Callers(client)
        with callers.asking():
            callers.wait_for(300)
            shares = [server.searches for server in (killed, *others)]
            killed.kill()
            before = [server.searches for server in others]
            callers.wait_for(200)
            while_away = [server.searches - count for server, count in zip(others, before, strict=True)]
            killed.start()
            killed.wait()
            wait_until(lambda: killed.searches > 50)
            publisher.add(ADDED)
            publisher.publish()
            wait_until(lambda: {each.collection().generation for each in client.servers()} == {2})
            callers.wait_for(100)
            images = client.collection().image_count
        back = killed.address

    assert callers.failures == []
    assert min(shares) > 0.2 * sum(shares)
    assert min(while_away) > 0.3 * sum(while_away)
    assert back == addresses[0]
    assert images == 8 + ADDED


# --- pages of one answer from several servers ---------------------------------------------------------------------


@pytest.fixture
def two_servers(collection: Path, tmp_path: Path, one_thread: None) -> Iterator[tuple[Path, Client]]:
    """Give a collection, and a client of two servers of it that look for new generations only when they are told."""
    root = tmp_path / "photographs.ww"
    shutil.copytree(collection, root)
    with ExitStack() as stack:
        addresses = []
        for _ in range(2):
            server, port = create_server(ServerSettings(root, listen="127.0.0.1:0", refresh_s=0))
            stack.callback(server.stop, None)
            server.start()
            addresses.append(f"127.0.0.1:{port}")
        yield root, stack.enter_context(Client(addresses))


def test_a_page_token_is_good_on_every_server_of_its_generation(two_servers: tuple[Path, Client]) -> None:
    """A server keeps nothing of the page before: the other goes on where the first stopped."""
    one, other = two_servers[1].servers()
    everything = one.search("images/1", SearchOptions(page_size=8))

    first = one.search("images/1", SearchOptions(page_size=5))
    second = other.search("images/1", SearchOptions(page_size=5, page_token=first.next_page_token))

    assert [*first.hits, *second.hits] == list(everything.hits)
    assert second.next_page_token == ""


def test_a_page_token_has_expired_on_a_server_of_another_generation(two_servers: tuple[Path, Client]) -> None:
    """Ahead or behind, the error names both generations; once all have refreshed, a search by pages goes through."""
    root, client = two_servers
    ahead, behind = client.servers()
    old = behind.search("images/1", SearchOptions(page_size=5)).next_page_token
    with Publisher(root) as publisher:
        publisher.add(ADDED)
        publisher.publish()
    ahead.refresh()
    new = ahead.search("images/1", SearchOptions(page_size=5)).next_page_token

    with pytest.raises(PageTokenExpired, match="made on generation 1, generation 2 is being served"):
        ahead.search("images/1", SearchOptions(page_size=5, page_token=old))
    with pytest.raises(PageTokenExpired, match="made on generation 2, generation 1 is being served"):
        behind.search("images/1", SearchOptions(page_size=5, page_token=new))
    refreshed = client.refresh()
    found = client.search("images/1", SearchOptions(page_size=5, page_token=new))

    assert refreshed.generation == 2
    assert len(found.hits) == 5
