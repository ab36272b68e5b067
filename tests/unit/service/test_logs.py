"""The log of a server: it never waits for a reader, and both formats have the same fields."""

import json
import logging
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from whatwhere.service.observability.background import BackgroundHandler, dropped_lines
from whatwhere.service.observability.log_format import LogFormat
from whatwhere.service.observability.logs import logging_to_stderr

EXHAUSTED = "socket.accept() out of system resource\nsocket: <asyncio.TransportSocket fd=15>"


@contextmanager
def standard_error() -> Iterator[int]:
    """Put a pipe in the place of standard error; give its other end."""
    reader, writer = os.pipe()
    kept = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield reader
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(reader)


def logged(format: LogFormat) -> str:
    """Return what an event with fields and an error becomes."""
    log = logging.getLogger("whatwhere.test")
    with standard_error() as reader:
        with logging_to_stderr(format):
            try:
                int("two\nlines")
            except ValueError:
                log.exception("it\nfailed", extra={"client": "address:ipv4:127.0.0.1", "ms": 1.5})
            for _ in range(3):
                logging.getLogger("asyncio").error(EXHAUSTED)
        return os.read(reader, 65536).decode()


def test_text_and_json_have_the_same_fields_in_one_line_an_event() -> None:
    """Line breaks are escaped; that no descriptor is free is said once, not 512 times a second."""
    text, made_json = logged(LogFormat.TEXT).splitlines(), logged(LogFormat.JSON).splitlines()

    # Ray, once it is imported, adds a field of its own to all records of the process.
    fields = [[key for key in json.loads(line) if not key.startswith("_ray")] for line in made_json]
    assert [sorted(keys) for keys in fields] == [
        ["client", "event", "exception", "level", "logger", "ms", "timestamp"],
        ["event", "level", "logger", "timestamp"],
    ]
    assert [all(f"{key}=" in line for key in keys) for line, keys in zip(text, fields, strict=True)] == [True, True]


def full_pipe() -> tuple[int, int]:
    """Return a pipe that has no room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return reader, writer


def test_nobody_who_reads_stops_nobody_who_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that find no room are dropped and counted, and said when there is a reader again."""
    reader, writer = full_pipe()
    handler = BackgroundHandler(writer, most_waiting=10)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    for number in range(200):
        handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    dropped = dropped_lines()
    read = os.read(reader, 1 << 20)
    while b"log lines dropped" not in read:
        assert select.select([reader], [], [], 10)[0]
        read += os.read(reader, 1 << 20)
    handler.close()
    os.close(writer)
    while more := os.read(reader, 1 << 20):  # what was still waiting
        read += more
    os.close(reader)

    assert dropped in (189, 190)  # one may have left the queue, to be written
    assert read.count(b"line ") == 200 - dropped


def test_a_log_that_nobody_reads_does_not_hold_up_the_end() -> None:
    """What is left is given up after seconds."""
    reader, writer = full_pipe()
    handler = BackgroundHandler(writer, most_waiting=10)
    for _ in range(200):
        handler.handle(logging.makeLogRecord({"msg": "line"}))
    closing = threading.Thread(target=handler.close, daemon=True)
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    os.read(reader, 1 << 20)

    assert ended
