"""Read PASCAL VOC 2010 for semantic retrieval: a box on an object searches for pictures with objects of its class.

The searched pictures are the annotated ones of the detection task, `ImageSets/Main/trainval.txt`. Nothing is trained on
them here, so the larger set is the harder one. A query's positives are the pictures with an object of its class that is
not difficult. Junk is the query's own picture, and pictures with difficult objects of the class only.

VOC defines no queries; the choice is ours. In each picture, the objects of a class that are not difficult are taken,
overlapping boxes are merged into their bounding box, and the largest is the class's main object. It can be a query if
it is whole (no merged part is truncated) and covers 5 to 90 % of the picture: a smaller one covers only a few of the
network's cells, a larger one is the same as the whole picture. Each class has the five queries with the smallest
SHA-256 of `class/picture`. Unlike an even choice from the list, this mixes the years that start the names, and a
missing picture changes no other choice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.annotations import Annotation, VocObject, read_annotation
from whatwhere.service.evaluation.retrieval.benchmark import (
    Benchmark,
    BenchmarkQuery,
    Judgment,
    LeftOut,
    Pictures,
    PixelBox,
    Protocol,
    assemble,
)
from whatwhere.service.evaluation.retrieval.sources import checked_folder, find_pictures, named_pictures, read_text

READING = "same class"
QUERIES_PER_CLASS = 5
MIN_SHARE, MAX_SHARE = 0.05, 0.9
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_PROTOCOL = Protocol("voc2010", (READING,), ("AP@30", "mAP"), 10103, QUERIES_PER_CLASS * len(CLASSES))
_LIST = "ImageSets/Main/trainval.txt"


def read_voc(images: Sequence[Path], ground_truth: Path | None) -> Benchmark:
    """Read voc2010: `images` and `ground_truth` are VOC's folder, or its JPEGImages and its Annotations.

    Without `ground_truth`, the annotations of the first image folder are read. The pictures that are in the trainval
    list, or all if there is no list, and have an annotation are searched. Raises BenchmarkUnreadable if files are
    missing or invalid.
    """
    annotations = _annotation_folder(ground_truth or images[0])
    listed = _listed(annotations.parent / _LIST) or {path.stem for path in annotations.glob("*.xml")}
    folders = [folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder for folder in images]
    found, _ = named_pictures(find_pictures(folders), listed.__contains__)
    files = {name: annotations / f"{name}.xml" for name in sorted(found)}
    shown = {name: _checked(read_annotation(path), path) for name, path in files.items() if path.is_file()}
    pictures = {name: found[name] for name in shown}
    queries = [query for kind in CLASSES for query in _queries(kind, shown)]
    return assemble(_PROTOCOL, Pictures(pictures, pictures), queries, _missing(queries))


def main_box(annotation: Annotation, kind: str) -> PixelBox | None:
    """Return the box of a class's main object, None if it cannot be a query (the rule above)."""
    merged = merged_objects([each for each in annotation.objects if each.kind == kind and not each.difficult])
    if not merged:
        return None
    main = max(merged, key=lambda each: (each.box.area, each.box))
    share = main.box.area / (annotation.width * annotation.height)
    return main.box if not main.truncated and MIN_SHARE <= share <= MAX_SHARE else None


def merged_objects(objects: Sequence[VocObject]) -> list[VocObject]:
    """Merge objects whose boxes overlap until none do; a merged one is truncated if one of its parts is."""
    apart: list[VocObject] = []
    for each in objects:
        merged = each
        # The merged box may overlap others, so search again after each merge.
        while other := next((one for one in apart if _overlap(one.box, merged.box)), None):
            apart.remove(other)
            merged = _around(merged, other)
        apart.append(merged)
    return apart


def _queries(kind: str, shown: Mapping[str, Annotation]) -> list[BenchmarkQuery]:
    """Return the queries of a class, up to five."""
    boxes = {name: box for name, annotation in shown.items() if (box := main_box(annotation, kind))}
    chosen = sorted(boxes, key=lambda name: hashlib.sha256(f"{kind}/{name}".encode()).digest())[:QUERIES_PER_CLASS]
    having = {name: [each.difficult for each in shown[name].objects if each.kind == kind] for name in shown}
    positives = {name for name, difficult in having.items() if not all(difficult)}
    junk = {name for name, difficult in having.items() if difficult and all(difficult)}
    return [
        BenchmarkQuery(
            f"{kind}_{number}",
            name,
            kind,
            boxes[name],
            {READING: Judgment(frozenset(positives - {name}), frozenset(junk | {name}))},
        )
        for number, name in enumerate(chosen, start=1)
    ]


def _missing(queries: Sequence[BenchmarkQuery]) -> list[LeftOut]:
    names = {query.name for query in queries}
    numbered = [(kind, f"{kind}_{number}") for kind in CLASSES for number in range(1, QUERIES_PER_CLASS + 1)]
    reason = "no other picture shows a whole {} of suitable size"
    return [LeftOut(name, None, reason.format(kind)) for kind, name in numbered if name not in names]


def _annotation_folder(folder: Path) -> Path:
    """Return the annotation folder, given VOC's folder, its JPEGImages, or the annotation folder itself."""
    checked_folder(folder, "give VOC's folder with Annotations and JPEGImages")
    candidates = (folder / "Annotations", folder, folder.parent / "Annotations")
    for candidate in candidates:
        if next(candidate.glob("*.xml"), None):
            return candidate
    raise BenchmarkUnreadable(f"no *.xml in {folder} or its Annotations: give VOC's folder as ground truth")


def _listed(path: Path) -> set[str]:
    """Return the names in the trainval list; empty if there is no list."""
    return set(read_text(path).split()) if path.is_file() else set()


def _checked(annotation: Annotation, path: Path) -> Annotation:
    for each in annotation.objects:
        if each.kind not in CLASSES:
            raise BenchmarkUnreadable(f"{path}: {each.kind!r} is not a VOC class: {', '.join(CLASSES)}")
    return annotation


def _overlap(one: PixelBox, other: PixelBox) -> bool:
    return max(one.x_min, other.x_min) < min(one.x_max, other.x_max) and (
        max(one.y_min, other.y_min) < min(one.y_max, other.y_max)
    )


def _around(one: VocObject, other: VocObject) -> VocObject:
    low = (min(sides) for sides in zip(one.box[:2], other.box[:2], strict=True))
    high = (max(sides) for sides in zip(one.box[2:], other.box[2:], strict=True))
    return VocObject(one.kind, PixelBox(*low, *high), one.truncated or other.truncated, difficult=False)
