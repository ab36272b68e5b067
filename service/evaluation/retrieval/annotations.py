"""Read PASCAL VOC's annotations: one XML file per picture, with the objects and their boxes."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import PixelBox, pixel_box
from whatwhere.service.evaluation.retrieval.sources import read_bytes


@dataclass(frozen=True)
class VocObject:
    """Hold one object. If `truncated`, the picture shows only a part of it; if `difficult`, VOC does not count it."""

    kind: str
    box: PixelBox
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """Hold the objects of one picture of `width` x `height` pixels."""

    width: int
    height: int
    objects: tuple[VocObject, ...]


def read_annotation(path: Path) -> Annotation:
    """Read an annotation. Raises BenchmarkUnreadable if it is corrupt, lacks a field or declares entities."""
    root = _parse(path)
    width, height = (_number(root, f"size/{side}", path) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise BenchmarkUnreadable(f"{path}: the size is {width} x {height} pixels; fetch the file again")
    objects = tuple(_read_object(element, path) for element in root.findall("object"))
    for each in objects:
        if each.box.x_max > width + 1 or each.box.y_max > height + 1:
            raise BenchmarkUnreadable(f"{path}: the box {list(each.box)} exceeds the picture of {width} x {height}")
    return Annotation(width, height, objects)


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Reject the declaration before it declares entities: these can expand to gigabytes."""
        raise ValueError("a document type declaration")


def _parse(path: Path) -> ElementTree.Element:
    try:
        # Without document types there are no entities, internal or external.
        parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314
        parser.feed(read_bytes(path))
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise BenchmarkUnreadable(f"{path} is not an XML annotation ({error}); fetch it again") from error
    return root


def _read_object(element: ElementTree.Element, path: Path) -> VocObject:
    sides = [_text(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")]
    return VocObject(
        _text(element, "name", path),
        _from_one_based(sides, path),
        truncated=_flag(element, "truncated", path),
        difficult=_flag(element, "difficult", path),
    )


def _from_one_based(sides: list[str], path: Path) -> PixelBox:
    """Return the edges of a box. VOC gives the first and the last pixel, counted from 1."""
    try:
        x_min, y_min, x_max, y_max = map(float, sides)
    except ValueError:
        return pixel_box(sides, str(path))  # raises the error
    return pixel_box((max(x_min - 1, 0), max(y_min - 1, 0), x_max, y_max), str(path))


def _text(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise BenchmarkUnreadable(f"{path}: <{element.tag}> has no <{tag}>; fetch the file again")
    return text


def _number(element: ElementTree.Element, tag: str, path: Path) -> int:
    text = _text(element, tag, path)
    if not text.isdecimal() or len(text) > 9:
        raise BenchmarkUnreadable(f"{path}: <{tag}> is {text[:80]!r}, not a whole number; fetch the file again")
    return int(text)


def _flag(element: ElementTree.Element, tag: str, path: Path) -> bool:
    text = (element.findtext(tag) or "0").strip()  # some years leave flags out
    if text not in ("0", "1"):
        raise BenchmarkUnreadable(f"{path}: <{tag}> is {text[:80]!r}, not 0 or 1; fetch the file again")
    return text == "1"
