"""A network with weights of one's own from training whiteners to answers, as people run it."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torchvision import models

from tests import commands
from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import BACKBONES
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.errors import CollectionMismatch
from whatwhere.indexer.features import whitening
from whatwhere.indexer.storage.files import sha256_of
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, without a terminal; by torch, as OpenVINO takes seconds to compile a network."""
    fixed = {"COLUMNS": "300", ENGINE_VARIABLE: "torch"}
    return commands.run(*arguments, environment=os.environ | fixed | environment)


def done(*arguments: str | Path, **environment: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    finished = run(*arguments, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def refused(*arguments: str | Path, **environment: str) -> str:
    """Run a command that must end with a named error, and return its message, one line."""
    finished = run(*arguments, **environment)
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@dataclass(frozen=True)
class Made:
    """Weights of a ResNet-18, whiteners and a collection made with them, and a file of other weights."""

    weights: Path
    others: Path
    whiteners: Path
    collection: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Made:
    """Make them by the commands."""
    folder = tmp_path_factory.mktemp("own")
    made = Made(folder / "own.pth", folder / "others.pth", folder / "whiteners", folder / "own.ww")
    for seed, path in enumerate((made.weights, made.others)):
        torch.manual_seed(seed)
        torch.save(models.resnet18().state_dict(), path)
    network = ("--backbone", "resnet18", "--weights", made.weights)
    done("whiten", photographs, "--output", made.whiteners, "--dimensions", "16", *network)
    done("index", photographs, "--collection", made.collection, "--whiteners", made.whiteners, *network)
    return made


@pytest.fixture(scope="module")
def half(made: Made, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a collection of one photograph in bfloat16, which takes ten times as long where the processor has none."""
    root = tmp_path_factory.mktemp("half") / "half.ww"
    network = ("--backbone", "resnet18", "--weights", made.weights, "--precision", "bfloat16")
    done("index", photographs / "rocket.jpg", "--collection", root, "--whiteners", made.whiteners, *network)
    return root


def recipe_of(collection: Path) -> Mapping[str, object]:
    recipe: Mapping[str, object] = json.loads(Layout(collection).recipe.read_text())
    return recipe


def test_the_recipe_names_network_weights_and_precision(made: Made, half: Path) -> None:
    """In the collection and in its generation's manifest, by the checksum of the file that was used."""
    recipe = recipe_of(made.collection)

    assert (recipe["backbone"], recipe["layer"], recipe["precision"]) == ("resnet18", "layer4", "float32")
    assert recipe_of(half)["precision"] == "bfloat16"
    assert recipe["weights_sha256"] == sha256_of(made.weights)
    assert Manifest.load(Layout(made.collection).generation(1)).recipe == Recipe.load(Layout(made.collection))


def test_whiteners_belong_to_the_weights(made: Made) -> None:
    """By the same checksum, in files named after the network."""
    key = whitening.load(made.whiteners / "resnet18.cells.safetensors").key

    assert key == whitening.WhitenerKey("resnet18", "layer4", sha256_of(made.weights), "cells")


def test_a_search_answers_with_these_weights(made: Made) -> None:
    """Every photograph is ranked, the first one boxed; a stored image finds itself."""
    weights = ("--collection", made.collection, "--weights", made.weights)

    hits = json.loads(done("search", QUERY_PHOTOGRAPH, *weights, "--localize", "1", "--json"))["hits"]
    own = json.loads(done("search", "images/3", *weights, "--top", "1", "--json"))["hits"]

    assert {hit["image"] for hit in hits} == {f"images/{number}" for number in range(1, 9)}
    assert len(hits[0]["box"]) == 4
    assert (own[0]["image"], own[0]["score"]) == ("images/3", pytest.approx(1, abs=1e-3))


def test_queries_compute_as_the_collection_was_made(made: Made, half: Path, photographs: Path) -> None:
    """In bfloat16: an indexed photograph asked for from its file has the score of itself."""
    answer = done("search", photographs / "rocket.jpg", "-c", half, "--weights", made.weights, "--json")

    assert json.loads(answer)["hits"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_a_later_run_takes_the_collections_network(made: Made, photographs: Path) -> None:
    """With its weights, nothing else need be said."""
    printed = done("index", photographs, "-c", made.collection, "--weights", made.weights)

    assert printed.startswith("described 0, failed 0, duplicates 0, unchanged 8")


@pytest.mark.parametrize("command", ["search", "serve", "index"])
def test_without_its_weights_a_collection_is_refused(made: Made, photographs: Path, command: str) -> None:
    """At once, before the published ones would be fetched; the remedy is the file it was made with."""
    first = {"search": [QUERY_PHOTOGRAPH], "serve": [], "index": [photographs]}[command]

    message = refused(command, *first, "--collection", made.collection)

    assert f"own.ww was made with resnet18, layer layer4, weights {sha256_of(made.weights)[:12]}…; this" in message
    assert "weights f37072fd…: give the original checkpoint with --weights FILE" in message


def test_a_server_refuses_other_weights(made: Made) -> None:
    """A file that fits the network is not enough."""
    settings = ServerSettings(made.collection, listen="127.0.0.1:0", weights=made.others)

    with pytest.raises(CollectionMismatch, match=rf"this network has .*{sha256_of(made.others)[:12]}.*--weights FILE"):
        create_server(settings)


def test_indexing_refuses_other_weights_and_another_precision(made: Made, photographs: Path) -> None:
    """One collection is described in one way."""
    index = ("index", photographs, "-c", made.collection, "--weights")

    weights, precision = refused(*index, made.others), refused(*index, made.weights, "--precision", "bfloat16")

    assert f"weights_sha256 '{sha256_of(made.weights)}', not '{sha256_of(made.others)}'" in weights
    assert "precision 'float32', not 'bfloat16'" in precision


def test_whiteners_of_other_weights_are_refused(made: Made, photographs: Path, tmp_path: Path) -> None:
    """Also where the file has the right name."""
    network = ("--backbone", "resnet18", "--weights", made.others)

    message = refused("index", photographs, "-c", tmp_path / "c.ww", "--whiteners", made.whiteners, *network)

    assert "resnet18.cells.safetensors was fitted to" in message


def test_two_layers_of_a_network_can_share_a_folder_of_whiteners(made: Made, photographs: Path, tmp_path: Path) -> None:
    """Each has files of its own, and a collection of its own."""
    network = ("--backbone", "resnet18:layer3", "--weights", made.weights)
    few = ("--descriptors", "gem", "--dimensions", "2")
    done("whiten", photographs / "nested", photographs / "rocket.jpg", "--output", made.whiteners, *few, *network)
    options = ("--descriptors", "gem", "--whiteners", made.whiteners)
    done("index", photographs / "rocket.jpg", "-c", tmp_path / "c.ww", *options, *network)

    recipe = recipe_of(tmp_path / "c.ww")
    answer = json.loads(
        done("search", "images/1", "-c", tmp_path / "c.ww", "--weights", made.weights, "--descriptor", "gem", "--json")
    )

    assert (recipe["backbone"], recipe["layer"]) == ("resnet18:layer3", "layer3")
    assert answer["hits"][0]["image"] == "images/1"
    assert (made.whiteners / "resnet18:layer3.gem.safetensors").is_file()


def test_a_machine_without_weights_and_network_is_told_what_to_do(photographs: Path, tmp_path: Path) -> None:
    """One line: the file, where it was looked for, the command that fetches it."""
    environment = {"TORCH_HOME": str(tmp_path / "torch"), "https_proxy": "http://127.0.0.1:1"}  # a proxy that is none

    message = refused("index", photographs, "-c", tmp_path / "c.ww", "--backbone", "resnet18", **environment)

    target = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert message.startswith(f"resnet18-f37072fd.pth is not in {target.parent}, and its download failed")
    assert f"--output {target} https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert not (tmp_path / "c.ww").exists()


def test_weights_for_a_server_that_is_asked_are_wrong_usage(made: Made) -> None:
    """It has its own."""
    finished = run("search", "images/1", "--server", "127.0.0.1:1", "--weights", made.weights)

    assert finished.returncode == 2
    assert "--weights goes with --collection" in finished.stderr


def test_the_networks_are_listed_for_people_and_programs(tmp_path: Path) -> None:
    """Every entry, with what it costs and whether its weights are here."""
    (tmp_path / "resnet18-f37072fd.pth").touch()
    environment = {"WHATWHERE_WEIGHTS": str(tmp_path), "TORCH_HOME": str(tmp_path)}

    listed = json.loads(done("backbones", "--json", **environment))
    table = done("backbones", **environment)

    assert [entry["name"] for entry in listed] == list(BACKBONES)
    assert {entry["name"] for entry in listed if entry["weights_here"] and "lite" not in entry["name"]} == {"resnet18"}
    assert set(listed[0]) == {"name", "layer", "channels", "stride", "gmacs", "weights", "weights_here"}
    row = next(line.split() for line in table.splitlines() if "resnet50" in line)
    assert row == ["resnet50", "layer4", "2048", "32", "28.0", "resnet50-0676ba61.pth"]
    assert next(line.split() for line in table.splitlines() if "resnet18" in line)[-1] == "here"
    assert "NAME:LAYER" in table
