"""`whatwhere health`, `refresh` and `search --server` as people run them, with and without a token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOKEN = "a-token-nobody-may-see"


def run(*arguments: str | Path, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "WHATWHERE_TOKEN"} | {"COLUMNS": "200"}
    if token is not None:
        environment["WHATWHERE_TOKEN"] = token
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_a_server_that_serves_says_so(server: str) -> None:
    """One word, exit code 0."""
    done = run("health", "--server", server)

    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_an_unknown_service_is_an_error(server: str) -> None:
    """The name arrives, and the error names it."""
    done = run("health", "--server", server, "--service", "nobody")

    assert done.returncode == 1
    assert "nobody" in done.stderr


def test_where_nobody_listens_health_fails() -> None:
    """Exit code 1 and a sentence, soon."""
    done = run("health", "--server", "127.0.0.1:1", "--timeout", "3")

    assert done.returncode == 1
    assert "whatwhere serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_probe_does_without_torch() -> None:
    """Seconds of import would be most of what a probe takes."""
    code = """
import sys
sys.argv = ["whatwhere", "health", "--server", "127.0.0.1:1"]
from service.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 1
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_refresh_prints_the_generation(server: str) -> None:
    """As a sentence, and as JSON for programs."""
    said, answered = run("refresh", "--server", server), run("refresh", "--server", server, "--json")

    assert "generation 1, 8 images" in said.stdout
    assert json.loads(answered.stdout) == {"generation": 1, "image_count": 8}


@pytest.mark.parametrize("command", [("health",), ("refresh",), ("search", "images/1")])
def test_the_environments_token_stays_on_the_machine(command: tuple[str, ...]) -> None:
    """It is read, refused in plain text to another machine, and not shown."""
    done = run(*command, "--server", "whatwhere.invalid:1", token=TOKEN)

    assert done.returncode == 1
    assert "plain text" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [("health",), ("refresh",), ("search", "images/1")])
def test_a_token_may_be_sent_in_plain_text_when_allowed(command: tuple[str, ...], tmp_path: Path) -> None:
    """The file is read, the flag arrives: what fails then is that there is no such machine."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    flags = ("--token-file", tmp_path / "token", "--allow-insecure", "--timeout", "5")

    done = run(*command, "--server", "whatwhere.invalid:1", *flags)

    assert done.returncode == 1
    assert "no answer from whatwhere.invalid:1" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two words", b"\xff\xfe"])
def test_a_file_that_holds_no_token_is_named_and_not_shown(content: bytes | None, tmp_path: Path) -> None:
    """Missing, empty, or not printable."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    done = run("health", "--server", "127.0.0.1:1", "--token-file", tmp_path / "token")

    assert done.returncode == 1
    assert "token" in done.stderr
    assert "two words" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["health", "refresh", "search"])
def test_help_shows_no_secret(command: str) -> None:
    """The variable's name, not its value."""
    done = run(command, "--help", token=TOKEN)

    assert "WHATWHERE_TOKEN" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("flag", ["--tls-certificate", "--tls-key"])
def test_half_an_identity_is_wrong_usage(flag: str, tmp_path: Path) -> None:
    """A certificate without its key, a key without its certificate."""
    done = run("health", "--server", "127.0.0.1:1", flag, tmp_path / "half.pem")

    assert done.returncode == 2
    assert "go together" in done.stderr
