"""Read pickles of lists, dictionaries and NumPy arrays without running the functions that they name.

A pickle is a program: loading it calls the functions it names. Here the few names that plain arrays need are replaced
by harmless stand-ins that keep the numbers, and every other name is rejected. NumPy's own loading code never runs.
"""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.sources import read_bytes

_PLAIN_TYPE = re.compile(r"([biuf][1248]|[US]\d{1,6})")


def read_plain_pickle(path: Path) -> object:
    """Read a pickle of Python 2 or 3: one-dimensional arrays as lists, their scalars as numbers.

    Raises BenchmarkUnreadable if the file is not a pickle, is corrupt, or names anything else than arrays. No code of
    the file runs.
    """
    content = read_bytes(path)
    try:
        # latin1 keeps the bytes of Python 2's strings: names and the data of arrays
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _ForeignName as error:
        raise BenchmarkUnreadable(
            f"{path} names {error}, which lists of numbers do not need; no code ran, fetch the file from its authors"
        ) from error
    except Exception as error:  # corrupt bytes raise anything: EOFError, KeyError, MemoryError, UnicodeDecodeError, ...
        raise BenchmarkUnreadable(f"{path} is not a pickle of lists and arrays; fetch it again") from error


class _ForeignName(Exception):
    """Report a rejected name from the unpickler to read_plain_pickle."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a new stand-in for a name: a pickle may set attributes on it."""
        try:
            return _StandIn(_STAND_INS[module.replace("numpy._core", "numpy.core"), name])
        except KeyError:
            raise _ForeignName(f"{module}.{name}"[:120]) from None


class _StandIn:
    """Call one of the functions below, which themselves would be shared between pickles."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


class _PlainType:
    """Stand in for the type of an array's entries: its kind and size, then its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self._code = code
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def entries(self, memory: object) -> list[Any]:
        """Return the entries in `memory`. Raises ValueError if the type is not plain."""
        if not isinstance(self._code, str) or not _PLAIN_TYPE.fullmatch(self._code) or self._order not in tuple("<>=|"):
            raise ValueError(f"entries of type {self._code!r}")
        values: list[Any] = np.frombuffer(_as_bytes(memory), np.dtype(self._order + self._code)).tolist()
        return values


class _PlainArray(list[object]):
    """Stand in for an array: a list that gets its entries after it is created, as in NumPy's protocol."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        _, shape, entry_type, _, memory = state
        # An array of objects is pickled as a list.
        self[:] = memory if isinstance(memory, list) else entry_type.entries(memory)
        if shape != (len(self),):
            raise ValueError(f"an array of shape {shape!r}")


def _array_in_band(memory: object, entry_type: Any, *_: object) -> object:
    """Return an array that pickle protocol 5 wrote."""
    return entry_type.entries(memory)


def _scalar(entry_type: Any, memory: object) -> Any:
    (value,) = entry_type.entries(memory)
    return value


def _encoded(text: Any, encoding: object) -> bytes:
    """Return bytes as Python 2 and 3 exchange them; other codecs are rejected."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return _as_bytes(text)


def _no_bytes() -> bytes:
    """Return empty bytes, which Python 2's protocols call for; an argument could allocate any amount of memory."""
    return b""


def _as_bytes(memory: Any) -> bytes:
    return memory.encode("latin1") if isinstance(memory, str) else bytes(memoryview(memory))


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _PlainArray,
    ("numpy", "dtype"): _PlainType,
    ("numpy.core.multiarray", "_reconstruct"): _PlainArray,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_in_band,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
}
