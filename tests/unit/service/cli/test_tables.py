"""Tables as programs and people read them: nothing that is copied is broken, and names stay apart."""

import io

import pytest
from rich.cells import cell_len

from whatwhere.service.cli import tables
from whatwhere.service.cli.app import out
from whatwhere.service.cli.tables import cut_names, print_table

FOLDER = "/home/me/Pictures/holidays in the mountains of the north"
PLACES = [f"{FOLDER}/photograph of a palace {number:04}.jpg" for number in range(3)]
ROWS = [(f"images/{number}", place, "damaged: the file ends early") for number, place in enumerate(PLACES)]
COLUMNS = ("name", "place", "reason")


def printed(
    monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, ...]], width: int | None, columns: tuple[str, ...] = COLUMNS
) -> list[str]:
    """Return the lines that a terminal of this width gets, None for a pipe."""
    file = io.StringIO()
    monkeypatch.setattr(out, "_file", file)  # `file` would be restored to what it is now
    monkeypatch.setattr(out, "_force_terminal", width is not None)
    monkeypatch.setattr(out, "_color_system", None)
    if width is not None:
        monkeypatch.setattr(out, "_width", width)
    print_table(columns, rows)
    return file.getvalue().splitlines()


def test_a_program_reads_one_whole_row_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long; an image with two places has two lines, of which each is complete."""
    rows = [*ROWS, ("images/9", "/a.jpg\n/b.jpg", "")]

    header, *lines = printed(monkeypatch, rows, None)

    assert header.split() == ["name", "place", "reason"]
    for (name, place, reason), line in zip(ROWS, lines, strict=False):
        assert line.startswith(name)
        assert f"  {place}  {reason}" in line
    assert [line.split() for line in lines[3:]] == [["images/9", "/a.jpg"], ["images/9", "/b.jpg"]]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_gets_names_cut_in_the_middle(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fit, begin as they do, and end with what tells them apart; words of a reason are wrapped, not broken."""
    lines = printed(monkeypatch, ROWS, width)

    assert max(map(cell_len, lines)) <= width
    for number in range(3):
        assert sum(f"{number:04}.jpg" in line for line in lines) == 1
    assert "…" in lines[1]
    assert set(" ".join(lines).split()) >= {"damaged:", "the", "file", "ends", "early"}


def test_a_terminal_that_is_too_narrow_wraps_whole_rows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut, and a copied name is whole."""
    lines = printed(monkeypatch, ROWS, 40)

    assert all(f"  {place}  " in line for place, line in zip(PLACES, lines[1:], strict=True))


def test_names_that_fit_are_whole_and_empty_columns_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; programs get all columns."""
    rows = [("images/1", "/a/b.jpg", "")]

    assert printed(monkeypatch, rows, 80) == ["name      place", "images/1  /a/b.jpg"]
    assert printed(monkeypatch, rows, None) == ["name      place     reason", "images/1  /a/b.jpg"]
    assert printed(monkeypatch, [], None) == ["name  place  reason"]


def test_control_characters_are_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name can hold an escape sequence."""
    assert printed(monkeypatch, [("a", "/\x1b[31m\r.jpg", "")], None)[1] == "a     /\\x1b[31m\\r.jpg"


def test_what_tells_names_apart_is_never_cut() -> None:
    """Wherever it stands: at the start, in the middle, at the end; in wide letters, too."""
    filler = "x" * 50
    for names in (
        [f"{number}{filler}" for number in range(9)],
        [f"{filler}{number}" for number in range(9)],
        [f"{filler[:10]}{number}{filler}" for number in range(9)],
        [f"写真{filler}{number}写真" for number in range(9)],
    ):
        cut = cut_names(names, 24)

        assert len(set(cut.values())) == len(cut) == 9
        assert all(cell_len(look) <= 24 for look in cut.values())


def test_names_that_would_look_alike_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs is in the middle of both halves: no cut keeps all of them apart."""
    alike = [f"{'a' * 30}{number}{'b' * 30}{number}{'c' * 30}" for number in range(10, 16)]
    assert cut_names(alike, 20) == {}

    lines = printed(monkeypatch, [(name,) for name in alike], 30, ("place",))

    assert "".join(lines[1:]) == "".join(alike)


def test_a_cut_is_found_for_thousands_of_names_at_once() -> None:
    """In well under a second."""
    names = [f"{FOLDER}/{number:06}.jpg" for number in range(20_000)]

    assert len(set(cut_names(names, 30).values())) == 20_000
    assert tables._LEAST == 20
