"""The identity of a collection: what belongs to another one is refused before a row is written, or read."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.cataloguing import raw
from tests.made_up import RECIPE, append, fill, publish_with
from tests.postgres import PostgresServer
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.sealed import seal_of
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionMismatch, CollectionReplaced
from whatwhere.indexer.maintenance.adopt import adopt
from whatwhere.indexer.maintenance.repair import repair
from whatwhere.indexer.maintenance.transfer import copy_collection
from whatwhere.indexer.maintenance.verify import verify_collection

FORGOTTEN = ("DELETE FROM owner",)


def id_of(root: Path) -> str:
    return Identity.of(Layout.at(root)).id


def fill_with(root: Path, url: str, *seeds: int) -> None:
    """Index into a collection with its catalog in PostgreSQL."""
    with open_for_writing(root, RECIPE, Stores(url)) as writer:
        append(writer, *seeds)
        publish_with(writer)


def uris(url: Path | str) -> list[object]:
    return [uri for (uri,) in raw(url, "SELECT uri FROM sources ORDER BY uri")]


def without_identity(root: Path) -> None:
    """Take from a collection what a version before format 3 did not write, but for the headers of its shards."""
    path = Layout(root).recipe
    values = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("identity", "sha256")}
    values["format_version"] = 2
    path.write_text(json.dumps(values | {"sha256": seal_of(values)}))
    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    number = manifest.number
    path = Layout(root).generation(number) / "manifest.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("identity", "sha256")}
    values["format_version"] = 2
    seal = seal_of(values)
    path.write_text(json.dumps(values | {"sha256": seal}))
    Layout(root).current.write_text(f"{number:06d} {seal}\n")


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """Give the address of an empty catalog in PostgreSQL."""
    return postgres.url(postgres.database())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a collection of three images in its own files."""
    fill(tmp_path / "c.ww", [1, 2, 3])
    return tmp_path / "c.ww"


def test_a_collection_carries_its_id_everywhere(root: Path, tmp_path: Path) -> None:
    """In collection.json, the catalog, the manifest and the shards; another one has another."""
    layout = Layout(root)
    manifest = Manifest.live(layout)
    with safe_open(layout.shards / "00000001.safetensors", framework="numpy") as shard:
        of_shard = shard.metadata()["collection"]
    fill(tmp_path / "other.ww", [1])

    assert re.fullmatch("[0-9a-f]{32}", id_of(root))
    assert manifest is not None
    assert {manifest.identity.id, of_shard, raw(layout.catalog, "SELECT collection_id FROM owner")[0][0]} == {
        id_of(root)
    }
    assert id_of(tmp_path / "other.ww") != id_of(root)


@pytest.mark.parametrize("former", [(), FORGOTTEN], ids=["today", "of an older version"])
def test_a_second_collection_in_one_schema_is_refused(tmp_path: Path, database: str, former: tuple[str, ...]) -> None:
    """Before a row is written or a folder made; the message says how each gets its own."""
    fill_with(tmp_path / "a.ww", database, 1, 2)
    for statement in former:
        raw(database, statement)
    before = uris(database)

    with pytest.raises(CollectionMismatch, match=r"another collection than .*b\.ww: .*--catalog …\?schema=NAME"):
        fill_with(tmp_path / "b.ww", database, 7)

    assert uris(database) == before
    assert not (tmp_path / "b.ww").exists()


def test_a_catalog_of_another_collection_is_neither_read_nor_written_nor_repaired(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """Where stores.json names the wrong schema, also with files that an older version wrote."""
    first, second = (postgres.url(postgres.database()) for _ in range(2))
    a, b = tmp_path / "a.ww", tmp_path / "b.ww"
    fill_with(a, first, 1, 2)
    fill_with(b, second, 7, 8, 9)
    Stores(first).save(Layout(b))
    before = uris(first)

    def refuse() -> None:
        for opening in (lambda: open_collection(b), lambda: verify_collection(b), lambda: fill_with(b, first, 5)):
            with pytest.raises(CollectionMismatch, match=r"a\.ww"):
                opening()

    refuse()
    without_identity(b)
    refuse()

    assert uris(first) == before == ["file:///1.jpg", "file:///2.jpg"]


def test_a_copied_directory_does_not_write_to_the_stores_of_the_original(tmp_path: Path, database: str) -> None:
    """The message names `whatwhere copy`; the original goes on, and so does a directory that was renamed."""
    a, b, renamed = tmp_path / "a.ww", tmp_path / "b.ww", tmp_path / "renamed.ww"
    fill_with(a, database, 1, 2)
    shutil.copytree(a, b)

    with pytest.raises(CollectionMismatch, match=r"b\.ww is a copy of .*a\.ww, .*`whatwhere copy .*a\.ww .*b\.ww`"):
        fill_with(b, database, 7)
    fill_with(a, database, 3)
    a.rename(renamed)
    fill_with(renamed, database, 4)
    with pytest.raises(CollectionMismatch, match=r"b\.ww is a copy of .*renamed\.ww"):
        fill_with(b, database, 7)

    assert len(uris(database)) == 4


def test_a_directory_that_was_moved_to_another_disk_goes_on(tmp_path: Path, database: str) -> None:
    """Nothing is where it was; its inodes are others."""
    fill_with(tmp_path / "a.ww", database, 1)
    shutil.copytree(tmp_path / "a.ww", tmp_path / "b.ww")
    shutil.rmtree(tmp_path / "a.ww")

    fill_with(tmp_path / "b.ww", database, 2)

    assert len(uris(database)) == 2


def test_a_directory_from_another_machine_is_adopted_once(tmp_path: Path, database: str) -> None:
    """Nobody can see from here whether the other one still writes: a person says so."""
    root = tmp_path / "a.ww"
    fill_with(root, database, 1)
    raw(database, "UPDATE owner SET home = '/srv/a.ww on elsewhere', home_mark = '1:2'")

    with pytest.raises(CollectionMismatch, match=r"belongs to /srv/a\.ww on elsewhere: .*`whatwhere adopt"):
        fill_with(root, database, 2)
    adopt(root)
    fill_with(root, database, 2)

    assert len(uris(database)) == 2


def test_what_an_older_version_wrote_gets_an_id_when_it_is_written(root: Path) -> None:
    """It is read as before; the next run writes the id into the file and the catalog, whose rows stay."""
    without_identity(root)
    raw(Layout(root).catalog, *FORGOTTEN)
    with open_collection(root) as reader:
        before = reader.identity, reader.ids.tolist()

    fill(root)

    assert before == (Identity(), [1, 2, 3])
    assert raw(Layout(root).catalog, "SELECT collection_id FROM owner") == [(id_of(root),)]
    assert len(id_of(root)) == 32


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damaged, removed])
def test_a_lost_id_is_found_in_the_manifest(root: Path, damage: Callable[[Path], None]) -> None:
    """Repair writes the same one again: the shards and the catalog still belong to it."""
    before = id_of(root)
    damage(Layout(root).recipe)

    remaining = repair(root, verify_collection(root))

    assert remaining == []
    assert json.loads(Layout(root).recipe.read_text())["identity"]["id"] == before


