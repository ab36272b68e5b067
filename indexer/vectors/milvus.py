"""Vectors in Milvus, for collections that exceed one machine. Only this module imports pymilvus, when it is used.

The vectors of a descriptor are rows of one Milvus collection. Each row has the generation in which it was added and the
one in which it was removed, so that readers of a generation see exactly its rows while the next one is being written.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whatwhere.indexer.errors import CollectionCorrupt, InvalidRequest, VectorLibraryMissing, VectorStoreUnavailable
from whatwhere.indexer.vectors.address import INDEXES, MilvusAddress
from whatwhere.indexer.vectors.arrays import Ids, Vectors, best_with_ties
from whatwhere.indexer.vectors.conditions import MOST_TOKENS, Facts, milvus_expression
from whatwhere.indexer.vectors.store import Delta, Entry, Generation, Only, RemoteEntry, VectorSource

MOST_RESULTS = 16_384  # per search: the limit of Milvus
IDS_AT_ONCE = 20_000  # per expression: 200 KB, which Milvus Lite parses in a third of a second
_ROWS_AT_ONCE = 1024
_WRITING_S = 120.0  # deadline of writes: publishing can wait longer than a search
_RETRY_DELAY_S = 2.0
_NEVER = 2**62  # `removed` of live rows
_VERSIONS = 2**24  # maximum number of generations; the key of a row is its image id and the generation that added it
_FIELDS = ("row", "image", "added", "removed", "tokens", "bounds", "vector")
_NO_SUCH_COLLECTION, _NOT_LOADED = 100, 101  # error codes of Milvus
_REMEDY = "run `whatwhere verify --repair`, which rebuilds it from the shards"

# By default each failed attempt doubles the delay before the next one, up to two minutes.
_RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 1000}

log = logging.getLogger(__name__)


class MilvusServer:
    """A Milvus server; it is connected at the first call and reconnected if necessary. Safe for several threads."""

    def __init__(self, address: MilvusAddress, token: str = "") -> None:
        self.address = address
        self._token = token
        self._client: Any = None
        self._connecting = threading.Lock()

    def call(self, method: str, collection: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Call a method of pymilvus's client for a Milvus collection.

        Raises VectorStoreUnavailable if the server does not answer in time, CollectionCorrupt if the collection does
        not exist.
        """
        named = {"collection_name": collection, **arguments} if collection else arguments
        try:
            return self._attempt(method, timeout_s, named)
        except _Failed as failed:
            if failed.code != _NOT_LOADED:
                raise failed.error from failed.cause
        try:  # Milvus Lite unloads collections when it restarts
            self._attempt("load_collection", _WRITING_S, {"collection_name": collection, **self.loading})
            return self._attempt(method, timeout_s, named)
        except _Failed as failed:
            raise failed.error from failed.cause

    @property
    def loading(self) -> dict[str, int]:
        """The arguments for loading a collection into memory."""
        return {"replica_number": self.address.replicas} if self.address.replicas > 1 else {}

    def _attempt(self, method: str, timeout_s: float | None, arguments: Mapping[str, Any]) -> Any:
        timeout_s = self.address.timeout_s if timeout_s is None else timeout_s
        try:
            return getattr(self._connected(), method)(**arguments, timeout=timeout_s)
        except Exception as error:
            # pymilvus raises its own errors, and some of gRPC.
            if not hasattr(error, "code"):
                raise
            raise _Failed(error, self.address) from error

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = _library().MilvusClient(
                    uri=self.address.uri,
                    token=self._token,
                    db_name=self.address.database,
                    timeout=self.address.timeout_s,
                    grpc_options=_RECONNECTING,
                )
        return self._client


class _Failed(Exception):
    """A failed call: the error code of Milvus and our error for it."""

    def __init__(self, cause: Exception, address: MilvusAddress) -> None:
        super().__init__(str(cause))
        code: Any = cause.code  # type: ignore[attr-defined]
        self.cause = cause
        self.code = code() if callable(code) else code
        self.error: CollectionCorrupt | VectorStoreUnavailable
        if self.code == _NO_SUCH_COLLECTION:
            self.error = CollectionCorrupt(f"the vectors of this generation are no longer in Milvus: {_REMEDY}")
        else:
            # Remote clients see this message; the address and the original message go to the log only.
            self.error = VectorStoreUnavailable(
                f"the vector store (Milvus) did not answer within {address.timeout_s:g} s: try again, or check that "
                "the server in stores.json is running and accepts this MILVUS_TOKEN",
                retry_delay_s=_RETRY_DELAY_S,
            )
            if self.code != _NOT_LOADED:
                log.warning("milvus=%s failed: %s", address.uri, " ".join(str(cause).split())[:500])


