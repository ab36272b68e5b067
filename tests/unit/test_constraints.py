"""The files of versions agree with what pyproject.toml allows."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.check_docs import ROOT

FOR_OTHERS = {"dev", "gpu"}  # extras of tools, and of what stands in the place of faiss-cpu


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required(*, without: set[str]) -> Iterator[Requirement]:
    """Yield the requirements of the project and of its extras but some."""
    yield from map(Requirement, project()["dependencies"])
    for extra, requirements in project()["optional-dependencies"].items():
        if extra not in without:
            yield from map(Requirement, requirements)


def pinned(name: str) -> dict[str, Version]:
    """Return name and version of a file's lines; each must be one exact version."""
    lines = [Requirement(line) for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    found = {}
    for line in lines:
        (specifier,) = line.specifier
        assert specifier.operator == "==", line
        found[canonicalize_name(line.name)] = Version(specifier.version)
    assert len(found) == len(lines)
    return found


def lowest(requirement: Requirement) -> Version:
    """Return the lower bound of a requirement, which must have one."""
    return min(Version(each.version) for each in requirement.specifier if each.operator in (">=", "=="))


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    """`make lowest` tests exactly what pyproject.toml allows."""
    bounds = {canonicalize_name(each.name): lowest(each) for each in required(without=FOR_OTHERS)}

    assert pinned("constraints-lowest.txt") == bounds


def test_what_development_needs_has_the_same_bounds() -> None:
    """A library that an extra and the tools name has one lower bound."""
    bounds = {canonicalize_name(each.name): lowest(each) for each in required(without=FOR_OTHERS)}
    others = {
        canonicalize_name(each.name): each for each in map(Requirement, project()["optional-dependencies"]["dev"])
    }

    assert {name: lowest(others[name]) for name in others.keys() & bounds} == {
        name: bounds[name] for name in others.keys() & bounds
    }


@pytest.mark.parametrize("requirement", [str(each) for each in required(without={"gpu"})])
def test_the_tested_versions_are_allowed(requirement: str) -> None:
    """Everything that pyproject.toml names has a tested version, which it allows."""
    needed = Requirement(requirement)

    assert needed.specifier.contains(pinned("constraints.txt")[canonicalize_name(needed.name)], prereleases=True)