def test_a_shard_of_another_collection_is_refused_and_not_merged(root: Path, tmp_path: Path) -> None:
    """Reading names it; repair counts its images as lost and takes nothing of it."""
    fill(tmp_path / "other.ww", [7, 8, 9])
    shard = Layout(root).shards / "00000001.safetensors"
    shutil.copy(Layout(tmp_path / "other.ww").shards / shard.name, shard)

    with (
        open_collection(root) as reader,
        pytest.raises(CollectionCorrupt, match=f"belongs to another collection .{id_of(tmp_path / 'other.ww')}"),
    ):
        reader.description(reader.indexed_image(1))
    faults = verify_collection(root)

    assert [(fault.part.value, fault.problem.split(" (")[0]) for fault in faults] == [
        ("shard", "belongs to another collection")
    ]


def test_a_generation_of_another_collection_is_refused(root: Path, tmp_path: Path) -> None:
    """Its vectors have the ids of other images."""
    other = tmp_path / "other.ww"
    fill(other, [7, 8, 9])
    for folder in ("generations", "segments", "whiteners"):
        shutil.rmtree(root / folder)
        shutil.copytree(other / folder, root / folder)
    shutil.copy(other / "CURRENT", root / "CURRENT")

    with pytest.raises(CollectionCorrupt, match=r"generation 1 in .* belongs to another collection"):
        open_collection(root)
    assert repair(root, verify_collection(root)) == []
    with open_collection(root) as reader:
        assert (reader.identity.id, reader.manifest.number) == (id_of(root), 2)


def test_a_copy_is_a_collection_of_its_own(root: Path, tmp_path: Path) -> None:
    """Its id is new, and it reads the shards that it was given and those that it writes."""
    copied = tmp_path / "copied.ww"

    copy_collection(root, copied)
    fill(copied, [4])

    assert Identity.of(Layout(copied)).origins == (id_of(root),)
    assert id_of(copied) != id_of(root)
    assert verify_collection(copied) == []
    with open_collection(copied) as reader:
        assert [reader.description(reader.indexed_image(number)).factors.height for number in (1, 4)] == [3, 3]


def test_an_open_catalog_is_not_read_when_it_has_become_another_ones(tmp_path: Path, database: str) -> None:
    """The schema is dropped and another collection indexed: no row of it is shown for an image of the old one."""
    fill_with(tmp_path / "a.ww", database, 1)
    with closing(open_collection(tmp_path / "a.ww")) as reader:
        reader.indexed_image(1)
        raw(database, "DROP SCHEMA whatwhere CASCADE")
        fill_with(tmp_path / "b.ww", database, 7)

        with pytest.raises(CollectionReplaced, match="belongs to another collection now"):
            reader.indexed_image(1)


@pytest.mark.parametrize("step", ["a shard", "a generation"])
@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "renamed"])
def test_a_run_writes_nothing_into_what_takes_the_place_of_its_directory(
    root: Path, tmp_path: Path, step: str, is_removed: bool
) -> None:
    """The error says that it was replaced; the other collection stays as it was."""
    other = tmp_path / "other.ww"
    fill(other, [7])
    before = {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}

    def run() -> None:
        with open_for_writing(root, RECIPE) as writer:
            append(writer, 4)
            if is_removed:
                shutil.rmtree(root)
            else:
                root.rename(tmp_path / "moved.ww")
            shutil.copytree(other, root)
            if step == "a shard":
                append(writer, 5)
            publish_with(writer)

    with pytest.raises(CollectionReplaced, match=r"c\.ww was removed or replaced"):
        run()

    assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_writer_of_another_machine_is_respected_where_its_lock_cannot_be_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network mount the name in the lock's file decides; on a local disk the lock itself does."""
    Layout(root).lock.write_text("1077 on elsewhere")
    with monkeypatch.context() as patched:
        patched.setattr("whatwhere.indexer.collection.writer.network_kind", lambda _: "fuse.sshfs")
        with pytest.raises(CollectionLocked, match=r"by process 1077 on elsewhere, .* remove .*writer\.lock"):
            fill(root)

    fill(root)

    assert Layout(root).lock.read_text() == ""
