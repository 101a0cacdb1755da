"""A pod of our own: the container's command in a read-only root, as its user, with its volumes where they belong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.deployment.kustomize import Object
from tests.harness.daemon import Daemon, running

ROOT = Path(__file__).parents[2]

# Usage: sh -c ENTER pod NEW-ROOT UID WORKING-DIRECTORY READ-ONLY... -- OUTSIDE=INSIDE... -- COMMAND...
# Goes into a new root that has the read-only directories and the volumes and nothing else, and gives up every power.
_ENTER = """
set -e
root=$1 user=$2 home=$3; shift 3
mount -t tmpfs -o mode=755 none "$root"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"; mount --bind "$1" "$root$1"; mount -o remount,bind,ro "$root$1"; shift
done
shift
mkdir -p "$root/proc" "$root/dev"; mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root${1#*=}"; mount --bind "${1%%=*}" "$root${1#*=}"; shift
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all env -C "$home" "$@"
"""


def publish(directory: Path, files: Mapping[str, str]) -> None:
    """Put *files* into a volume as the kubelet does: into a new directory, to which ``..data`` is then swapped."""
    current = directory / "..data"
    fresh = directory / f"..{len(list(directory.iterdir()))}"
    fresh.mkdir(mode=0o755)
    for name, text in files.items():
        (fresh / name).write_text(text, encoding="utf-8")
    swap = directory / "..data_tmp"
    swap.symlink_to(fresh.name)
    swap.replace(current)
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


def volumes(directory: Path, pod: Object, files: Mapping[str, Mapping[str, str]]) -> dict[str, Path]:
    """Return a directory for each volume, with the owner, mode and files that the kubelet gives it.

    Args:
        files: what ConfigMaps and Secrets hold, by the volume's name.
    """
    group = pod["securityContext"]["fsGroup"]
    made = {}
    for volume in pod["volumes"]:
        place = directory / volume["name"]
        place.mkdir()
        os.chown(place, 0, group)
        place.chmod(0o2777 if "emptyDir" in volume else 0o2775)
        publish(place, files.get(volume["name"], {}))
        made[volume["name"]] = place
    return made


@contextmanager
def started(directory: Path, pod: Object, places: Mapping[str, Path]) -> Iterator[Daemon]:
    """Run the pod's container, on any free port, for the length of a block.

    Args:
        places: the directory that each volume is.
    """
    (container,) = pod["containers"]
    root = directory / "root"
    root.mkdir(exist_ok=True)
    readable = {*(f"/{name}" for name in ("usr", "bin", "lib", "lib64", "etc/ssl")), sys.prefix, sys.base_prefix}
    readable = {name for name in readable if Path(name).is_dir()} | {str(ROOT / "oneiric")}
    mounts = [f"{places[mount['name']]}={mount['mountPath']}" for mount in container["volumeMounts"]]
    user = str(pod["securityContext"]["runAsUser"])
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "pod", str(root), user]
    within = [*enter, container["workingDir"], *sorted(readable), "--", *mounts, "--"]
    environ = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    program, command, option, _address = container["command"]
    assert (program, command, option) == ("oneiric", "orchestrate", "--http")
    with running(directory, option, "0.0.0.0:0", environ=environ, within=within) as daemon:
        yield daemon