def _library() -> Any:
    try:
        import pymilvus  # noqa: PLC0415 - collections in files do not load it
    except ImportError as error:
        raise VectorLibraryMissing("pymilvus is not installed: pip install 'whatwhere[milvus]'") from error
    return pymilvus


@dataclass(frozen=True)
class MilvusStore:
    """The Milvus collections of one whatwhere collection: their names begin with `prefix`."""

    server: MilvusServer
    prefix: str

    def knows(self, held: Entry) -> bool:
        """Tell whether these rows belong to this collection and not to a copy, and have the index of the address."""
        remote = held.remote
        if remote is None or not remote.collection.startswith(f"{self.prefix}_"):
            return False
        return remote.index == self.server.address.index

    def write(self, origin: VectorSource, change: Delta, previous: Entry | None) -> Entry:
        """Write a descriptor's part of the next generation: the difference to `previous`, or all if None."""
        index = self.server.address.index
        remote = previous.remote if previous else None
        if remote is None:
            name = f"{self.prefix}_{origin.descriptor.replace('-', '_')}_{change.number:06d}"
            self._create(name, origin.dimensions)
            self._insert(name, origin, change.number, change.ids)
        else:
            name = remote.collection
            self._undo(name, change.live)
            self._supersede(name, origin, change)
            self._insert(name, origin, change.number, np.setdiff1d(change.ids, change.known, assume_unique=True))
        self._write("flush", name)  # Milvus searches other rows without an index; Milvus Lite takes seconds
        self._require_count(name, change.number, len(change.ids))
        return Entry(remote=RemoteEntry(name, index, len(change.ids), change.filterable))

    def open(self, held: Entry, generation: Generation) -> "MilvusIndex":
        """Open a descriptor's part of a generation. Raises CollectionCorrupt if rows are missing."""
        assert held.remote is not None
        assert generation.ids is not None
        self._require_count(held.remote.collection, generation.number, len(generation.ids))
        return MilvusIndex(self.server, held.remote, generation.number, generation.ids)

    def forget(self, kept: Mapping[int, Sequence[Entry]]) -> None:
        """Delete the collections that none of these generations uses, and rows that were removed before all of them."""
        named = {held.remote.collection for parts in kept.values() for held in parts if held.remote is not None}
        for name in self.server.call("list_collections", ""):
            if name in named:
                self._write("delete", name, filter=f"removed <= {min(kept)}")
            elif name.startswith(f"{self.prefix}_"):
                self._write("drop_collection", name)

    def _write(self, method: str, name: str, **arguments: Any) -> Any:
        return self.server.call(method, name, timeout_s=_WRITING_S, **arguments)

    def _create(self, name: str, dimensions: int) -> None:
        library = _library()
        kinds = library.DataType
        if self.server.call("has_collection", name):
            self._write("drop_collection", name)  # of a run that was killed
        schema = library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", kinds.INT64, is_primary=True)
        for field in ("image", "added", "removed"):
            schema.add_field(field, kinds.INT64)
        schema.add_field("tokens", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=MOST_TOKENS, max_length=32)
        schema.add_field("bounds", kinds.JSON)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
        indexes = library.MilvusClient.prepare_index_params()
        kind = self.server.address.index
        indexes.add_index("vector", index_type=kind, metric_type="IP", params=dict(INDEXES[kind]))
        indexes.add_index("image", index_type="INVERTED")
        self._write("create_collection", name, schema=schema, index_params=indexes, consistency_level="Strong")

    def _insert(self, name: str, origin: VectorSource, number: int, ids: Ids) -> None:
        """Add rows of these images; they replace rows of a killed run with the same keys."""
        place = 0
        for block in origin.vectors(ids):
            these = ids[place : place + len(block)]
            place += len(block)
            rows = zip(these.tolist(), origin.facts(these), block, strict=True)
            self._upsert(name, [_row(image, number, facts) | {"vector": vector} for image, facts, vector in rows])

    def _undo(self, name: str, live: int) -> None:
        """Undo the writes of a run that was killed before it published its generation."""
        self._write("delete", name, filter=f"added > {live}")
        while rows := self._rows(name, f"removed > {live} and removed < {_NEVER}"):
            self._upsert(name, [{**row, "removed": _NEVER} for row in rows])

    def _supersede(self, name: str, origin: VectorSource, change: Delta) -> None:
        """End the rows of removed images and of images with changed facts; add rows with the new facts."""
        ending = np.union1d(np.setdiff1d(change.known, change.ids), change.altered)
        for start in range(0, len(ending), _ROWS_AT_ONCE):
            some = ending[start : start + _ROWS_AT_ONCE]
            rows = self._rows(name, f"removed == {_NEVER} and image in {some.tolist()}")
            if len(rows) != len(some):
                raise CollectionCorrupt(f"Milvus collection {name} lacks rows of the live generation: {_REMEDY}")
            by_image = {row["image"]: row["vector"] for row in rows}
            altered = some[np.isin(some, change.altered)]
            new = [
                _row(image, change.number, facts) | {"vector": by_image[image]}
                for image, facts in zip(altered.tolist(), origin.facts(altered), strict=True)
            ]
            self._upsert(name, [*({**row, "removed": change.number} for row in rows), *new])

    def _rows(self, name: str, expression: str) -> list[dict[str, Any]]:
        found = self._write(
            "query",
            name,
            filter=expression,
            output_fields=list(_FIELDS),
            limit=_ROWS_AT_ONCE,
            consistency_level="Strong",
        )
        return [{field: row[field] for field in _FIELDS} for row in found]

    def _upsert(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        if data := list(rows):
            self._write("upsert", name, data=data)

    def _require_count(self, name: str, number: int, expected: int) -> None:
        (found,) = self._write(
            "query", name, filter=_visible(number), output_fields=["count(*)"], consistency_level="Strong"
        )
        if found["count(*)"] != expected:
            raise CollectionCorrupt(
                f"Milvus collection {name} has {found['count(*)']:,} rows of generation {number}, not {expected:,}: "
                f"{_REMEDY}"
            )


@dataclass(frozen=True)
class MilvusIndex:
    """One descriptor's vectors in one generation. Safe to use from several threads.

    Every method raises VectorStoreUnavailable if the server does not answer in time.
    """

    server: MilvusServer
    remote: RemoteEntry
    number: int
    ids: Ids

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.ids)

    @property
    def filterable(self) -> bool:
        """Whether `search` accepts a condition."""
        return self.remote.filterable

    def ping(self) -> None:
        """Raise VectorStoreUnavailable if the server does not answer."""
        self.server.call("has_collection", self.remote.collection)

    def vector(self, identifier: int) -> Vectors:
        """Return the vector [D] (float32) of one id. Raises KeyError if there is none."""
        rows = self._call(
            "query", filter=f"{_visible(self.number)} and image == {identifier}", output_fields=["vector"]
        )
        if not rows:
            raise KeyError(identifier)
        return np.asarray(rows[0]["vector"], dtype=np.float32)

    def search(self, query: Vectors, count: int, only: Only | None = None) -> tuple[Vectors, Ids]:
        """Return the scores [K] (float32) and ids [K] (int64) of the `count` best for a query [D], best first.

        Equal scores are ordered by id. Raises InvalidRequest for more than MOST_RESULTS.
        """
        count = min(count, len(self))
        if count > MOST_RESULTS:
            raise InvalidRequest(
                f"the vector store (Milvus) returns at most {MOST_RESULTS:,} results per search: use a filter instead "
                "of later pages",
                field="page_token",
            )
        expressions = list(self._expressions(only)) if count else []
        return best_with_ties(lambda asked: [self._found(query, asked, each) for each in expressions], count)

    def _expressions(self, only: Only | None) -> Iterable[str]:
        """Yield the filter expression of each search; together they cover all wanted rows."""
        if only is None:
            yield _visible(self.number)
        elif isinstance(only, np.ndarray):
            ids = np.intersect1d(only, self.ids, assume_unique=True)
            for start in range(0, len(ids), IDS_AT_ONCE):
                yield f"{_visible(self.number)} and image in {ids[start : start + IDS_AT_ONCE].tolist()}"
        else:
            yield f"{_visible(self.number)} and ({milvus_expression(only)})"

    def _found(self, query: Vectors, count: int, expression: str) -> tuple[Vectors, Ids]:
        parameters = {"metric_type": "IP", "params": self.server.address.search_parameters(count)}
        (hits,) = self._call(
            "search",
            data=[query],
            anns_field="vector",
            limit=count,
            filter=expression,
            search_params=parameters,
        )
        ids = np.array(hits.ids, dtype=np.int64) // _VERSIONS
        return np.array(hits.distances, dtype=np.float32), ids

    def _call(self, method: str, **arguments: Any) -> Any:
        consistency = self.server.address.consistency
        return self.server.call(method, self.remote.collection, consistency_level=consistency, **arguments)


def _row(image: int, number: int, facts: Facts) -> dict[str, Any]:
    """Return a row without its vector; facts that are too large are omitted."""
    kept = facts if facts.fit else Facts()
    ends = {f"{end}_{key}": value for key, pair in kept.bounds.items() for end, value in zip(_ENDS, pair, strict=True)}
    return {
        "row": image * _VERSIONS + number,
        "image": image,
        "added": number,
        "removed": _NEVER,
        "tokens": list(kept.tokens),
        "bounds": ends,
    }


_ENDS = ("low", "high")


def _visible(number: int) -> str:
    return f"added <= {number} and removed > {number}"
