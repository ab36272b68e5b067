"""Decide which files and folders a scan leaves out: hidden ones, folders of systems, and gitignore patterns."""

import fnmatch
from dataclasses import dataclass
from functools import cached_property

from pathspec import GitIgnoreSpec

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.kinds import Skip

NO_MEDIA = ".nomedia"  # Android: a folder with a file of this name has no photographs for a gallery
# Thumbnails of Synology, recycle bins of QNAP, Windows and desktops, and old versions of Syncthing.
_SYSTEM_FOLDERS = ("@eadir", "#recycle", "$recycle.bin", ".trash*", ".stversions")

_APPLE_DOUBLE = Skip(
    "AppleDouble", "AppleDouble: what macOS stores beside a photograph, without its pixels", by_rule=True
)
_CLOUD = Skip("iCloud placeholder", "a placeholder of iCloud: download the original first", by_rule=True)
_HIDDEN_FILE = Skip("hidden file", "a hidden file: --include-hidden takes it", by_rule=True)
_HIDDEN_FOLDER = Skip("hidden folder", "a hidden folder: --include-hidden takes it", by_rule=True)
_SYSTEM_FOLDER = Skip("system folder", "a folder of thumbnails, deleted files or old versions", by_rule=True)
LINKED_FOLDER = Skip("linked folder", "a link to a folder is not followed: give the folder that it leads to")
NO_MEDIA_FOLDER = Skip(
    f"{NO_MEDIA} folder", f"a folder with a file {NO_MEDIA}: give the folder by name to index it", by_rule=True
)


@dataclass(frozen=True)
class Exclusions:
    """Rules for what is found in a folder; a file or a folder that is given by name is always taken.

    `patterns` follow gitignore's rules, relative to each given folder; a later `!pattern` takes back. Raises
    InvalidRequest for a pattern that gitignore does not know, or that would exclude nothing.
    """

    patterns: tuple[str, ...] = ()
    include_hidden: bool = False

    def __post_init__(self) -> None:
        """Check the patterns."""
        for pattern in self.patterns:
            try:
                (known,) = GitIgnoreSpec.from_lines([pattern]).patterns
            except ValueError as error:
                raise InvalidRequest(f"--exclude {pattern!r} is not a gitignore pattern", field="exclude") from error
            if known.include is None:
                raise InvalidRequest(
                    f"--exclude {pattern!r} excludes nothing: it is empty or a comment; write \\# for a name with #",
                    field="exclude",
                )

    def of_folder(self, name: str, path: str) -> Skip | None:
        """Return why a folder is left out with everything in it, None if it is searched.

        `path` is relative to the given folder, with slashes.
        """
        if any(fnmatch.fnmatchcase(name.casefold(), system) for system in _SYSTEM_FOLDERS):
            return _SYSTEM_FOLDER
        if name.startswith(".") and not self.include_hidden:
            return _HIDDEN_FOLDER
        return self._excluded(f"{path}/", "excluded folder")

    def of_file(self, name: str, path: str) -> Skip | None:
        """Return why a file is left out, None if it is not; `path` as for `of_folder`."""
        if name.startswith("."):
            if name.startswith("._"):
                return _APPLE_DOUBLE
            if not self.include_hidden:
                return _CLOUD if name.endswith(".icloud") else _HIDDEN_FILE
        return self._excluded(path, "excluded file")

    def _excluded(self, path: str, kind: str) -> Skip | None:
        if self._spec is None:
            return None
        found = self._spec.check_file(path)
        if not found.include or found.index is None:
            return None
        return self._reasons[kind, found.index]

    @cached_property
    def _spec(self) -> GitIgnoreSpec | None:
        return GitIgnoreSpec.from_lines(self.patterns) if self.patterns else None

    @cached_property
    def _reasons(self) -> dict[tuple[str, int], Skip]:
        """One object for each reason: a million excluded files share them."""
        return {
            (kind, index): Skip(kind, f"excluded by the pattern {pattern}", by_rule=True)
            for kind in ("excluded file", "excluded folder")
            for index, pattern in enumerate(self.patterns)
        }
