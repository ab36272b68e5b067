"""Print what pyproject.toml requires, with the extras of the one argument (`cpu,tracing`): for a layer of an image."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = [requirement for name in sys.argv[1].split(",") for requirement in project["optional-dependencies"][name]]
print("\n".join(project["dependencies"] + extras))  # noqa: T201 - into a file
