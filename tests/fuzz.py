"""Feed mutated input to image and filter readers: `python -m tests.fuzz images|filters --inputs N --seed S`.

images: `images.decode.decode_image` gets small pictures of every supported format, with bits flipped, parts cut,
doubled and exchanged, headers edited and checksums corrected. filters: `metadata.filters.parse` gets sentences of the
filter grammar, valid and broken, and random characters. Every input must be read, or rejected with a named error,
within 2 s; else it is printed, and the exit code is 1. The slowest input is always printed. The same seed gives the
same inputs.
"""

import argparse
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from tests.malformed.pictures import FORMATS, chunk, encoded, encoded_as, picture, replaced
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.filters import And, Comparison, Not, Or, parse
from whatwhere.indexer.metadata.limits import MAX_LENGTH

LONGEST_S = 2.0  # of the processor, for one input
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=1_000_000)  # a larger picture that a header announces takes longer
SHORTER_SIDE = 64

_Input = TypeVar("_Input", bytes, str)


@dataclass
class Findings:
    """Count the outcomes of the inputs."""

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by the error's reason
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: bytes | str = b""

    def __str__(self) -> str:
        """Return a readable summary."""
        refused = ", ".join(f"{count:,} {reason}" for reason, count in self.refused.most_common()) or "none"
        slowest = f"the slowest took {self.slowest_s:.3f} s: {_shown(self.slowest)[:200]}"
        return "\n".join([*self.wrong, f"{self.read:,} read; refused: {refused}; {len(self.wrong)} wrong", slowest])


def fuzz(read: Callable[[_Input], object], inputs: Iterator[_Input]) -> Findings:
    """Read every input and record the outcome."""
    found = Findings()
    for content in inputs:
        started = time.thread_time()
        try:
            read(content)
            found.read += 1
        except WhatwhereError as error:
            found.refused[error.reason] += 1
        except Exception as error:  # the fault that is looked for
            found.wrong.append(f"{type(error).__name__}: {error}: {_shown(content)}")
        took_s = time.thread_time() - started
        if took_s > LONGEST_S:
            found.wrong.append(f"{took_s:.1f} s: {_shown(content)}")
        if took_s > found.slowest_s:
            found.slowest_s, found.slowest = took_s, content
    return found


def _shown(content: bytes | str) -> str:
    return content.hex() if isinstance(content, bytes) else ascii(content)


# --- images -----------------------------------------------------------------------------------------------------


def read_image(content: bytes) -> None:
    """Decode a picture and check the result."""
    pixels = decode_image(content, "x", limits=LIMITS, shorter_side=SHORTER_SIDE).pixels
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[2] == 3, pixels.shape
    assert 32 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 4 * SHORTER_SIDE, pixels.shape


def images(seed: int) -> Iterator[bytes]:
    """Yield mutated pictures without end."""
    chance, whole = random.Random(seed), pictures(np.random.default_rng(seed))
    while True:
        content = mutated(chance, whole)
        yield with_checksums(content) if content.startswith(_PNG) and chance.random() < 0.7 else content


