"""A folder of an object store (s3://, gs://, or any other that fsspec knows), and the errors of reaching it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any

from whatwhere.indexer.errors import CollectionNotWritable, InvalidRequest, ObjectStoreUnavailable, WhatwhereError
from whatwhere.indexer.storage.schemes import opening

# Who waits for an answer waits seconds, not the minutes of the libraries' defaults.
_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "s3": {
            "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 4}},
        },
    }
)
_READ_ONLY = ("http", "https")


@dataclass(frozen=True)
class ObjectFolder:
    """All objects whose names begin with `address`; names are relative to it, parted by slashes.

    Objects are written whole or not at all, as object stores do it. Any method raises ObjectStoreUnavailable where the
    store is away or refuses. Safe to use from several threads.
    """

    address: str

    @cached_property
    def _filesystem(self) -> Any:
        import fsspec  # noqa: PLC0415 - collections in directories do not pay for it

        protocol = self.address.partition("://")[0]
        if protocol in _READ_ONLY:
            raise InvalidRequest(
                f"{self.address} cannot hold a collection, nothing can be written there: give a directory, or an "
                "object store's s3://BUCKET/NAME or gs://BUCKET/NAME",
                field="collection",
            )
        with opening(protocol, self.address, "collection"):
            # Listings are asked for when something may have changed.
            return fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}))

    @property
    def _root(self) -> str:
        return str(self._filesystem._strip_protocol(self.address)).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def download(self, name: str, path: Path) -> None:
        """Copy an object to a file, which is there whole or not at all; FileNotFoundError where there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several processes share a cache.
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
        try:
            with self._errors_named():
                self._filesystem.get_file(self._path(name), str(temporary))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def upload(self, path: Path, name: str) -> None:
        """Copy a file to an object; CollectionNotWritable without the right to, or without the bucket."""
        try:
            with self._errors_named(CollectionNotWritable):
                self._filesystem.put_file(str(path), self._path(name))
        except FileNotFoundError as error:
            raise CollectionNotWritable(f"{self.address} cannot be written ({error}): make the bucket first") from error

    def move(self, name: str, target: str) -> None:
        """Let an object be another one, copied inside the store; CollectionNotWritable as `upload`."""
        with self._errors_named(CollectionNotWritable):
            self._filesystem.cp_file(self._path(name), self._path(target))
        self.remove(name)

    def remove(self, name: str) -> None:
        """Remove an object; nothing where there is none."""
        with suppress(FileNotFoundError), self._errors_named(CollectionNotWritable):
            self._filesystem.rm_file(self._path(name))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of all objects below a folder, by name."""
        with self._errors_named():
            try:
                found = self._filesystem.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        start = len(self._root) + 1
        return {path[start:]: entry["size"] for path, entry in found.items() if len(path) > start}

    @contextmanager
    def _errors_named(self, refused: type[WhatwhereError] = ObjectStoreUnavailable) -> Iterator[None]:
        try:
            yield
        except (WhatwhereError, FileNotFoundError):
            raise
        except PermissionError as error:  # also of what is not there, where listing is not allowed
            raise refused(
                f"{self.address} refuses these credentials ({error}): give them the right to list, read, write and "
                "remove there"
            ) from error
        except Exception as error:  # each store's library has its own tree of errors
            raise ObjectStoreUnavailable(
                f"{self.address} cannot be reached ({type(error).__name__}: {error}): look whether the store is up "
                "and its address and credentials are right (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ... for s3://), then "
                "try again"
            ) from error
