"""The command line beside its answers: variables, options in any place, pipes, terminals, and how it is stopped."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import commands
from tests.waiting import wait_until

HOSTILE = "no\x1b[31msuch\r\nerror: \x07"


def run(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return commands.run(*arguments, environment=os.environ | (environment or {}))


@pytest.mark.parametrize(
    "arguments", [("search", "images/1"), ("explain", "images/1"), ("compare", "images/1", "images/2"), ("info",)]
)
def test_the_variable_names_the_collection(arguments: tuple[str, ...], collection: Path) -> None:
    """As it does where --collection is required."""
    named = run(*arguments, "--json", environment={"WHATWHERE_COLLECTION": str(collection)})

    assert named.returncode == 0, named.stderr
    assert named.stdout == run(*arguments, "-c", collection, "--json").stdout


def test_an_option_counts_before_a_variable_and_the_server_s_before_the_collection_s(collection: Path) -> None:
    """Nothing is sent to a server that another place overrides."""
    nowhere = {"WHATWHERE_SERVER": "127.0.0.1:1", "WHATWHERE_COLLECTION": "/no/such/collection.ww"}

    by_option = run("search", "images/1", "-c", collection, environment=nowhere)
    by_server = run("search", "images/1", "--timeout", "1", environment=nowhere)

    assert by_option.returncode == 0, by_option.stderr
    assert "127.0.0.1:1" in by_server.stderr


def test_verbose_and_quiet_stand_before_or_after_the_command(collection: Path, tmp_path: Path) -> None:
    """Logs are on standard error, and JSON alone is on standard output."""
    said = {
        place: run(*before, "index", tmp_path, "-c", tmp_path / f"{place}.ww", "--json", *after)
        for place, before, after in (("before", ["-v"], []), ("after", [], ["-v"]), ("without", [], []))
    }
    quiet = [
        run(*arguments, "--collection", collection, "--filter", "x = 1")
        for arguments in (("images",), ("-q", "images"), ("images", "--quiet"))
    ]

    assert {place: "INFO whatwhere" in done.stderr for place, done in said.items()} == {
        "before": True,
        "after": True,
        "without": False,
    }
    assert all(json.loads(done.stdout)["described"] == 0 for done in said.values())
    assert [done.stderr for done in quiet] == ["no image matches\n", "", ""]


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", HOSTILE, "-c", "{collection}"),
        ("search", "images/1", "-c", HOSTILE),
        ("search", "images/1", "-c", "{collection}", "--filter", HOSTILE),
        ("index", HOSTILE, "-c", "{folder}/new.ww"),
        ("info", "-c", HOSTILE),
        ("health", "--server", "127.0.0.1:1", "--token-file", HOSTILE),
        (HOSTILE,),
        ("info", f"--{HOSTILE}"),
    ],
    ids=lambda arguments: arguments[0] if arguments[0].isprintable() else "command",
)
def test_control_characters_of_arguments_are_escaped(
    arguments: tuple[str, ...], collection: Path, tmp_path: Path
) -> None:
    """In messages, which a terminal obeys; an error stays one line."""
    done = run(*(text.format(collection=collection, folder=tmp_path) for text in arguments))

    assert done.returncode in (1, 2)
    assert "\\x1b[31m" in done.stderr or "\\x07" in done.stderr
    assert all(letter.isprintable() for line in done.stderr.split("\n") for letter in line)
    assert done.returncode == 2 or done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error_to_read(collection: Path) -> None:
    """`whatwhere images | head -1`: no traceback, and no complaint at exit."""
    for more in ([], ["--json"]):
        with subprocess.Popen(
            [*commands.AFRESH, "images", "-c", str(collection), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            said = process.stderr.read()

        assert said == b""
        assert process.returncode == 1


def test_a_second_ctrl_c_ends_the_command_at_once(tmp_path: Path) -> None:
    """The first one waits for what is being cleaned up."""
    ready = tmp_path / "ready"
    code = f"""
import pathlib, signal, sys, time
from whatwhere.service import cli

@cli.app.command()
def stuck() -> None:
    try:
        pathlib.Path({str(ready)!r}).touch()
        time.sleep(60)
    finally:
        pathlib.Path({str(ready)!r}).unlink()
        time.sleep(60)  # what is cleaned up

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
sys.argv = ["whatwhere", "stuck"]
cli.main()
"""
    with subprocess.Popen([commands.AFRESH[0], "-c", code], stderr=subprocess.PIPE) as process:
        wait_until(ready.exists)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not ready.exists())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert process.returncode == -signal.SIGINT
    assert said == b""
