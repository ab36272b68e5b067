"""`deploy/` started: commands as they are written, servers with the settings of compose and of the unit."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands import Process, run, start
from tests.integration.test_documents import blocks
from tests.unit.test_deploy import DEPLOY, compose, image_environment, unit_options
from whatwhere.service.client.client import Client
from whatwhere.service.security.tls import channel_credentials

DOCUMENT = "deploy/README.md"
ADDRESS = re.compile(r"[\d.]+:\d+")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that the commands under the first heading fill, run as they are written there."""
    folder = tmp_path_factory.mktemp("deploy")
    (block,) = blocks(DOCUMENT, "Certificate and tokens", "console")
    where = folder
    for line in block.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ").partition("    #")[0]
        if command.startswith("mkdir"):
            subprocess.run(["bash", "-euc", command], cwd=folder, check=True)
            where = folder / command.rpartition(" ")[2]
        elif command.startswith("whatwhere "):
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(where)
                done = run(*command.split()[1:])
            assert done.returncode == 0, done.stderr
            (where / "token").write_text(done.stdout)
        else:
            subprocess.run(["bash", "-euc", command], cwd=where, check=True, capture_output=True)
    return where


@pytest.mark.parametrize("name", ["grafana_password", "stores.env"])
def test_passwords_are_made_as_they_are_written(name: str, tmp_path: Path) -> None:
    """All of them, and each another one."""
    (tmp_path / "deploy" / "secrets").mkdir(parents=True)
    lines = "".join(blocks(DOCUMENT, "Compose", "console")).replace("$ ", "\n")
    command = next(part for part in re.split(r"\n(?=\S)", lines) if f"> deploy/secrets/{name}" in part)

    subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)

    made = (tmp_path / "deploy" / "secrets" / name).read_text().split()
    values = [line.partition("=")[2] or line for line in made]
    assert len(set(values)) == len(values) == (1 if name == "grafana_password" else 4)
    assert {len(value) for value in values} <= {32, 48}


def of_compose(secrets: Path) -> dict[str, str]:
    """Return the environment of the composed server; its secrets are those of the folder."""
    composed = compose()
    files = {f"/run/secrets/{name}": each["file"] for name, each in composed["secrets"].items()}
    found = {**image_environment("Containerfile"), **composed["services"]["server"]["environment"]}
    return {name: str(secrets / Path(files[value]).name) if value in files else value for name, value in found.items()}


def of_unit(secrets: Path) -> dict[str, str]:
    """Return the unit's command line as an environment; its configuration is that of the folder."""
    found = {f"WHATWHERE_SERVE_{name[2:].replace('-', '_').upper()}": value for name, value in unit_options().items()}
    del found["WHATWHERE_SERVE_COLLECTION"]
    return {name: value.replace("/etc/whatwhere", str(secrets)) for name, value in found.items()}


@pytest.mark.parametrize("environment", [of_compose, of_unit])
def test_a_server_is_served_as_deployed(environment: object, secrets: Path, collection: Path) -> None:
    """With its certificate, tokens, ports for probes and metrics; asked as the page says, ended as it is stopped."""
    given: Mapping[str, str] = environment(secrets)  # type: ignore[operator] # one of the functions above
    served = {name: value for name, value in given.items() if name.startswith("WHATWHERE_SERVE_")}
    changed = {
        **{name: ADDRESS.sub("127.0.0.1:0", value) for name, value in served.items()},
        "WHATWHERE_SERVE_DRAIN_DELAY": "0",
        "WHATWHERE_COLLECTION": str(collection),
        "WHATWHERE_SERVE_LOG_FORMAT": "json",
        "PATH": os.environ["PATH"],
        "HOME": str(secrets),
    }

    with start("serve", environment=changed) as server:
        addresses = ready(server)
        probed = run("health", "--server", addresses["health"])
        credentials = channel_credentials(secrets / "tls.crt")
        token = (secrets / "token").read_text().strip()
        with Client(
            addresses["listen"].replace("0.0.0.0", "127.0.0.1"), token=token, credentials=credentials
        ) as client:
            count = client.collection().image_count
        server.send_signal(signal.SIGTERM)
        server.communicate(30)

    assert (probed.returncode, count, server.wait()) == (0, 8, 0)
    assert addresses.keys() >= {"listen", "health", "metrics"}


def ready(server: Process) -> dict[str, str]:
    """Return the addresses of a server that has started, by its log."""
    assert server.stderr is not None
    for line in server.stderr:
        if '"ready"' in line:
            return {name: value for name, value in json.loads(line).items() if isinstance(value, str)}
    raise AssertionError("it did not start")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_the_unit_is_one_of_systemd(tmp_path: Path) -> None:
    """As its first line says, with a program that is there."""
    text = (DEPLOY / "whatwhere.service").read_text().replace("/opt/whatwhere/bin/whatwhere", "/bin/true")
    unit = tmp_path / "whatwhere.service"
    unit.write_text(text.replace("User=whatwhere", "User=root"))

    done = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
