"""Access a folder of an object store (s3://, gs://, or any other that fsspec supports)."""

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

# Seconds, not the minutes of the libraries' defaults: clients wait for the response.
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
    """All objects whose names begin with `address`; object names are relative to it, separated by slashes.

    Object stores write atomically. The class is thread-safe.
    Raises ObjectStoreUnavailable if the store is unreachable or denies access, and InvalidRequest if the address has an
    unknown or read-only scheme, or a library is missing.
    """

    address: str

    @cached_property
    def _filesystem(self) -> Any:
        import fsspec  # noqa: PLC0415 - needed for collections in object stores only

        protocol = self.address.partition("://")[0]
        if protocol in _READ_ONLY:
            raise InvalidRequest(
                f"{self.address} is read-only and cannot store a collection: use a directory, or an object store "
                "(s3://BUCKET/NAME, gs://BUCKET/NAME)",
                field="collection",
            )
        with opening(protocol, self.address, "collection"):
            # Listings must show changes by other processes.
            return fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}))

    @property
    def _root(self) -> str:
        return str(self._filesystem._strip_protocol(self.address)).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def download(self, name: str, path: Path) -> None:
        """Download an object to a file, atomically.

        Raises FileNotFoundError if the object does not exist.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # A unique name: several processes share a cache.
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
        """Upload a file to an object.

        Raises CollectionNotWritable if permission or the bucket is missing.
        """
        try:
            with self._errors_named(CollectionNotWritable):
                self._filesystem.put_file(str(path), self._path(name))
        except FileNotFoundError as error:
            message = f"{self.address} cannot be written ({error}): create the bucket first"
            raise CollectionNotWritable(message) from error

    def move(self, name: str, target: str) -> None:
        """Rename an object by a copy inside the store.

        Raises CollectionNotWritable if permission is missing.
        """
        with self._errors_named(CollectionNotWritable):
            self._filesystem.cp_file(self._path(name), self._path(target))
        self.remove(name)

    def remove(self, name: str) -> None:
        """Remove an object if it exists.

        Raises CollectionNotWritable if permission is missing.
        """
        with suppress(FileNotFoundError), self._errors_named(CollectionNotWritable):
            self._filesystem.rm_file(self._path(name))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the sizes in bytes of all objects below a folder, by name."""
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
        except PermissionError as error:  # also for a missing object if listing is denied
            raise refused(
                f"{self.address} denies access with these credentials ({error}): they need permission to list, read, "
                "write and delete"
            ) from error
        except Exception as error:  # each store's library has its own exception tree
            raise ObjectStoreUnavailable(
                f"{self.address} is unreachable ({type(error).__name__}: {error}): check that the store is running, "
                "its endpoint and the credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ... for s3://), then retry"
            ) from error
