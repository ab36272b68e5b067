"""Read the fields of a Google Takeout sidecar that are kept: a stated list, and the position only on request."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_takeout(values: Mapping[str, object]) -> bool:
    """Tell whether a JSON object is a sidecar of Google Takeout: it has the time of the photograph in its form."""
    return isinstance(values.get("photoTakenTime"), Mapping)


def takeout_values(values: Mapping[str, object], *, gps: bool) -> dict[str, object]:
    """Return `title`, `description`, `taken_time` (UTC), `people` (names) and `favorite` of those that are there.

    With `gps` also `latitude` and `longitude` in degrees. 0, 0 is what Takeout writes without a position.
    """
    found: dict[str, object] = {name: text for name in ("title", "description") if (text := _text(values.get(name)))}
    taken = _time(values.get("photoTakenTime"))
    if taken is not None:
        found["taken_time"] = taken
    people = values.get("people")
    named = [person.get("name") for person in people if isinstance(person, Mapping)] if isinstance(people, list) else []
    if kept := [text for name in named if (text := _text(name))]:
        found["people"] = kept
    if values.get("favorited") is True:
        found["favorite"] = True
    return found | (_position(values) if gps else {})


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _time(value: object) -> str | None:
    """Return an RFC 3339 timestamp in UTC, None if there is none or it is out of range."""
    seconds = value.get("timestamp") if isinstance(value, Mapping) else None
    if isinstance(seconds, bool) or not isinstance(seconds, str | int):
        return None
    try:
        return (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return None


def _position(values: Mapping[str, object]) -> dict[str, object]:
    """Return the position that people see in Google Photos, else that of the camera."""
    for name in ("geoData", "geoDataExif"):
        place = values.get(name)
        if isinstance(place, Mapping):
            latitude, longitude = _degrees(place.get("latitude"), 90), _degrees(place.get("longitude"), 180)
            if latitude is not None and longitude is not None and (latitude, longitude) != (0, 0):
                return {"latitude": latitude, "longitude": longitude}
    return {}


def _degrees(value: object, limit: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(float(value), 7) if abs(value) <= limit else None
