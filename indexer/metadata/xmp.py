"""Read the fields of an XMP sidecar that are kept.

The parser is expat, which Python has. A document type declaration is refused: without one there are no entities, so
that nothing can be expanded or fetched. defusedxml, which does the same, has had no release since 2021.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.filters import moment_of

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# In order of trust: of the exposure, of the photograph by hand, of the file.
_TAKEN = (f"{_EXIF}DateTimeOriginal", f"{_PHOTOSHOP}DateCreated", f"{_XMP}CreateDate")
_COORDINATE = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?([NSEW])", re.ASCII)
_MAX_DEPTH = 100


def xmp_values(content: bytes, name: str, *, gps: bool) -> dict[str, object]:
    """Return `title`, `description`, `keywords`, `rating` and `taken_time` of those that are there.

    With `gps` also `latitude` and `longitude` in degrees. Raises InvalidRequest, its message prefixed with `name`, if
    the bytes are not XML or declare a document type.
    """
    properties = _Properties(_parsed(content, name))
    found: dict[str, object] = {}
    for field in ("title", "description"):
        if text := properties.text(f"{_DC}{field}"):
            found[field] = text
    if keywords := properties.texts(f"{_DC}subject"):
        found["keywords"] = list(dict.fromkeys(keywords))
    rating = properties.text(f"{_XMP}Rating")
    if re.fullmatch(r"-1|[0-5](\.0+)?", rating):
        found["rating"] = int(float(rating))
    taken = next((text for tag in _TAKEN if moment_of(text := properties.text(tag)) is not None), None)
    if taken is not None:
        found["taken_time"] = taken
    return found | (_position(properties) if gps else {})


def _parsed(content: bytes, name: str) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def refuse(*_: object) -> None:
        raise InvalidRequest(f"{name}: an XMP file must not declare a document type", field="metadata")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise InvalidRequest(f"{name}: elements are nested more than {_MAX_DEPTH} deep", field="metadata")
        builder.start(_tag(tag), {_tag(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_tag(tag))

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise InvalidRequest(f"{name}: not XMP ({error})", field="metadata") from error
    return builder.close()


def _tag(name: str) -> str:
    return "{" + name if "}" in name else name


class _Properties:
    """The properties of an XMP document: attributes or elements of rdf:Description."""

    def __init__(self, root: Element) -> None:
        self._descriptions = list(root.iter(f"{_RDF}Description"))

    def text(self, tag: str) -> str:
        """Return the first value, in the default language if there are several; "" without one."""
        return next(iter(self.texts(tag)), "")

    def texts(self, tag: str) -> list[str]:
        """Return all values of a property."""
        return [text for value in self._values(tag) if (text := value.strip())]

    def _values(self, tag: str) -> Iterator[str]:
        for description in self._descriptions:
            if tag in description.attrib:
                yield description.attrib[tag]
            for element in description.findall(tag):
                items = list(element.iter(f"{_RDF}li"))
                items.sort(key=lambda item: item.get(_LANG) not in (None, "x-default"))
                yield from [item.text or "" for item in items] or [element.text or ""]


def _position(properties: _Properties) -> dict[str, object]:
    latitude = _degrees(properties.text(f"{_EXIF}GPSLatitude"), "NS", 90)
    longitude = _degrees(properties.text(f"{_EXIF}GPSLongitude"), "EW", 180)
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        return {}
    return {"latitude": latitude, "longitude": longitude}


def _degrees(text: str, hemispheres: str, limit: float) -> float | None:
    """Convert "51,30.5N" or "51,30,30N" to signed degrees; return None for other text or if out of range."""
    match = _COORDINATE.fullmatch(text)
    if match is None or match[4] not in hemispheres:
        return None
    degrees = int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
    if degrees > limit:
        return None
    return round(-degrees if match[4] == hemispheres[1] else degrees, 7)
