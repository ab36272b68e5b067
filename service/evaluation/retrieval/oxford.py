"""Read Oxford5k and Paris6k with their authors' ground truth in text files (Philbin et al. 2007, 2008).

Each query has four files: `louvre_1_query.txt` holds a picture's name and a box in pixels; `_good`, `_ok` and `_junk`
hold the names of pictures. Good and ok are positives, junk is skipped. There are two readings: in `original` the
query's own picture counts as a positive, as in the official evaluator; in `query excluded` it is skipped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import (
    Benchmark,
    BenchmarkQuery,
    Judgment,
    Pictures,
    PixelBox,
    Protocol,
    assemble,
    pixel_box,
)
from whatwhere.service.evaluation.retrieval.sources import checked_folder, find_pictures, named_pictures, read_text

ORIGINAL = "original"
QUERY_EXCLUDED = "query excluded"
_QUERY_SUFFIX = "_query.txt"
_OXFORD_PREFIX = "oxc1_"  # only in Oxford's query files, before the name of the picture

# https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/corrupt.txt lists these: the files hold no picture.
PARIS_CORRUPT = frozenset(
    f"paris_{place}_{number:06d}"
    for place, numbers in {
        "louvre": (136, 146),
        "moulinrouge": (422,),
        "museedorsay": (1059,),
        "notredame": (188,),
        "pantheon": (284, 960, 974),
        "pompidou": (195, 196, 201, 467, 640),
        "sacrecoeur": (299, 330, 353),
        "triomphe": (662, 833, 863, 867),
    }.items()
    for number in numbers
)


@dataclass(frozen=True)
class _City:
    protocol: Protocol
    image_name: re.Pattern[str]  # no official list of all pictures exists, but their names have a pattern


def _city(name: str, image_name: str, image_count: int) -> _City:
    protocol = Protocol(name, (ORIGINAL, QUERY_EXCLUDED), ("mAP",), image_count, 55, instances=True)
    return _City(protocol, re.compile(image_name))


_CITIES = {
    "oxford5k": _city(
        "oxford5k",
        r"(all_souls|ashmolean|balliol|bodleian|christ_church|cornmarket|hertford|jesus|keble|magdalen|new|oriel|oxford"
        r"|pitt_rivers|radcliffe_camera|trinity|worcester)_\d{6}",
        5063,
    ),
    # 6412 files, of which 20 are corrupt
    "paris6k": _city("paris6k", r"paris_[a-z]+_\d{6}", 6392),
}


def read_oxford(name: str, images: Sequence[Path], ground_truth: Path) -> Benchmark:
    """Read oxford5k or paris6k: pictures below `images`, the text files in the folder `ground_truth`.

    Pictures with names of another pattern are searched too, as distractors. Raises BenchmarkUnreadable if files are
    missing or invalid.
    """
    city = _CITIES[name]
    found = {path: within for path, within in find_pictures(images).items() if path.stem not in PARIS_CORRUPT}
    official, distractors = named_pictures(found, lambda stem: bool(city.image_name.fullmatch(stem)))
    checked_folder(ground_truth, "give the folder of the *_query.txt files as ground truth")
    files = sorted(ground_truth.glob("*" + _QUERY_SUFFIX))
    if not files:
        raise BenchmarkUnreadable(f"{ground_truth} has no *{_QUERY_SUFFIX}: give the folder of the {name} text files")
    queries = [_read_query(path, city) for path in files]
    return assemble(city.protocol, Pictures(official | distractors, official, len(distractors)), queries)


def _read_query(path: Path, city: _City) -> BenchmarkQuery:
    name = path.name.removesuffix(_QUERY_SUFFIX)
    image, box = _picture_and_box(path, city)
    good, ok, junk = (_read_names(path.with_name(f"{name}_{kind}.txt"), city) for kind in ("good", "ok", "junk"))
    positives = good | ok
    if both := positives & junk:
        raise BenchmarkUnreadable(f"{path.parent / name}: {min(both)} is both positive and junk; fetch the files again")
    judgments = {
        ORIGINAL: Judgment(positives, junk),
        QUERY_EXCLUDED: Judgment(positives - {image}, junk | {image}),
    }
    return BenchmarkQuery(name, image, name.rpartition("_")[0] or name, box, judgments)


def _picture_and_box(path: Path, city: _City) -> tuple[str, PixelBox]:
    words = read_text(path).split()
    if not words:
        raise BenchmarkUnreadable(f"{path} is empty: expected a picture's name and a box; fetch it again")
    return _checked_name(words[0].removeprefix(_OXFORD_PREFIX), path, city), pixel_box(words[1:], str(path))


def _read_names(path: Path, city: _City) -> frozenset[str]:
    lines = (line.strip() for line in read_text(path).splitlines())
    return frozenset(_checked_name(line, path, city) for line in lines if line)


def _checked_name(name: str, path: Path, city: _City) -> str:
    """Return the name if it has the set's pattern. Else the file is corrupt or belongs to another set."""
    if not city.image_name.fullmatch(name):
        raise BenchmarkUnreadable(
            f"{path}: {name[:80]!r} is not a picture of {city.protocol.name}; fetch the file again, or name another set"
        )
    return name
