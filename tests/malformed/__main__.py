"""Write a corpus and list it: `python -m tests.malformed FOLDER --seed S`."""

import argparse
from pathlib import Path

from tests.malformed import corpus, write


def main() -> None:
    """Write a corpus and print the expected outcome of each file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    entries = corpus(arguments.seed)
    write(entries, arguments.folder)
    for entry in entries:
        print(entry.expected.value, entry.reason or "-", ascii(entry.name))  # noqa: T201 - a command


main()
