"""The options that sub-commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class DescriptorName(StrEnum):
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


def names(listed: str) -> tuple[str, ...]:
    """Part a list at its commas."""
    return tuple(name.strip() for name in listed.split(","))
