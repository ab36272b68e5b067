"""`whatwhere copy`."""

import dataclasses
from typing import Annotated

import typer

from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Catalog, Vectors

Place = "A directory, or an object store's folder (s3://BUCKET/NAME)."


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"The collection. {Place}")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help=f"Where it is to be too. {Place}")],
    catalog: Catalog = None,
    vectors: Vectors = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection to another place, or to other stores, and back: the same images, ids and answers.

    Without --catalog and --vectors the copy has its catalogue in SQLite and its vectors in files. Every file, row and
    vector of the copy is compared at the end. The source can be searched meanwhile, not indexed into. Stopped or
    killed, it goes on when it is run again.

    Example: `whatwhere copy ~/pictures.ww s3://bucket/pictures --catalog postgresql+psycopg://me@db/pictures --vectors
    milvus+http://milvus:19530`
    """
    from whatwhere.indexer.collection.stores import Stores
    from whatwhere.indexer.maintenance.transfer import copy_collection

    with stoppable("what was copied is kept: run again to continue"), progress.of_stages(messages, "items") as report:
        done = copy_collection(source, target, Stores(catalog, vectors), report)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    out.print(f"{target}: generation {done.generation}, {done.images} images, {done.shards} shards", soft_wrap=True)
