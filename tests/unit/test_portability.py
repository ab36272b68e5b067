"""What only Linux has is not needed: a Mac indexes, searches and serves TLS. Its calls are taken away here."""

import os
import stat
from pathlib import Path

import pytest
import trustme

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.storage.files import reserve
from whatwhere.service.search.searcher import Query, open_searcher
from whatwhere.service.security.tls import ServerContext, _as_file, server_credentials
from whatwhere.service.security.tls_files import TlsFiles


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave of the system's calls those that macOS has."""
    for name in ("sched_getaffinity", "posix_fallocate", "memfd_create", "process_cpu_count"):
        monkeypatch.delattr(os, name, raising=False)


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first that there is: Python's own override, the affinity, the machine's count; one at the least."""
    monkeypatch.setattr("whatwhere.indexer.cores._PROCESS", Path("/none"))
    monkeypatch.setenv("PYTHON_CPU_COUNT", "5")
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    found = [available_cores()]
    for name in ("process_cpu_count", "sched_getaffinity"):
        monkeypatch.delattr(os, name)
        found.append(available_cores())
    monkeypatch.setattr(os, "cpu_count", lambda: None)

    assert [*found, available_cores()] == [5, 3, 7, 1]


def test_room_is_taken_where_the_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a file is as long as what is written to it."""
    with (tmp_path / "reserved").open("wb") as file:
        reserve(file, 5000)
    monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "plain").open("wb") as file:
        reserve(file, 5000)

    assert [(tmp_path / name).stat().st_size for name in ("reserved", "plain")] == [5000, 0]


@pytest.mark.usefixtures("mac")
def test_a_mac_indexes_and_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph is found by itself."""
    monkeypatch.setenv("WHATWHERE_ENGINE", "torch")

    index_paths([QUERY_PHOTOGRAPH], tmp_path / "collection")
    with open_collection(tmp_path / "collection") as reader:
        searcher = open_searcher(reader)
        found = searcher.search(Query(content=QUERY_PHOTOGRAPH.read_bytes()))
        searcher.batcher.close()

    assert [round(hit.score, 3) for hit in found.hits] == [1.0]


@pytest.mark.usefixtures("mac")
def test_a_mac_serves_tls_by_files_that_only_their_owner_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there for a moment: OpenSSL reads files alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    certificate = trustme.CA().issue_cert("find.example")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    files.key.write_bytes(certificate.private_key_pem.bytes())

    server_credentials(files)
    names = ServerContext(files).names
    with _as_file(b"secret") as name:
        kept, mode = Path(name).read_bytes(), stat.S_IMODE(Path(name).stat().st_mode)

    assert names == ("find.example",)
    assert (kept, mode) == (b"secret", 0o600)
    assert not list((tmp_path / "temporary").iterdir())
