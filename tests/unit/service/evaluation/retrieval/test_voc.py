"""PASCAL VOC 2010: annotations to queries by a rule, and XML that is torn or would swell."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.annotations import Annotation, VocObject, read_annotation
from whatwhere.service.evaluation.retrieval.benchmark import Judgment, PixelBox
from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
from whatwhere.service.evaluation.retrieval.voc import QUERIES_PER_CLASS, READING, main_box, merged_objects

WHOLE_COW = ("cow", (1, 1, 50, 40))  # a fifth of the picture

# smallest first of `printf cow/2008_000 | sha256sum` and so on
CHOSEN = ["2008_003", "2008_000", "2008_004", "2008_005", "2008_001"]


def cow(*box: float, truncated: bool = False, difficult: bool = False) -> VocObject:
    return VocObject("cow", PixelBox(*box), truncated, difficult)


def annotation(*objects: VocObject) -> Annotation:
    return Annotation(100, 100, objects)


def object_xml(kind: str, box: Iterable[float], truncated: object = 0, difficult: object = 0) -> str:
    sides = "".join(f"<{n}>{side}</{n}>" for n, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    flags = f"<truncated>{truncated}</truncated><difficult>{difficult}</difficult>"
    return f"<object><name>{kind}</name>{flags}<bndbox>{sides}</bndbox></object>"


def xml(*objects: str) -> str:
    return f"<annotation><size><width>100</width><height>100</height></size>{''.join(objects)}</annotation>"


def voc(root: Path, pictures: dict[str, str], listed: Iterable[str] | None = None) -> Path:
    """Write VOC's folder: annotations, files called like pictures, the list of trainval."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name, content in pictures.items():
        (root / "Annotations" / f"{name}.xml").write_text(content)
        (root / "JPEGImages" / f"{name}.jpg").touch()
    if listed is not None:
        (root / "ImageSets/Main/trainval.txt").write_text("".join(f"{name}\n" for name in listed))
    return root


@pytest.fixture
def cows(tmp_path: Path) -> Path:
    """Give seven pictures of whole cows, one of a difficult cow, one of a small cow, one of a dog."""
    pictures = {f"2008_00{number}": xml(object_xml(*WHOLE_COW)) for number in range(7)}
    pictures["difficult"] = xml(object_xml(*WHOLE_COW, difficult=1))
    pictures["small"] = xml(object_xml("cow", (1, 1, 20, 20)))
    pictures["dog"] = xml(object_xml("dog", (1, 1, 50, 40)))
    return voc(tmp_path / "VOC2010", pictures)


def test_five_queries_of_a_class_are_asked(cows: Path) -> None:
    """Chosen by the hash of class and name: these five, on every machine."""
    benchmark = load_benchmark("voc2010", [cows])

    assert [query.name for query in benchmark.queries] == [f"cow_{number}" for number in range(1, 6)]
    assert [query.image for query in benchmark.queries] == CHOSEN
    assert {(query.group, query.box) for query in benchmark.queries} == {("cow", PixelBox(0, 0, 50, 40))}
    assert benchmark.metrics == ("AP@30", "mAP")


def test_the_choice_of_the_others_stays_when_a_picture_is_missing(cows: Path) -> None:
    """Only the missing one is replaced, by the next."""
    (cows / "JPEGImages" / f"{CHOSEN[1]}.jpg").unlink()

    images = [query.image for query in load_benchmark("voc2010", [cows]).queries]

    assert images[:4] == [CHOSEN[0], *CHOSEN[2:]]
    assert images[4] not in CHOSEN


def test_positives_are_the_pictures_with_an_object_that_is_not_difficult(cows: Path) -> None:
    """Small ones too; difficult ones and the query's own are junk, and dogs are neither."""
    query = load_benchmark("voc2010", [cows]).queries[0]

    others = {f"2008_00{number}" for number in range(7)} - {query.image}
    assert query.judgments[READING] == Judgment(frozenset(others | {"small"}), frozenset({query.image, "difficult"}))


def test_a_picture_with_a_difficult_and_another_object_is_a_positive(cows: Path) -> None:
    """One that counts is enough."""
    both = xml(object_xml("cow", (1, 1, 5, 5)), object_xml("cow", (60, 60, 90, 90), difficult=1))
    (cows / "Annotations/small.xml").write_text(both)

    query = load_benchmark("voc2010", [cows]).queries[0]

    assert "small" in query.judgments[READING].positives


def test_classes_without_five_queries_are_said(cows: Path) -> None:
    """The dog has no other dog to find, and nineteen classes no picture."""
    coverage = load_benchmark("voc2010", [cows]).coverage

    assert coverage.sentence.startswith("5 of 100 queries over 10 of 10103 images: a subset")
    reasons = {left.query: left.reason for left in coverage.left_out}
    assert len(reasons) == 100 - 5
    assert reasons["dog_1"] == "none of its positives was found"
    assert reasons["sheep_5"] == "no other picture shows a whole sheep of suitable size"


def test_only_what_trainval_lists_is_searched(tmp_path: Path) -> None:
    """VOC's archive holds more pictures than the task."""
    names = ("a", "b", "c")
    root = voc(tmp_path / "VOC2010", dict.fromkeys(names, xml(object_xml(*WHOLE_COW))), listed=["a", "b", "absent"])

    assert set(load_benchmark("voc2010", [root]).images) == {"a", "b"}


@pytest.mark.parametrize(
    ("images", "truth"), [("", None), ("", ""), ("JPEGImages", "Annotations"), ("JPEGImages", ""), ("JPEGImages", None)]
)
def test_vocs_folder_or_its_parts_can_be_given(cows: Path, images: str, truth: str | None) -> None:
    """All lead to the same ten pictures."""
    benchmark = load_benchmark("voc2010", [cows / images], None if truth is None else cows / truth)

    assert len(benchmark.images) == 10


