"""Write files atomically: temporary file, fsync, rename, fsync of the directory."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

FileVersion = tuple[int, int, int]
FileId = tuple[int, int]


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically and durably: `write` fills a temporary file, which is then renamed to `path`.

    Raises any error of `write`, and OSError if the disk fails; the temporary file is then removed.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = temporary.stat().st_mode  # as the umask says; some writers (safetensors) set owner-only permissions
    try:
        write(temporary)
        temporary.chmod(mode)
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would occupy the space that the next try needs
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically and durably."""
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def system_error(text: str, path: Path) -> OSError:
    """Convert a library's message about writing `path` to an OSError, with the errno whose text it contains."""
    code = next((code for code in errno.errorcode if os.strerror(code) in text), None)
    return OSError(f"{path}: {text}") if code is None else OSError(code, os.strerror(code), str(path))


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(file: BinaryIO, byte_count: int) -> None:
    """Take room for `byte_count` bytes on the disk, so that a full one is found before they are computed.

    Does nothing where the system cannot (macOS): there a full disk is found when the bytes are written.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, byte_count)


def version_of(stat: os.stat_result) -> FileVersion:
    """Return a version that changes when the file is replaced or written to."""
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def file_id(path: Path) -> FileId | None:
    """Return the device and inode of a file or folder, which stay when it is written or renamed; None without one."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(path: Path) -> str:
    """Return a file's name as printable text of one line.

    Invalid UTF-8 becomes \ufffd; control characters become escapes.
    """
    name = os.fsencode(path.name).decode(errors="replace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def path_of_uri(uri: str) -> Path:
    """Return the path of a file: URI, the inverse of `Path.as_uri`, also for names that are not UTF-8.

    A person may have written the URI without encoding: `?` and `#` are part of the name.
    """
    rest = uri.partition(":")[2]
    path = "/" + rest[2:].partition("/")[2] if rest.startswith("//") else rest
    return Path(os.fsdecode(unquote_to_bytes(path)))


def file_named(text: str) -> Path:
    """Return the path of a file that a person names by its path or its file: URI, percent-encoded or not."""
    if not text.startswith("file://"):
        return Path(text)
    decoded, written = path_of_uri(text), Path(text.removeprefix("file://"))
    return written if written.exists() and not decoded.exists() else decoded
