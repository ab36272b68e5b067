"""The language of filters: what a text means, what is refused, and that nothing else can happen."""

import random
from datetime import UTC, datetime

import pytest

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import (
    MAX_DEPTH,
    MAX_TERMS,
    And,
    Comparison,
    Expression,
    Literal,
    Not,
    Or,
    parse,
)
from whatwhere.indexer.metadata.limits import MAX_LENGTH


def word(field: str, value: str = "1", operator: str = "=") -> Comparison:
    """Return a comparison with a bare word."""
    return Comparison(field, operator, Literal(value))


A, B, C, D = map(word, "abcd")


# --- the structure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", A),
        ("(a = 1)", A),
        ("((a = 1))", A),
        ("a = 1 AND b = 1 AND c = 1", And((A, B, C))),
        ("a = 1 b = 1 c = 1", And((A, B, C))),
        ("a = 1 OR b = 1 OR c = 1", Or((A, B, C))),
        ("a = 1 AND b = 1 OR c = 1", And((A, Or((B, C))))),
        ("a = 1 OR b = 1 AND c = 1", And((Or((A, B)), C))),
        ("(a = 1 AND b = 1) OR c = 1", Or((And((A, B)), C))),
        ("a = 1 b = 1 AND c = 1 OR d = 1", And((And((A, B)), Or((C, D))))),
        ("NOT a = 1", Not(A)),
        ("-a = 1", Not(A)),
        ("- a = 1", Not(A)),
        ("-(a = 1 OR b = 1)", Not(Or((A, B)))),
        ("NOT a = 1 OR b = 1", Or((Not(A), B))),
        ("NOT (NOT a = 1)", Not(Not(A))),
        ("  a\t=\n1  ", A),
        ("a=1", A),
    ],
)
def test_or_binds_tighter_than_and(text: str, expected: Expression) -> None:
    """NOT binds first, then OR, then what stands side by side, then AND, as AIP-160 has it."""
    assert parse(text) == expected


@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">=", ":"])
@pytest.mark.parametrize("space", ["", " "])
def test_every_comparator_is_read(operator: str, space: str) -> None:
    """Comparators need no spaces around them."""
    assert parse(f"year{space}{operator}{space}1990") == word("year", "1990", operator)


@pytest.mark.parametrize("field", ["ANDROID", "ORDER", "NOTES", "and", "or", "not"])
def test_a_name_may_begin_with_a_keyword(field: str) -> None:
    """Only whole words in capitals are keywords."""
    assert parse(f"{field} = 1 AND {field} = 1") == And((word(field), word(field)))