def test_boxes_that_overlap_are_one_object() -> None:
    """Also through a third one; boxes that only touch are two."""
    chain = [cow(0, 0, 10, 10), cow(18, 18, 30, 30), cow(8, 8, 20, 20)]

    (merged,) = merged_objects(chain)

    assert merged.box == (0, 0, 30, 30)
    assert len(merged_objects([cow(0, 0, 10, 10), cow(10, 0, 20, 10)])) == 2


def test_the_main_object_is_the_largest_after_merging() -> None:
    """Two overlapping halves together outweigh a larger single one."""
    shown = annotation(cow(0, 0, 30, 40), cow(20, 0, 50, 40), cow(60, 50, 100, 90))

    assert main_box(shown, "cow") == (0, 0, 50, 40)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "none of the class"),
        ([cow(0, 0, 50, 40, difficult=True)], "difficult"),
        ([cow(0, 0, 50, 40, truncated=True)], "truncated"),
        ([cow(0, 0, 50, 40), cow(40, 0, 60, 40, truncated=True)], "merged with a truncated one"),
        ([cow(0, 0, 22, 22)], "too small"),
        ([cow(0, 0, 96, 96)], "as good as the whole picture"),
        ([cow(0, 0, 50, 40, truncated=True), cow(60, 60, 90, 90)], "the main one truncated, a smaller one whole"),
    ],
)
def test_there_is_no_box_to_ask_with_where_the_main_object_does_not_fit(objects: list[VocObject], reason: str) -> None:
    """Each for its reason."""
    assert main_box(annotation(*objects), "cow") is None, reason


def test_vocs_boxes_count_pixels_from_one(tmp_path: Path) -> None:
    """First and last pixel, both inside: 1 to 100 is the whole width. Missing flags are 0."""
    path = tmp_path / "one.xml"
    bare = object_xml("cow", (1, 51, 100, 100.5)).replace("<truncated>0</truncated>", "")
    path.write_text(xml(bare, object_xml("dog", (2, 2, 2, 2), 1, 1)))

    found = read_annotation(path)

    assert found.objects == (cow(0, 50, 100, 100.5), VocObject("dog", PixelBox(1, 1, 2, 2), True, True))


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not an XML annotation"),
        ("<annotation><size>", "is not an XML annotation"),
        (BOMB + xml("&c;"), "document type declaration"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + xml(), "document type declaration"),
        ('<?xml version="1.0" encoding="none-such"?>' + xml(), "is not an XML annotation"),
        ("<annotation/>", "<annotation> has no <size/width>"),
        (xml().replace("100", "wide"), "'wide', not a whole number"),
        (xml().replace("100", "0"), "0 x 0 pixels"),
        (xml(object_xml("", (1, 1, 5, 5))), "<object> has no <name>"),
        (xml("<object><name>cow</name></object>"), "<object> has no <bndbox/xmin>"),
        (xml(object_xml("cow", (5, 1, 1, 5))), "has no area"),
        (xml(object_xml("cow", (1, 1, float("nan"), 5))), "has no area"),
        (xml(object_xml("cow", (1, 1, 5, 5)).replace("5", "five")), "not four numbers"),
        (xml(object_xml("cow", (1, 1, 102, 5))), "exceeds the picture of 100 x 100"),
        (xml(object_xml("cow", (1, 1, 5, 5), truncated=2)), "<truncated> is '2', not 0 or 1"),
        (xml(object_xml("unicorn", (1, 1, 5, 5))), "'unicorn' is not a VOC class"),
    ],
)
def test_a_torn_annotation_is_an_error_that_names_the_file(cows: Path, content: str, says: str) -> None:
    """What is wrong, and where."""
    (cows / "Annotations/small.xml").write_text(content)

    with pytest.raises(BenchmarkUnreadable, match=f"small.xml.*{says}"):
        load_benchmark("voc2010", [cows])


def test_a_folder_without_annotations_is_an_error(tmp_path: Path) -> None:
    """With the remedy."""
    (tmp_path / "1.jpg").touch()

    with pytest.raises(BenchmarkUnreadable, match=r"no \*.xml in .* give VOC's folder"):
        load_benchmark("voc2010", [tmp_path])


@given(at=st.integers(0, 300), wrong=st.binary(max_size=6), cut=st.integers(0, 400))
def test_torn_xml_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, at: int, wrong: bytes, cut: int
) -> None:
    """Cut off, or with other bytes in the middle: never a traceback from below."""
    path = tmp_path_factory.mktemp("torn") / "one.xml"
    whole = xml(object_xml(*WHOLE_COW)).encode()
    path.write_bytes((whole[:at] + wrong + whole[at + len(wrong) :])[: cut or None])

    try:
        found: object = read_annotation(path)
    except BenchmarkUnreadable as error:
        found = error

    assert isinstance(found, Annotation | BenchmarkUnreadable)


def test_the_coco_subset_asks_for_what_it_shows(data: Path) -> None:
    """97 pictures; 33 queries of 14 classes, their boxes inside the share that the rule sets."""
    root = data / "coco128-voc/VOCdevkit/VOC2010"

    benchmark = load_benchmark("voc2010", [root])

    assert (len(benchmark.images), len(benchmark.queries)) == (97, 33)
    assert all(query.judgments[READING].positives for query in benchmark.queries)
    for query in benchmark.queries:
        shown = read_annotation(root / "Annotations" / f"{query.image}.xml")
        assert query.box is not None
        assert 0.05 <= query.box.area / (shown.width * shown.height) <= 0.9
        assert sum(other.group == query.group for other in benchmark.queries) <= QUERIES_PER_CLASS
