"""What the documents say is true: commands, links, examples; and the check of it finds what is not."""

import pytest

from tests.check_docs import ROOT, anchors, check, commands, documents


def test_the_documents_are_true() -> None:
    """Every command parses, every link leads somewhere, every example compiles."""
    problems = [str(problem) for path in documents() for problem in check(path, path.read_text())]

    assert problems == []


def test_the_manual_is_among_the_documents() -> None:
    """The check reads every page of the manual."""
    names = {str(path.relative_to(ROOT)) for path in documents()}

    assert names >= {"README.md", "indexer/README.md", "service/README.md", "deploy/README.md", "tests/README.md"}


def test_the_readme_is_short() -> None:
    """Newcomers read it whole."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```console\n$ whatwhere serch a.jpg\n```", "there is no command serch"),
        ("```console\n$ whatwhere search a.jpg --regoin 1,2,3,4\n```", "--regoin"),
        ("```console\n$ whatwhere index pictures \\\n    --rank many\n```", "many"),
        ("```console\n$ cd here && whatwhere search a.jpg --top 1000 | less\n```", "1000"),
        ("```console\n$ A=1 whatwhere token create > file\n```", "name"),
        ("```console\n$ podman run whatwhere:1 serve --insecure\n```", "--insecure"),
        ("```console\n$ make tset\n```", "make has no target tset"),
        ("```console\n$ pip install '.[cpu,abacus]'\n```", "no extra abacus"),
        ("```console\n$ .venv/bin/python -m tests.fuz images\n```", "no module tests.fuz"),
        ("```console\n$ .venv/bin/python -m tests.fuzz images --speed 3\n```", "no option --speed"),
        ("```console\n$ python -c 'import nowhere'\n```", "no module nowhere"),
        ("```console\n$ podman build --file deploy/Kontainerfile .\n```", "no deploy/Kontainerfile"),
        ("```python\nfrom whatwhere import Klient\n```", "whatwhere has no Klient"),
        ("```python\nfor:\n```", "no Python"),
        ('```json\n{"a": 1,}\n```', "no JSON"),
        ("```sh\nls\n```", "'sh' is not checked"),
        ("[there](nowhere.md)", "nowhere.md leads to no file"),
        ("[there](LICENSE#chapter)", "leads to no heading"),
        ("# Here\n\n[there](#elsewhere)", "#elsewhere leads to no heading"),
        ("![picture](.readme/none.jpg)", "leads to no file"),
        ("`whatwhere serve --whisper`", "no option --whisper"),
        ("`whatwhere sing`", "no such command"),
        ("`tests/unit/test_none.py`", "there is no tests/unit/test_none.py"),
        (f"`{'WHATWHERE'}_NONE`", "no program reads the variable"),  # in two: this file is among those read
        ("| option of `health` | |\n|---|---|\n| `--loud` | |", "health has no option --loud"),
        ("| option of `info` | |\n|---|---|\n| `--json` | |", "the table of info lacks --collection"),
    ],
)
def test_what_is_untrue_is_found(text: str, problem: str) -> None:
    """Each kind of mistake is named."""
    found = [str(each) for each in check(ROOT / "README.md", text)]

    assert any(problem in each for each in found), found


def test_commands_are_told_from_their_output() -> None:
    """Only what follows a prompt is a command, over continued lines, without comments, pipes and assignments."""
    block = "$ A=1 one --two \\\n    three    # why\noutput\n$ four 'x y' | five > file; six &\n"
    block += "$ for a in b; do\n    seven; done\n"

    found = [words for words in commands(block) if words]

    assert found == [["one", "--two", "three"], ["four", "x y"], ["five"], ["six"], ["for", "a", "in", "b"], ["seven"]]


def test_anchors_are_those_of_github() -> None:
    """Lower case, dashes for spaces, no punctuation, a number for the second of a name."""
    text = "# The page\n## Options of `index`\n## `PAGE_TOKEN_EXPIRED`: why?\n## The page\n"

    assert anchors(text) == {"the-page", "options-of-index", "page_token_expired-why", "the-page-1"}
