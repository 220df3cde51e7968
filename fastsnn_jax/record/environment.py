"""Where a run took place: versions, device, and the commit of the code."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("fastsnn_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
CHECKOUT = Path(__file__).resolve().parents[2]
GIT_SECONDS = 10


def environment() -> dict[str, Any]:
    """The envelope's ``versions`` (null: not installed), ``device`` and ``git_hash``.

    ``git_hash`` is the commit of the checkout this package is imported from, with "-dirty" where
    tracked files differ from it; null when the package is installed without one or git is absent.

    >>> sorted(environment())
    ['device', 'git_hash', 'versions']
    """
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "device": {
            "kind": devices[0].device_kind,
            "backend": devices[0].platform,
            "count": len(devices),
            "system": f"{platform.system()} {platform.machine()}",
            "cpu_count": os.cpu_count(),
        },
        "git_hash": git_hash(CHECKOUT),
    }


def git_hash(checkout: Path) -> str | None:
    """The commit at the root ``checkout``, "-dirty" if changed, or None where there is none."""
    if not (checkout / ".git").exists():  # never the hash of a repository further up
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    outside = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, cwd=checkout, env=outside, capture_output=True, text=True, check=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
