"""Tables: one row a line, whole, where a program reads; fitted to the terminal's width where a person does."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len, chop_cells
from rich.text import Text

from whatwhere.indexer.storage.readable import escaped
from whatwhere.service.cli.app import out

_GAP = "  "
_CUT = "…"
_LEAST = 20  # columns that a name or a text needs; in a narrower terminal rows are printed whole, and it wraps them
_HEADS = (1 / 3, 1 / 2, 1 / 6, 2 / 3, 0, 5 / 6, 1)  # the share of a cut name that is left of the cut
_NAMES = frozenset({"place", "file"})  # columns that are cut in the middle
_TEXTS = frozenset({"reason", "problem", "repair", "text"})  # columns whose words are wrapped

Cells = Sequence[str]


def print_table(columns: Cells, rows: Iterable[Cells], *, header: bool = True, names: Collection[str] = _NAMES) -> None:
    """Print rows below the names of their columns. A cell may have several lines, of which each is a name.

    Without a terminal nothing is cut or wrapped, and a row of several lines is repeated: each line is complete. On a
    terminal, names that are too long are cut in the middle, unless two would then look the same; `names` are the
    columns that hold them.
    """
    table = [[[escaped(line) for line in cell.split("\n")] for cell in row] for row in rows]
    if not out.is_terminal:
        lines = [line for row in table for line in _repeated(row)]
        _print(_aligned([columns, *lines] if header else lines))
        return
    shown = [at for at, _ in enumerate(columns) if any(any(row[at]) for row in table)]  # people need no empty column
    if shown:
        columns, table = [columns[at] for at in shown], [[row[at] for at in shown] for row in table]
    widths = [max(map(cell_len, _lines(table, at, columns[at] if header else ""))) for at in range(len(columns))]
    fitted = _fitted(columns, widths, out.width, names)
    if fitted is None:
        _print(_GAP.join(line) for line in [columns, *(line for row in table for line in _repeated(row))])
        return
    for at, width in enumerate(fitted):
        if width < widths[at]:
            _fit(table, at, width, is_name=columns[at] in names)
    lines = [line for row in table for line in zip_longest(*row, fillvalue="")]
    _print(_aligned([columns, *lines] if header else lines))


def _repeated(row: Sequence[list[str]]) -> Iterable[Cells]:
    """Yield the lines of a row; a cell of one line is repeated."""
    count = max(map(len, row))
    return zip(*(cell if len(cell) == count else cell * count for cell in row), strict=True)


def _lines(table: Sequence[Sequence[list[str]]], at: int, name: str) -> list[str]:
    return [name] + [line for row in table for line in row[at]]


def _aligned(lines: Sequence[Cells]) -> Iterable[str]:
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        yield _GAP.join(padded).rstrip()


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(line, soft_wrap=True)


def _fitted(columns: Cells, widths: Sequence[int], width: int, names: Collection[str]) -> list[int] | None:
    """Return the widths of columns that fit into `width`, None if it is too narrow. Texts give way before names."""
    fitted = list(widths)
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    flexible = [at for kind in (_TEXTS, names) for at, name in enumerate(columns) if name in kind]
    for least in (2 * _LEAST, _LEAST):
        for at in flexible:
            taken = max(0, min(excess, fitted[at] - least))
            fitted[at] -= taken
            excess -= taken
    return fitted if excess <= 0 else None


def _fit(table: Sequence[list[list[str]]], at: int, width: int, *, is_name: bool) -> None:
    """Cut the names of a column, or wrap its texts, to a width."""
    if is_name:
        cut = cut_names({line for row in table for line in row[at]}, width)
        for row in table:
            row[at] = [part for line in row[at] for part in chop_cells(cut.get(line, line), width) or [""]]
    else:
        for row in table:
            row[at] = [str(part).rstrip() for line in row[at] for part in Text(line).wrap(out, width)]


def cut_names(names: Collection[str], width: int) -> dict[str, str]:
    """Return the names, cut in the middle to a width in columns, by which they can still be told apart.

    Those that would look like another one are left out: they must be shown whole.
    """
    best: dict[str, str] = {}
    for share in _HEADS:
        cut = {name: _cut(name, width, round(share * (width - len(_CUT)))) for name in names}
        counts = Counter(cut.values())
        apart = {name: look for name, look in cut.items() if counts[look] == 1}
        if len(apart) > len(best):
            best = apart
        if len(best) == len(names):
            break
    return best


def _cut(name: str, width: int, head: int) -> str:
    """Cut a name that is wider than `width`, behind `head` columns."""
    if cell_len(name) <= width:
        return name
    start, end = _taken(name, head), _taken(name[::-1], width - len(_CUT) - head)[::-1]
    return f"{start}{_CUT}{end}"


def _taken(text: str, width: int) -> str:
    """Return the start of a text, at most `width` columns."""
    taken = chop_cells(text, width)[0] if width > 0 else ""
    return taken if cell_len(taken) <= width else ""  # the first letter is wider
