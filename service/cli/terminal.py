"""What every sub-command speaks through: the app, two consoles, the options they share."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="whatwhere",
    help="Content-based image search that answers what matched and where.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# No markup: names of files are printed as they are, brackets and all.
out = Console(markup=False, highlight=False)
messages = Console(markup=False, highlight=False, stderr=True)


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Descriptor(StrEnum):
    """What pictures are compared by."""

    WHAT = "what"
    WHAT_AND_WHERE = "what-and-where"
    FUSED = "fused"
    MAC = "mac"
    R_MAC = "r-mac"
    CROW = "crow"
    GEM = "gem"


class Precision(StrEnum):
    """What the network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Preset(StrEnum):
    """How descriptors are made of factors."""

    DEFAULT = "default"
    THESIS = "thesis"


Collection = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        metavar="DIR|URI",
        help="The collection's directory, or its folder in an object store (s3://BUCKET/NAME).",
        envvar="WHATWHERE_COLLECTION",
    ),
]
Catalog = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Of a new collection: its catalogue in PostgreSQL, postgresql+psycopg://USER@HOST/DATABASE?schema=NAME.",
    ),
]
Vectors = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Of a new collection: its vectors in Milvus, milvus+http://HOST:19530?index=HNSW."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]
Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Image files; folders (searched through all their folders); lists of pictures, told by their names: .txt "
        "and .lst (a path or URI a line), .csv, .jsonl and .parquet (a column `uri` or `path`, the others are "
        "metadata); and URIs of all of these: s3://BUCKET/FOLDER/, gs://..., https://HOST/photo.jpg.",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="A checkpoint of your own (.safetensors or torch) in place of the published one.")
]
CollectionWeights = Annotated[
    Path | None, typer.Option(help="The checkpoint that the collection was made with, where that is your own.")
]
Network = Annotated[str, typer.Option(metavar="NAME[:LAYER]", help="The network (see `whatwhere backbones`).")]
ComputedIn = Annotated[Precision, typer.Option(help="What the network computes in.")]
Rank = Annotated[int, typer.Option(min=1, max=64, help="Factors of each image.")]
Dimensions = Annotated[int, typer.Option(min=1, help="Length of a whitened vector.")]
Filter = Annotated[
    str,
    typer.Option(
        metavar="EXPRESSION", help="Only images that this holds for, such as 'label = \"boat\" AND year > 1990'."
    ),
]
OnDevice = Annotated[Device, typer.Option(help="Where the network runs; auto takes CUDA where there is one.")]


@contextmanager
def stoppable(what_is_kept: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the work with a sentence and the exit code of the signal."""

    def on_terminate(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        messages.print(f"stopped; {what_is_kept}")
        raise SystemExit(128 + signal.SIGINT if isinstance(stop, KeyboardInterrupt) else stop.code) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def new_table(*columns: str) -> Table:
    """Return a table whose cells are never cut: what is shown can be copied."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def names(listed: str) -> tuple[str, ...]:
    """Part a list at its commas."""
    return tuple(name.strip() for name in listed.split(","))


def print_json(value: Any) -> None:
    """Print a value for programs; what JSON has not (times, paths) as text."""
    print(json.dumps(value, indent=2, default=str))
