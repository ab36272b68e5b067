"""The contract of the catalog's mixins, which its docstring states."""

import inspect
import re
from collections import Counter

import pytest

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import Database

MIXINS = Catalog.__bases__
OFFERED_TO_ALL = {"_asking", "_reading", "_writing", "_outside_transaction", "_backend"}


@pytest.mark.parametrize("mixin", MIXINS, ids=[mixin.__name__ for mixin in MIXINS])
def test_a_mixin_uses_the_database_and_itself_alone(mixin: type) -> None:
    """A method that calls one of another mixin would tie the topics together."""
    used = set(re.findall(r"self\.(\w+)", inspect.getsource(mixin)))

    assert mixin.__bases__ == (Database,)
    assert used <= OFFERED_TO_ALL | set(vars(mixin))


def test_every_method_is_of_one_mixin() -> None:
    """Which mixin wins would depend on the order of the bases."""
    offered = Counter(name for mixin in MIXINS for name in vars(mixin) if not name.startswith("__"))

    assert {name: count for name, count in offered.items() if count > 1} == {}


def test_the_docstring_names_every_mixin() -> None:
    """It is the table of contents."""
    assert set(re.findall(r"- `(\w+)`:", inspect.getdoc(Catalog) or "")) == {mixin.__name__ for mixin in MIXINS}
