"""Settings that must stand before jax is imported, and the data that tests share."""

import gc
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
    """Tests run programs of a few numbers once: most of their time is compilation.

    It takes 0.6 of it without the dear optimisations, and half of the rest with the plainer of
    XLA's two emitters. A release that does not know their flag would end the process: another one
    tries it. What is already set stays, so users' own programs can be tested, see CONTRIBUTING.md.
    """
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if "XLA_FLAGS" not in os.environ:
        flags = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
        trial = [sys.executable, "-c", "import jax; jax.devices()"]
        if not subprocess.run(trial, env=os.environ | flags, capture_output=True).returncode:
            os.environ |= flags


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
