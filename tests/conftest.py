"""Settings that must stand before jax is imported, and the data that tests share."""

import gc
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import CHEAPLY, REPOSITORY


def _keep_compiled_programs() -> None:
    """Keeps compiled programs between runs in the user's cache folder, where one can be written."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastsnn_jax")
    folder = root / f"jax-{importlib.metadata.version('jax')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _compile_cheaply() -> None:
    """Sets what is not set yet; users' own programs can be tested too, see CONTRIBUTING.md.

    A release that does not know a flag of XLA would end the process: another one tries it.
    """
    unset = {name: value for name, value in CHEAPLY.items() if name not in os.environ}
    if "XLA_FLAGS" in unset:
        trial = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(trial, env=os.environ | unset, capture_output=True).returncode:
            del unset["XLA_FLAGS"]
    os.environ |= unset


os.environ.setdefault("JAX_PLATFORMS", "cpu")
_compile_cheaply()
_keep_compiled_programs()
gc.set_threshold(50_000, 20, 100)  # traced programs are many small objects, few of them garbage


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of prepared datasets beside the checkout: ``tfds/`` and ``mnist_idx/``."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the prepared datasets (shared/data beside the checkout) are absent")
    return folder
