"""Network mounts are told from local disks by the kernel's list of mounts."""

from pathlib import Path

import pytest

from whatwhere.indexer.storage import mounts

LIST = """\
22 1 0:21 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/pictures rw,relatime shared:7 - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /mnt/pictures/local rw - xfs /dev/sdb1 rw
32 22 0:42 / /mnt/with\\040space rw - cifs //nas/share rw
33 22 0:43 / /mnt/far rw - fuse.sshfs me@far:/ rw
34 22 0:44 / /mnt/over rw - nfs old:/ rw
35 22 0:45 / /mnt/over rw - tmpfs tmpfs rw
"""
KINDS = {
    "/home/c.ww": None,
    "/mnt/pictures/c.ww": "nfs4",
    "/mnt/pictures": "nfs4",
    "/mnt/pictures-2/c.ww": None,
    "/mnt/pictures/local/c.ww": None,
    "/mnt/with space/c.ww": "cifs",
    "/mnt/far/c.ww": "fuse.sshfs",
    "/mnt/over/c.ww": None,
}


def test_the_mount_of_a_path_is_the_longest_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as Linux writes them (proc(5)): spaces are octal, and a later mount hides an earlier one."""
    (tmp_path / "mountinfo").write_text(LIST)
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")

    assert {path: mounts.network_kind(Path(path)) for path in KINDS} == KINDS


def test_here_the_temporary_folder_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own list is read; without one nothing is known."""
    here = mounts.network_kind(tmp_path)
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "absent")

    assert (here, mounts.network_kind(tmp_path)) == (None, None)
