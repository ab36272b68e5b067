"""Metadata of images: stored by source and origin, merged by image, and in rows of `properties` for filters."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.records import ORIGINS
from whatwhere.indexer.catalog.rows import AT_ONCE, rows_of
from whatwhere.indexer.catalog.tables import ImageRow, PropertyRow, SourceRow, same_json
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.filters import moment_of
from whatwhere.indexer.metadata.values import LARGEST_EXACT, is_64_bit
from whatwhere.indexer.storage.readable import composed

_PROPERTIES = PropertyRow.metadata.tables[PropertyRow.__tablename__]
BOOL, NUMBER, TIME, STRING, MEMBER = "bool", "number", "time", "string", "member"


class MetadataValue(NamedTuple):
    """One metadata value of an image: a row of `properties` without its ids (see `PropertyRow`)."""

    name: str
    kind: str
    text_value: str | None = None
    number_value: float | None = None
    integer_value: int | None = None


class MetadataTable(Database):
    """The metadata of sources."""

    def set_metadata(self, origin: str, values: Mapping[str, Mapping[str, object] | None]) -> int:
        """Set the metadata from one origin ("file", "sidecar", "exif") by URI; return the number of changed sources.

        None or an empty mapping deletes it. Unknown URIs are skipped, equal values write nothing, other origins stay.
        Raises InvalidRequest if values are not JSON or a number exceeds the range of float64.
        """
        wanted = {uri: checked_origins({origin: said}) for uri, said in values.items()}
        changed: list[SourceRow] = []
        with self._writing() as session:
            for source in rows_of(session, SourceRow, SourceRow.uri, wanted):
                origins = with_origins(source.origins, wanted[source.uri])
                if not same_json(origins, source.origins):
                    source.origins = origins
                    changed.append(source)
            images = list(rows_of(session, ImageRow, ImageRow.id, {source.image_id for source in changed}))
            refresh(session, images)
        return len(changed)


def checked_origins(origins: Mapping[str, Mapping[str, object] | None]) -> dict[str, dict[str, Any]]:
    """Return metadata by origin as plain JSON values.

    Raises InvalidRequest if an origin is unknown or values are not JSON.
    """
    unknown = set(origins) - set(ORIGINS)
    if unknown:
        raise InvalidRequest(f"{sorted(unknown)[0]!r} is not an origin of metadata: use {', '.join(ORIGINS)}")
    try:
        plain = {name: _plain(said or {}) for name, said in origins.items()}
        for said in plain.values():
            list(properties_of(said))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"metadata cannot be stored ({error}): use JSON with 64-bit numbers") from error
    return plain


def _plain(values: Mapping[str, object]) -> dict[str, Any]:
    text = json.dumps(dict(values), allow_nan=False, ensure_ascii=False)
    text.encode()  # ValueError: half a surrogate pair, which no database accepts
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("a text contains NUL, which PostgreSQL does not accept")
    plain: dict[str, Any] = json.loads(text)
    return plain


def with_origins(origins: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source's metadata by origin after changes, without empty origins."""
    merged = {**origins, **changes}
    return {name: said for name, said in merged.items() if said}


def united(sources: Iterable[Any]) -> dict[str, Any]:
    """Merge the metadata of sources (rows with `id` and `origins`); lower ids, then earlier ORIGINS have precedence."""
    union: dict[str, Any] = {}
    for source in sorted(sources, key=lambda row: row.id):
        for origin in ORIGINS:
            union = {**source.origins.get(origin, {}), **union}
    return union


def refresh(session: Session, images: Iterable[ImageRow]) -> None:
    """Update the merged metadata of images, and their rows of `properties`, if it changed."""
    session.flush()
    changed = []
    for image in images:
        union = united(image.sources)
        if not same_json(union, image.user_metadata):
            image.user_metadata = union
            changed.append(image)
    write_properties(session, changed)


def write_properties(session: Session, images: Iterable[ImageRow]) -> None:
    """Replace the rows of `properties` of these images."""
    by_id = {image.id: image.user_metadata for image in images}
    if not by_id:
        return
    session.flush()
    for some in batched(by_id, AT_ONCE):
        session.execute(delete(PropertyRow).where(PropertyRow.image_id.in_(some)))
    rows = [{"image_id": id_, **found._asdict()} for id_, said in by_id.items() for found in properties_of(said)]
    if rows:
        # Into the table, not the class: the ORM starts a new statement for each pattern of null columns.
        session.connection().execute(insert(_PROPERTIES), rows)


def properties_of(metadata: Mapping[str, Any]) -> Iterator[MetadataValue]:
    """Yield the distinct values of an image's metadata, names and texts in one normalization form (NFC).

    Raises OverflowError if a number exceeds the range of float64.
    """
    return iter(dict.fromkeys(_flattened("", metadata)))


def _flattened(name: str, value: object) -> Iterator[MetadataValue]:
    if isinstance(value, Mapping):
        for member, inner in value.items():
            if name:
                yield MetadataValue(name, MEMBER, composed(member))
            yield from _flattened(f"{name}.{composed(member)}" if name else composed(member), inner)
    elif isinstance(value, list):
        for element in value:
            yield from _flattened(name, element)
    elif value is not None:
        yield _property(name, value)


def _property(name: str, value: object) -> MetadataValue:
    if isinstance(value, bool):
        return MetadataValue(name, BOOL, None, float(value))
    if isinstance(value, int | float):
        long = isinstance(value, int) and abs(value) > LARGEST_EXACT and is_64_bit(value)
        return MetadataValue(name, NUMBER, None, float(value), int(value) if long else None)
    text = composed(str(value))
    moment = moment_of(text)
    return MetadataValue(name, STRING, text) if moment is None else MetadataValue(name, TIME, text, moment.timestamp())
