"""Write the files that a person asks for: never over an input, over another file only if that was asked for, too."""

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.files import write_durably


@dataclass(frozen=True)
class Output:
    """A file to write. An existing one is replaced only with `overwrite`; `field` names it in errors."""

    path: Path
    overwrite: bool = False
    field: str = "picture"

    def check(self) -> None:
        """Check, before the work begins, that the file can be written.

        Raises InvalidRequest if it exists and `overwrite` is not set, if it is a directory, or if its directory does
        not exist or is not writable.
        """
        path, folder = self.path, self.path.resolve().parent
        if path.is_dir():
            raise self._error("is a directory: give a file name")
        if not folder.is_dir():
            raise self._error("its directory does not exist: create it")
        if self._is_kept:
            if not self.overwrite:
                raise self._error("exists: give another name, or replace it with --overwrite")
            if not os.access(path, os.W_OK):
                raise self._error("is not writable: give another path")
        if not (path.exists() and not path.is_file()) and not os.access(folder, os.W_OK):
            raise self._error("its directory is not writable: give another path")

    def spare(self, inputs: Iterable[Path]) -> None:
        """Raise InvalidRequest if the file is one of these, also by a link, or is in one of these folders."""
        if not self._is_kept:
            return
        target = self.path.resolve()
        for read in inputs:
            with suppress(OSError):  # an input that does not exist
                if os.path.samefile(self.path, read) or (read.is_dir() and target.is_relative_to(read.resolve())):
                    lost = f"is a file of {read}" if read.is_dir() else f"is the same file as {read}, which is read"
                    raise self._error(f"{lost}, and would be lost: give another name")

    def write(self, write: Callable[[Path], object]) -> None:
        """Write the file: `write` fills a path. Raises the errors of `check`, OSError, and those of `write`.

        The file appears when it is complete; a link stays and what it leads to is replaced. A device or a pipe, such as
        /dev/stdout, is written to.
        """
        self.check()
        if self.path.exists() and not self._is_kept:
            write(self.path)
        else:
            write_durably(self.path.resolve(), write)

    @property
    def _is_kept(self) -> bool:
        """Whether there is a file that writing replaces."""
        with suppress(OSError):
            return stat.S_ISREG(self.path.stat().st_mode)
        return False

    def _error(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"{self.path}: {reason}", field=self.field)
