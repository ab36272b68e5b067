"""`whatwhere health`, `refresh` and `search --server` as people run them, with and without a token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands
from tests.scripted_server import ScriptedServer, serving, well

TOKEN = "a-token-nobody-may-see"
VARIABLES = ("WHATWHERE_TOKEN", "WHATWHERE_SERVER")


def run(
    *arguments: str | Path, token: str | None = None, server: str | None = None, afresh: bool = False
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {"COLUMNS": "200"}
    environment |= {name: value for name, value in zip(VARIABLES, (token, server), strict=True) if value is not None}
    return (commands.run_afresh if afresh else commands.run)(*arguments, environment=environment)


def test_a_server_that_serves_says_so(server: str) -> None:
    """One word, exit code 0."""
    done = run("health", "--server", server, afresh=True)

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
from whatwhere.service.cli import main
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
    said, answered = (run("refresh", "--server", server, *more, afresh=not more) for more in ((), ("--json",)))

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


def test_a_token_of_the_environment_may_end_with_a_newline() -> None:
    """As a file that a secret is read from does."""
    scripted = ScriptedServer(well)
    with serving(scripted) as address:
        done = run("refresh", "--server", address, token=f"{TOKEN}\n")

    assert done.returncode == 0, done.stderr
    assert scripted.calls[0]["authorization"] == f"Bearer {TOKEN}"


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
    assert "must be given together" in done.stderr


# --- several servers ----------------------------------------------------------------------------------------------

NOBODY = "127.0.0.1:1"


def test_each_servers_health_has_a_line() -> None:
    """Exit code 0 only where all are serving; one that does not answer hides no other."""
    one, two = ScriptedServer(well), ScriptedServer(well)
    with serving(one) as first, serving(two) as second:
        well_done = run("health", "--server", f"{first},{second}")
        two.says(serving=False)
        tired = run("health", "--server", f"{first},{second}")
        gone = run("health", "--server", f"{NOBODY},{first}", "--timeout", "3")

    assert (well_done.returncode, well_done.stdout) == (0, f"{first} SERVING\n{second} SERVING\n")
    assert (tired.returncode, tired.stdout) == (1, f"{first} SERVING\n{second} NOT_SERVING\n")
    assert (gone.returncode, gone.stdout) == (1, f"{NOBODY} SERVER_UNREACHABLE\n{first} SERVING\n")
    assert f"no answer from {NOBODY}" in gone.stderr


def test_a_refresh_reaches_all_servers_and_reports_each() -> None:
    """As lines, and as JSON for programs; one that does not answer keeps none from it, and is an error."""
    one, two = ScriptedServer(well, generation=5), ScriptedServer(well, generation=6)
    with serving(one) as first, serving(two) as second:
        said = run("refresh", "--server", f"{first},{second}")
        answered = run("refresh", "--server", f"{first},{NOBODY},{second}", "--json")

    assert (said.returncode, said.stdout) == (
        0,
        f"{first} generation 5, 0 images\n{second} generation 6, 0 images\n",
    )
    assert answered.returncode == 1
    reached, unreached, also = json.loads(answered.stdout)
    assert reached == {"server": first, "generation": 5, "image_count": 0}
    assert also == {"server": second, "generation": 6, "image_count": 0}
    assert (unreached["server"], unreached["error"]) == (NOBODY, "SERVER_UNREACHABLE")
    assert "whatwhere serve" in unreached["message"]
    assert (len(one.calls), len(two.calls)) == (2, 2)


def test_the_environment_names_the_servers() -> None:
    """The variable stands for --server, which goes before it."""
    with serving(ScriptedServer(well)) as first, serving(ScriptedServer(well)) as second:
        both = run("health", server=f"{first},{second}")
        told = run("health", "--server", first, server=NOBODY)

    assert both.stdout == f"{first} SERVING\n{second} SERVING\n"
    assert told.stdout == "SERVING\n"


def test_all_servers_of_a_dns_name_are_reported() -> None:
    """By the addresses that it stands for."""
    with serving(ScriptedServer(well)) as address:
        done = run("health", "--server", f"dns:///localhost:{address.rpartition(':')[2]}")

    assert f"{address} SERVING" in done.stdout.splitlines()


@pytest.mark.parametrize("command", ["health", "refresh"])
def test_a_wrong_address_is_named(command: str) -> None:
    """The one that is wrong, and how it is written well."""
    done = run(command, "--server", "127.0.0.1:1,127.0.0.1")

    assert done.returncode == 1
    assert "'127.0.0.1' is not a server address: give HOST:PORT" in done.stderr


@pytest.mark.parametrize("command", ["health", "refresh"])
def test_several_servers_by_tls_want_their_name(command: str) -> None:
    """And a name without TLS is refused: both flags arrive."""
    unnamed = run(command, "--server", "127.0.0.1:1,127.0.0.1:2", "--tls")
    in_plain_text = run(command, "--server", "127.0.0.1:1", "--server-name", "search.example.org")

    assert (unnamed.returncode, in_plain_text.returncode) == (1, 1)
    assert "--server-name" in unnamed.stderr
    assert "search.example.org needs TLS" in in_plain_text.stderr
