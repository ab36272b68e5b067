"""Tell local disks from network mounts."""

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs")
)
_NETWORK_FUSE = frozenset(
    f"fuse.{name}" for name in ("ceph", "gcsfuse", "glusterfs", "juicefs", "mount.nfs", "rclone", "s3fs", "sshfs")
)


def network_kind(path: Path) -> str | None:
    """Return the kind of the network file system that a path is on, such as nfs4; None for a local disk.

    Linux lists the mounts in a file; where there is none, nothing is known, and the answer is None.
    """
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, kind, length = path.resolve(), None, -1
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if len(point.parts) >= length and real.is_relative_to(point):  # of two mounts at one place, the later one
            kind, length = source.split()[0], len(point.parts)
    return kind if kind in _NETWORK | _NETWORK_FUSE else None
