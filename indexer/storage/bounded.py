"""Read files of people within a limit: size and kind are checked before a byte is read.

Reading a device would never end, a pipe without a writer would wait for ever, and a sparse file of a few bytes on the
disk would fill the memory.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr, BinaryIO

KIB = 1024
MAX_LINE_LENGTH = 16 * KIB * KIB  # of a table or a list, in bytes or characters
_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


class NotAFile(OSError):
    """The path is not a regular file: a directory, a pipe, a socket or a device."""


class FileTooLarge(OSError):
    """The file exceeds the limit."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises NotAFile, FileTooLarge, and OSError if it cannot be read; the `strerror` of all begins in lower or upper case
    and reads well after the name of the file.
    """
    with open_bounded(path, max_bytes) as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # files in /proc report size 0, and reading them may block for ever
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it has grown meanwhile
        raise _too_large(path, len(content), max_bytes)
    return content


def open_bounded(path: Path, max_bytes: int) -> BinaryIO:
    """Open a regular file of at most `max_bytes` for reading. Raises the errors of `read_bounded`."""
    _check(path, os.stat(path), max_bytes)  # first: opening a pipe or a device can have effects
    # Should a pipe have taken its place since, opening does not wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check(path, os.fstat(file.fileno()), max_bytes)
    except OSError:
        file.close()
        raise
    return file


def bounded_lines(file: IO[AnyStr], max_length: int = MAX_LINE_LENGTH) -> Iterator[AnyStr]:
    """Yield the lines of a file, bytes or text, each with its line end. Raises FileTooLarge for a longer line."""
    number = 0
    while line := file.readline(max_length + 1):
        number += 1
        if len(line) > max_length:
            raise FileTooLarge(errno.EFBIG, f"line {number} is longer than {max_length:,}")
        yield line


def _check(path: Path, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "is of an unknown kind")
        raise NotAFile(errno.EINVAL, f"{kind}, not a regular file", str(path))
    if status.st_size > max_bytes:
        raise _too_large(path, status.st_size, max_bytes)


def _too_large(path: Path, byte_count: int, max_bytes: int) -> FileTooLarge:
    return FileTooLarge(errno.EFBIG, f"{byte_count:,} bytes, the limit is {max_bytes:,}", str(path))
