"""Semantic retrieval on PASCAL VOC 2010: a box on one object asks for all pictures with an object of its class.

Searched are the annotated pictures of the detection task, `ImageSets/Main/trainval.txt`: nothing is trained on them
here, so the larger set is the harder one. Positives of a query are the pictures with an object of its class that is not
difficult; pictures with difficult ones only, and the query's own, are junk.

The choice of queries is ours, VOC has none. A class's query in a picture is its main object: the objects of the class
that are not difficult, overlapping boxes merged into the box around them, the largest of these. Asked is one that is
whole (nothing merged into it is truncated) and covers 5 to 90 % of the picture: less is a handful of a network's cells,
more says no more than the whole picture does. Of these the five come first whose `class/picture` has the smallest
SHA-256: unlike an even choice from the list it mixes the years that names begin with, and does not change elsewhere
when one picture is missing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.annotations import Annotation, VocObject, read_annotation
from whatwhere.service.evaluation.retrieval.benchmark import (
    Benchmark,
    BenchmarkQuery,
    Judgement,
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

    Without ground truth it is that of the first image folder. Searched are the pictures in the list of trainval, all
    where there is no list, that have an annotation. Raises BenchmarkUnreadable.
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
    """Return the box of a class's main object, None where there is none to ask with (the rule above)."""
    merged = merged_objects([each for each in annotation.objects if each.kind == kind and not each.difficult])
    if not merged:
        return None
    main = max(merged, key=lambda each: (each.box.area, each.box))
    share = main.box.area / (annotation.width * annotation.height)
    return main.box if not main.truncated and MIN_SHARE <= share <= MAX_SHARE else None


def merged_objects(objects: Sequence[VocObject]) -> list[VocObject]:
    """Merge objects whose boxes overlap until none do; a merged one is truncated when one of its parts is."""
    apart: list[VocObject] = []
    for each in objects:
        merged = each
        # The grown box may reach others, so look again after each merge.
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
            {READING: Judgement(frozenset(positives - {name}), frozenset(junk | {name}))},
        )
        for number, name in enumerate(chosen, start=1)
    ]


def _missing(queries: Sequence[BenchmarkQuery]) -> list[LeftOut]:
    names = {query.name for query in queries}
    numbered = [(kind, f"{kind}_{number}") for kind in CLASSES for number in range(1, QUERIES_PER_CLASS + 1)]
    reason = "no further picture shows a whole {} of fitting size"
    return [LeftOut(name, None, reason.format(kind)) for kind, name in numbered if name not in names]


def _annotation_folder(folder: Path) -> Path:
    """Return the Annotations of VOC's folder, of its JPEGImages, or the folder itself when it holds them."""
    checked_folder(folder, "give VOC's folder, which holds Annotations and JPEGImages")
    candidates = (folder / "Annotations", folder, folder.parent / "Annotations")
    for candidate in candidates:
        if next(candidate.glob("*.xml"), None):
            return candidate
    raise BenchmarkUnreadable(f"no *.xml in {folder} or its Annotations: give VOC's folder as ground truth")


def _listed(path: Path) -> set[str]:
    """Return the names in the list of trainval; none where there is no list."""
    return set(read_text(path).split()) if path.is_file() else set()


def _checked(annotation: Annotation, path: Path) -> Annotation:
    for each in annotation.objects:
        if each.kind not in CLASSES:
            raise BenchmarkUnreadable(f"{path}: {each.kind!r} is none of VOC's classes: {', '.join(CLASSES)}")
    return annotation


def _overlap(one: PixelBox, other: PixelBox) -> bool:
    return max(one.x_min, other.x_min) < min(one.x_max, other.x_max) and (
        max(one.y_min, other.y_min) < min(one.y_max, other.y_max)
    )


def _around(one: VocObject, other: VocObject) -> VocObject:
    low = (min(sides) for sides in zip(one.box[:2], other.box[:2], strict=True))
    high = (max(sides) for sides in zip(one.box[2:], other.box[2:], strict=True))
    return VocObject(one.kind, PixelBox(*low, *high), one.truncated or other.truncated, difficult=False)
