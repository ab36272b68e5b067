"""Check that the documents are true without running them: `python -m tests.check_docs`, exit code 1 for a problem.

Command lines are parsed by the program itself; no command runs. Targets of make, modules, extras, files, anchors must
exist. Python must compile and its imports resolve. JSON must parse. A table of a command's options must be complete.
"""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

APP = "whatwhere.service.cli:app"  # the command line, as module:object
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".github", "deploy", "indexer", "migrations", "proto", "service", "tests")
LANGUAGES = {"", "console", "csv", "json", "mermaid", "python"}
# What an image or a shell has set, so that a command need not name it.
ENVIRONMENT = {"WHATWHERE_COLLECTION": "pictures.ww", "WHATWHERE_SERVER": "127.0.0.1:50051"}
# Typer carries a copy of Click, or uses the installed one: the base of its own error is right for both.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

_SEPARATORS = re.compile(r"[;|&()]+")
_REDIRECTIONS = re.compile(r"[<>]+[&]?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_KEYWORDS = {"{", "}", "do", "done", "then", "else", "fi"}
_OPTION = re.compile(r"--[a-z][a-z-]*")
_OWN_PATH = re.compile(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+")
_MADE_BY_READERS = ("deploy/secrets",)  # paths that a document's own commands create
_VARIABLE = re.compile(r"\bWHATWHERE_[A-Z_]*[A-Z]\b")


@dataclass(frozen=True)
class Problem:
    """What is untrue, and where."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        """Return it as compilers write it."""
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.message}"


def main() -> int:
    """Print the problems of all documents; 1 where there are any."""
    problems = [problem for path in documents() for problem in check(path, path.read_text())]
    for problem in problems:
        print(problem)  # noqa: T201 - a command
    print(f"{len(documents())} documents, {len(problems)} problems")  # noqa: T201
    return min(len(problems), 1)


def documents() -> list[Path]:
    """Return the Markdown files of the repository."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))
    return sorted([*ROOT.glob("*.md"), *inside])


def check(path: Path, text: str) -> Iterator[Problem]:
    """Yield the problems of a document that stands, or would stand, at `path`."""
    for token, line in _tokens(text):
        for message in _messages(path, text, token):
            yield Problem(path, line, message)
    for line, table in _tables(text):
        for message in _option_table(table):
            yield Problem(path, line, message)
    for name in sorted(set(_VARIABLE.findall(text)) - _variables()):
        yield Problem(path, 1, f"no program reads the variable {name}")


def _tokens(text: str) -> Iterator[tuple[Token, int]]:
    """Yield all tokens, those inside of lines too, with the number of the line where each block begins."""
    line = 1
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        yield token, line
        for child in token.children or ():
            yield child, line


def _messages(path: Path, text: str, token: Token) -> Iterable[str]:
    if token.type == "fence":
        return _block(token.info.strip(), token.content)
    if token.type in ("link_open", "image"):
        return _link(path, text, str(token.attrs.get("href", token.attrs.get("src", ""))))
    if token.type == "code_inline":
        return _inline(token.content)
    return ()


# --- links --------------------------------------------------------------------------------------------------------


def _link(path: Path, text: str, target: str) -> Iterator[str]:
    if "://" in target:
        return
    name, _, anchor = target.partition("#")
    file = (path.parent / name).resolve() if name else path
    if name and not file.exists():
        yield f"the link {target} leads to no file"
    elif anchor and anchor not in anchors(file.read_text() if name else text):
        yield f"the link {target} leads to no heading"


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    tokens = MarkdownIt("commonmark").parse(text)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    found: set[str] = set()
    for title in titles:
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.add(next(each for each in (anchor, *(f"{anchor}-{n}" for n in range(1, 99))) if each not in found))
    return found


# --- blocks of code -----------------------------------------------------------------------------------------------


def _block(language: str, content: str) -> Iterator[str]:
    if language not in LANGUAGES:
        yield f"a block of {language!r} is not checked: use one of {', '.join(sorted(LANGUAGES))}"
    elif language == "console":
        for command in commands(content):
            yield from _command(command)
    elif language == "json":
        yield from _json(content)
    elif language == "python":
        yield from _python(content)


def _json(content: str) -> Iterator[str]:
    try:
        json.loads(content)
    except ValueError as error:
        yield f"no JSON: {error}"


def _python(content: str) -> Iterator[str]:
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        yield f"no Python: {error}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"no module {alias.name}" for alias in node.names if not _has_module(alias.name))
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            public = getattr(module, "__all__", None) or dir(module)  # the face lists what it imports at first use
            missing = [alias.name for alias in node.names if alias.name not in public]
            yield from (f"{node.module} has no {name}" for name in missing)


# --- commands -----------------------------------------------------------------------------------------------------


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a console block: no output, no redirections, no assignments before."""
    typed: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            typed.append(line[2:])
        elif typed and (typed[-1].endswith("\\") or line.startswith("    ")):
            typed[-1] = typed[-1].removesuffix("\\") + " " + line.strip()
    for line in typed:
        yield from _simple_commands(line)


def _simple_commands(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in lexer:
        if _REDIRECTIONS.fullmatch(word):
            next(lexer, None)
        elif _SEPARATORS.fullmatch(word):
            yield words
            words = []
        elif words or not (word in _KEYWORDS or _ASSIGNMENT.fullmatch(word)):
            words.append(word)
    yield words


def _command(words: Sequence[str]) -> Iterator[str]:
    match words:
        case ["whatwhere" | ".venv/bin/whatwhere", *rest]:
            yield from _whatwhere(rest)
        case ["podman", "run", *rest]:
            image = next((number for number, word in enumerate(rest) if word.startswith("whatwhere:")), len(rest))
            yield from _whatwhere(rest[image + 1 :])
        case ["make", *rest]:
            yield from _make(rest)
        case ["pip" | ".venv/bin/pip", "install", *rest]:
            yield from _extras(rest)
        case ["python" | ".venv/bin/python", "-c", code]:
            yield from _python(code)
        case ["python" | ".venv/bin/python", "-m", module, *rest]:
            yield from _module(module, rest)
    for word in words:
        known = word.startswith(_MADE_BY_READERS) or not _OWN_PATH.fullmatch(word)
        if not known and not (ROOT / word).exists():
            yield f"{shlex.join(words)}: there is no {word}"


def _whatwhere(words: Sequence[str]) -> Iterator[str]:
    error = usage_error(words)
    if error:
        yield f"whatwhere {shlex.join(words)}: {error}"


def usage_error(words: Sequence[str]) -> str | None:
    """Return what the command line would refuse of these words, without running them."""
    command, context, rest = _app(), None, list(words)
    before = os.environ.copy()
    os.environ.update(ENVIRONMENT)
    try:
        while hasattr(command, "get_command"):  # a group
            context = command.context_class(command, info_name="whatwhere", parent=context)
            name, command = rest[0], command.get_command(context, rest[0])
            rest = rest[1:]
            if command is None:
                return f"there is no command {name}"
        command.make_context(name, rest, parent=context)
    except typer.Exit:  # --help
        return None
    except UsageError as error:
        return str(getattr(error, "format_message", error.__str__)())
    finally:
        os.environ.clear()
        os.environ.update(before)
    return None


@cache
def _app() -> Any:
    module, _, name = APP.partition(":")
    return typer.main.get_command(getattr(importlib.import_module(module), name))


def _options(words: Sequence[str]) -> set[str] | None:
    """Return the long options of the command that these words begin with; None where it is none."""
    command = _app()
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word)
    if command is None:
        return None
    shared = {"--help", "--version", "--verbose", "--quiet"}
    return shared.union(*(name for each in command.params for name in (each.opts, each.secondary_opts)))


def _make(words: Sequence[str]) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [word for word in words if "=" not in word and not word.startswith("-")]
    yield from (f"make has no target {name}" for name in asked if name not in targets)


def _extras(words: Sequence[str]) -> Iterator[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if found := re.fullmatch(r"(?:\.|whatwhere)\[([\w,-]+)\]", word):
            yield from (f"there is no extra {name}" for name in found[1].split(",") if name not in extras)


def _module(name: str, words: Sequence[str]) -> Iterator[str]:
    """Check a module of ours that is run: it exists, and its source has the options."""
    if not _has_module(name):
        yield f"there is no module {name}"
    elif name.startswith("tests."):
        path = ROOT / Path(*name.split("."))
        source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        options = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
        yield from (f"{name} has no option {option}" for option in options)


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# --- code in prose, and tables ------------------------------------------------------------------------------------


def _inline(code: str) -> Iterator[str]:
    """Check what prose says in code: it has placeholders, so that only names can be compared."""
    words = code.split()
    match words:
        case ["whatwhere", *rest] if rest and rest[0].isalpha():
            options = _options(rest)
            if options is None:
                yield f"{code}: there is no such command"
            else:
                given = _OPTION.findall(code)
                yield from (f"{code}: there is no option {name}" for name in given if name not in options)
        case ["make", name, *_] if re.fullmatch(r"[a-z-]+", name):
            yield from _make([name])
        case ["python" | ".venv/bin/python", "-m", module, *rest]:
            yield from _module(module, rest)
        case [word] if _OWN_PATH.fullmatch(word) and not word.startswith(_MADE_BY_READERS):
            if not (ROOT / word).exists():
                yield f"there is no {word}"


def _tables(text: str) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield the tables, as rows of cells, with the line where each begins."""
    rows: list[list[str]] = []
    line = 0
    for token, number in _tokens(text):
        match token.type:
            case "table_open":
                rows, line = [], number
            case "tr_open":
                rows.append([])
            case "inline" if rows:
                rows[-1].append(token.content)
            case "table_close":
                yield line, rows
                rows = []


def _option_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Compare a table "option of `COMMAND`" with the command: no option more, none less."""
    heading = re.fullmatch(r"option of `(\w+)`", rows[0][0]) if rows and rows[0] else None
    if heading is None:
        return
    options = (_options([heading[1]]) or set()) - {"--help", "--version", "--verbose", "--quiet"}
    long = {name for name in options if name.startswith("--")}
    named = {name for row in rows[1:] for name in _OPTION.findall(row[0])}
    yield from (f"{heading[1]} has no option {name}" for name in sorted(named - long))
    yield from (f"the table of {heading[1]} lacks {name}" for name in sorted(long - named))


@cache
def _variables() -> frozenset[str]:
    """Return the names of environment variables that programs and tests read."""
    sources = [path for folder in ("indexer", "service", "tests") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in sources for name in _VARIABLE.findall(path.read_text())}
    options = {name.removeprefix("--") for name in _options(["serve"]) or () if name.startswith("--")}
    return frozenset(read | {f"WHATWHERE_SERVE_{name.upper().replace('-', '_')}" for name in options})


if __name__ == "__main__":
    sys.exit(main())