def mutated(chance: random.Random, whole: Sequence[bytes]) -> bytes:
    """Change one of some files, up to four times."""
    content = chance.choice(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(_MUTATIONS)(chance, content, chance.choice(whole))
    return content


def pictures(noise: np.random.Generator) -> list[bytes]:
    """Return small pictures of every supported format and pixel type, some rotated by EXIF, some animated."""
    found = [encoded_as(name, noise)[0] for name in FORMATS for _ in range(2)]
    found += [encoded(picture(noise, mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")]
    found += [encoded(picture(noise, "CMYK"), kind) for kind in ("JPEG", "TIFF")]
    found += [encoded(Image.fromarray(np.asarray(picture(noise, "L")).astype(np.uint16) * 257), "TIFF")]
    found += [encoded(picture(noise, "P"), "GIF", transparency=0), encoded(picture(noise, "P"), "BMP")]
    first, *more = (picture(noise).resize((32, 32)) for _ in range(3))
    found += [encoded(first, kind, save_all=True, append_images=more) for kind in ("GIF", "WEBP", "PNG", "TIFF")]
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    found += [encoded(picture(noise), kind, exif=turned) for kind in ("JPEG", "PNG", "WEBP")]
    return found


_PNG = b"\x89PNG\r\n\x1a\n"
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _flip(chance: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut_off(chance: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _cut_out(chance: random.Random, content: bytes, _: bytes) -> bytes:
    start, end = _span(chance, len(content))
    return content[:start] + content[end:]


def _double(chance: random.Random, content: bytes, _: bytes) -> bytes:
    start, end = _span(chance, len(content))
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def _splice(chance: random.Random, content: bytes, other: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    return content[:place] + other[min(place, len(other)) :]


def _insert(chance: random.Random, content: bytes, other: bytes) -> bytes:
    place, (start, end) = chance.randrange(len(content) + 1), _span(chance, len(other))
    return content[:place] + other[start:end] + content[place:]


def _edit_header(chance: random.Random, content: bytes, _: bytes) -> bytes:
    return _edit(chance, content, min(len(content), 64))


def _edit_anywhere(chance: random.Random, content: bytes, _: bytes) -> bytes:
    return _edit(chance, content, len(content))


def _edit(chance: random.Random, content: bytes, before: int) -> bytes:
    """Overwrite a possible length, size or offset with a number."""
    size = chance.choice((1, 2, 4))
    number = chance.choice((*_EDGES, chance.getrandbits(32))) % 256**size
    edited = replaced(content, chance.randrange(before + 1), number.to_bytes(size, chance.choice(("big", "little"))))
    return edited[: len(content)]


def _zero(chance: random.Random, content: bytes, _: bytes) -> bytes:
    start, end = _span(chance, len(content))
    return content[:start] + chance.choice((b"\0", b"\xff")) * (end - start) + content[end:]


def _span(chance: random.Random, length: int) -> tuple[int, int]:
    start = chance.randrange(length + 1)
    return start, min(length, start + chance.choice((1, 4, 16, 256, length)))


_MUTATIONS = (
    _flip,
    _flip,
    _cut_off,
    _cut_out,
    _double,
    _splice,
    _insert,
    _edit_header,
    _edit_header,
    _edit_anywhere,
    _zero,
)


def with_checksums(content: bytes) -> bytes:
    """Correct the checksums of a PNG as far as its chunks can be parsed, so that faults get past the checksum test."""
    made, position = [_PNG], len(_PNG)
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        if position + 12 + length > len(content):
            break
        made.append(chunk(content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    return b"".join(made) + content[position:]


# --- filters ----------------------------------------------------------------------------------------------------


def read_filter(text: str) -> None:
    """Parse a filter and check the result."""
    expression = parse(text)
    assert isinstance(expression, Comparison | Not | And | Or), expression
    for comparison in _comparisons([expression]):  # which are worked out when they are asked for
        literal = comparison.literal
        assert isinstance(literal.text, str)
        assert literal.number is None or abs(literal.number) < float("inf")
        assert literal.moment is None or literal.moment.tzinfo is not None
        assert literal.boolean in (None, True, False)
        assert comparison.is_presence in (True, False)


def _comparisons(waiting: list[Comparison | Not | And | Or]) -> Iterator[Comparison]:
    while waiting:
        expression = waiting.pop()
        if isinstance(expression, Comparison):
            yield expression
        elif isinstance(expression, Not):
            waiting.append(expression.expression)
        else:
            waiting.extend(expression.parts)


def filters(seed: int) -> Iterator[str]:
    """Yield sentences, valid and broken, without end."""
    chance = random.Random(seed)
    while True:
        text = _sentence(chance, chance.choice((0, 1, 2, 3, 6)))
        kind = chance.random()
        if kind < 0.3:
            yield text
        elif kind < 0.85:
            yield _broken(chance, text)
        elif kind < 0.95:
            yield "".join(chance.choice(_PIECES) for _ in range(chance.choice((1, 5, 40, 1_000))))[: MAX_LENGTH + 1]
        else:
            yield _long(chance, text)


_NAMES = (
    "label",
    "uri",
    "metadata.year",
    "width_px",
    "create_time",
    "tags",
    '"two words"',
    "'it''s'",
    "é",
    "a.'b.c'.d",
)
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", ":")
_VALUES = (
    *(
        "boat",
        "1990",
        "-1",
        "+.5e3",
        "1e999",
        "1e-999",
        "true",
        "false",
        "*",
        "**",
        "bo*",
        "*at",
        "*oa*",
        "é",
        "\U0001f40d",
    ),
    *(
        '"boat"',
        "'boat'",
        '"*"',
        '"a\\"b"',
        '"a\\*"',
        r'"\\*"',
        '""',
        "''",
        '"*.jpg"',
        '"\n"',
        "0x10",
        "1_000",
        "NaN",
        "-inf",
    ),
    *(
        "2024-01-01",
        '"2024-02-31"',
        '"2024-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+23:59"',
        '"9999-12-31T23:59:59-23:59"',
    ),
    *("9" * 400, "٣", '"2024-01-01T24:00:00.123456789+99:99"', "file:///etc/passwd", '"\\', "$(x)", "%s", "';--"),
)
_PIECES = (
    *_NAMES,
    *_OPERATORS,
    *_VALUES,
    *(
        "AND",
        "OR",
        "NOT",
        "AND ",
        " OR ",
        "NOT ",
        "-",
        "(",
        ")",
        "((",
        "))",
        " ",
        "  ",
        "\t",
        "\n",
        ".",
        "..",
        ",",
        "\\",
    ),
    *('"', "'", "\0", "\ud800", "\u2028", "\ufeff", "\u202e", "\x7f", "\x1b", "ﬁ", "İ", "e\u0301", *string.printable),
)


def _sentence(chance: random.Random, depth: int) -> str:
    if depth == 0:
        space = chance.choice(("", " ", "\n"))
        return f"{chance.choice(_NAMES)}{space}{chance.choice(_OPERATORS)}{space}{chance.choice(_VALUES)}"
    parts = [_sentence(chance, chance.randrange(depth)) for _ in range(chance.choice((1, 2, 2, 3)))]
    joined = chance.choice((" AND ", " OR ", " ", "  AND\t")).join(parts)
    return chance.choice(("{}", "({})", "NOT ({})", "-({})", "({}) AND ({})")).replace("{}", joined)


def _broken(chance: random.Random, text: str) -> str:
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(text) + 1)
        end = min(len(text), place + chance.choice((1, 1, 3, 20)))
        piece = chance.choice((*_PIECES, chr(chance.randrange(0x110000)), text[place:end] * chance.choice((2, 9))))
        text = text[:place] + chance.choice((piece, "")) + text[chance.choice((place, end)) :]
    return text[: MAX_LENGTH + 1]


def _long(chance: random.Random, text: str) -> str:
    """Return inputs near the limits of length, depth and terms."""
    around = (("(", ")"), ("NOT (", ")"), ("-(", ")"), ('"', '"'), ("a.", "=1"), ("é", "=1"), ("a=", "b"))
    before = ((f"{text} ", ""), (f"{text} OR ", text), ("a=1 AND ", text), ("- ", text), ("NOT ", text))
    alone = (("\\", ""), ('"\\', ""), ("*", ""), ("9", ""))
    piece, close = chance.choice((*around, *before, *alone))
    times = min(chance.choice((31, 32, 33, 127, 129, 5_000)), (MAX_LENGTH + 1) // len(piece))
    return (piece * times + chance.choice((text, "")) + close * times)[: MAX_LENGTH + chance.randrange(2)]


# --- the command ------------------------------------------------------------------------------------------------


def fuzz_kind(kind: str, inputs: int, seed: int) -> Findings:
    """Fuzz the reader of "images" or of "filters"."""
    if kind == "images":
        return fuzz(read_image, islice(images(seed), inputs))
    return fuzz(read_filter, islice(filters(seed), inputs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz and print the outcome; return 1 if an input failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("images", "filters"))
    parser.add_argument("--inputs", type=int, default=100_000, help="number of inputs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    found = fuzz_kind(options.kind, options.inputs, options.seed)
    print(found)  # noqa: T201 - a command
    return min(len(found.wrong), 1)


if __name__ == "__main__":
    raise SystemExit(main())