# --- names and values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("width_px", "width_px"),
        ("metadata.camera.make", "metadata.camera.make"),
        ("straße-2", "straße-2"),
        ('"camera make"', "camera make"),
        ("metadata.'camera make'.x", "metadata.camera make.x"),
        (r'"say \"so\""', 'say "so"'),
        ('"AND"', "AND"),
        ("f.1", "f.1"),
    ],
)
def test_a_name_is_words_parted_by_dots(written: str, field: str) -> None:
    """Quotes hold what a word cannot."""
    assert parse(f"{written} = 1") == word(field)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("boat", Literal("boat")),
        ("2024-01-01", Literal("2024-01-01")),
        ("-5", Literal("-5")),
        ("a/b.jpg", Literal("a/b.jpg")),
        ('"two words"', Literal("two words", quoted=True)),
        ("'it is \"so\"'", Literal('it is "so"', quoted=True)),
        (r'"back\\slash and \"quote\""', Literal('back\\slash and "quote"', quoted=True)),
        ('""', Literal("", quoted=True)),
        ('"AND"', Literal("AND", quoted=True)),
        ("boat*", Literal("boat", open_end=True)),
        ("*boat", Literal("boat", open_start=True)),
        ('"*bo*at*"', Literal("bo*at", quoted=True, open_start=True, open_end=True)),
        (r'"\*boat\*"', Literal("*boat*", quoted=True)),
        (r'"boat\\*"', Literal("boat\\", quoted=True, open_end=True)),
        (r'"boat\\\*"', Literal("boat\\*", quoted=True)),
        ('"*"', Literal("", quoted=True, open_start=True)),
        ('"**"', Literal("", quoted=True, open_start=True, open_end=True)),
    ],
)
def test_a_value_is_a_word_or_quoted(written: str, expected: Literal) -> None:
    """Backslashes take a character as it is; a star at an end stands for anything, unless it is escaped."""
    comparison = parse(f"label = {written}")

    assert comparison == Comparison("label", "=", expected)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("5", 5.0),
        ("-5", -5.0),
        ("+5", 5.0),
        ("9007199254740993", 2**53 + 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", float(2**63)),
        ("2.50", 2.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ('"5"', None),
        ("5*", None),
        ("1_000", None),
        ("0x10", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("٥", None),
    ],
)
def test_a_bare_number_is_one(written: str, number: float | None) -> None:
    """What is quoted, open, or beyond a double is text."""
    comparison = parse(f"year = {written}")

    assert isinstance(comparison, Comparison)
    assert comparison.literal.number == number


@pytest.mark.parametrize(
    ("written", "boolean"), [("true", True), ("false", False), ('"true"', None), ("True", None), ("true*", None)]
)
def test_true_and_false_are_bare_words(written: str, boolean: bool | None) -> None:
    """In quotes they are text."""
    comparison = parse(f"draft = {written}")

    assert isinstance(comparison, Comparison)
    assert comparison.literal.boolean is boolean


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ('"2024-05-01"', datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ('"2024-05-01T12:30:00Z"', datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ('"2024-05-01t12:30:00z"', datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ('"2024-05-01T12:30:00+05:30"', datetime(2024, 5, 1, 7, tzinfo=UTC)),
        ('"2024-05-01T12:30:00.25"', datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)),
        ('"2024-05-01 12:30"', datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ('"9999-12-31T23:59:59.999999999Z"', datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ('"2024-02-31"', None),
        ('"0001-01-01T00:00:00+14:00"', None),
        ('"2024-05"', None),
        ('"20240501"', None),
        ('"2024-W18-3"', None),
        ('"2024-05-01*"', None),
    ],
)
def test_a_timestamp_or_a_date_is_a_moment(written: str, moment: datetime | None) -> None:
    """Without a zone it is in UTC, a date is its midnight; days that there are not are text."""
    comparison = parse(f"taken_time = {written}")

    assert isinstance(comparison, Comparison)
    assert comparison.literal.moment == moment


@pytest.mark.parametrize(
    ("text", "expected"), [("a:*", True), ('a:"*"', True), ("a:x*", False), ("a = *", False), (r'a:"\*"', False)]
)
def test_a_lone_star_after_a_colon_asks_for_presence(text: str, expected: bool) -> None:
    """Only the comparator `:` asks whether a name is there at all."""
    comparison = parse(text)

    assert isinstance(comparison, Comparison)
    assert comparison.is_presence is expected


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at the end"),
        ("   ", "at the end"),
        ("boat", r"at the end: a field name must be followed by one of = != < <= > >= :"),
        ('"boat"', r"at the end: a field name must be followed by"),
        ("a = 1 boat", r"a field name must be followed by"),
        ("area(a) = 1", r"at '\(a\) = 1', character 5: a field name must be followed by"),
        ("a =", "at the end"),
        ("a == 1", r"at '= 1', character 4: '==' is written =;"),
        ("a = 1 and b = 2", r"at 'b = 2', character 11: 'and' is written AND;"),
        ("a = 1 And b = 2", "'And' is written AND;"),
        ("a = 1 or (b = 2)", "'or' is written OR;"),
        ("not a = 1", "'not' is written NOT;"),
        ('a in ("b", "c")', r"""'in' is written field = "a" OR field = "b";"""),
        ("a = 1 && b = 2", "'&&' is written AND;"),
        ("a <> 1", "'<>' is written !=;"),
        ("island sea", "'sea', character 8: a field name must be followed by"),
        ("a.in b", "'b', character 6: a field name must be followed by"),
        ("= 1", "at '= 1', character 1"),
        ("a = 1 OR", "at the end: join comparisons"),
        ("AND a = 1", "character 1"),
        ("a = 1 OR AND b = 1", "character 10"),
        ("NOT NOT a = 1", "character 5"),
        ("(a = 1", "at the end"),
        ("a = 1)", r"at '\)', character 6"),
        ("()", r"at '\)', character 2"),
        ("a = (b OR c)", r"character 5"),
        ("a = 1, b = 1", "at ', b = 1', character 6"),
        ('a = "boat', r"""at '"boat', character 5: a quoted string must be closed"""),
        ("a = 'boat\"", "a quoted string must be closed"),
        (r'a = "boat\"', "a quoted string must be closed"),
        ("a. = 1", "character 2"),
        (".a = 1", "character 1"),
        ("*a = 1", "character 1"),
        ("AND = 1", "character 1"),
        ("a = AND", "character 5"),
        ("a = \0", "NUL character or a lone surrogate"),
        ("a = '\ud800'", "NUL character or a lone surrogate"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(text: str, message: str) -> None:
    """The error names the place, the rule and an example, and the field at fault."""
    with pytest.raises(InvalidFilter, match=message) as raised:
        parse(text)

    assert raised.value.field == "filter"
    assert raised.value.reason == "INVALID_FILTER"


@pytest.mark.parametrize(
    ("within", "beyond", "message"),
    [
        ("a" * (MAX_LENGTH - 2) + "=1", "a" * (MAX_LENGTH - 1) + "=1", r"4,097 characters: the limit is 4,096"),
        (
            "(" * MAX_DEPTH + "a=1" + ")" * MAX_DEPTH,
            "(" * (MAX_DEPTH + 1) + "a=1" + ")" * (MAX_DEPTH + 1),
            "parentheses more than 32 deep",
        ),
        (" ".join(["a=1"] * MAX_TERMS), " ".join(["a=1"] * (MAX_TERMS + 1)), "129 comparisons: the limit is 128"),
    ],
    ids=["length", "depth", "terms"],
)
def test_filters_have_limits(within: str, beyond: str, message: str) -> None:
    """What reaches a limit is read, what passes it is refused."""
    parse(within)

    with pytest.raises(InvalidFilter, match=message):
        parse(beyond)


def test_quoted_parentheses_are_not_counted() -> None:
    """Depth is that of the expression."""
    value = "(" * 100

    assert parse(f'a = "{value}"') == Comparison("a", "=", Literal(value, quoted=True))


@pytest.mark.parametrize("piece", ["(", "NOT ", "-", '"', "'", "\\", "a=1 OR ", "a.", "*", '"\\', "(a=1 OR ", ")"])
def test_any_piece_repeated_to_the_limit_is_read_or_refused(piece: str) -> None:
    """However long a piece is repeated, nothing recurses or takes long."""
    with pytest.raises(InvalidFilter):
        parse(piece * (MAX_LENGTH // len(piece)))


PIECES = (
    *("a", "label", "metadata.x.y", "uri", "width_px", "create_time", "é", "😀", "ANDROID", "_", "5", "-5", "1e999"),
    *("=", "!=", "<", "<=", ">", ">=", ":", "(", ")", "AND", "OR", "NOT", "-", "*", ",", ".", "\\", "()", "f("),
    *('"', "'", '"boat"', "'x'", '"*oat"', '"2024-01-01"', '"a\\', "\ud800", "\0", "\n", " ", "  ", "a = 1", "b:*"),
)


def test_no_text_raises_anything_but_the_named_error() -> None:
    """Ten thousand texts, of pieces of the language and of any characters, are read or refused by name."""
    generator = random.Random(160)
    read = refused = 0

    for number in range(10_000):
        if number % 5 == 0:
            text = "".join(chr(generator.randrange(0x110000)) for _ in range(generator.randrange(40)))
        else:
            text = generator.choice(("", " ")).join(generator.choices(PIECES, k=generator.randrange(1, 12)))
        try:
            assert isinstance(parse(text), Comparison | Not | And | Or)
            read += 1
        except InvalidFilter:
            refused += 1

    assert read > 100
    assert refused > 1000
