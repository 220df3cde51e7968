"""Laws of the environment in a record: this checkout's commit or none, and no heavy imports."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

from fastsnn_jax.record import environment
from fastsnn_jax.record.environment import git_hash


def test_the_environment_names_versions_device_and_commit():
    found = environment()
    assert set(found) == {"versions", "device", "git_hash"}
    assert found["versions"]["numpy"] == np.__version__
    assert found["device"]["backend"] == jax.default_backend()
    assert found["device"]["count"] == len(jax.devices())
    assert found["git_hash"] is None or len(found["git_hash"].removesuffix("-dirty")) == 40


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert environment()["versions"]["jax"] is None


def git(folder, *arguments):
    identity = {f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")}
    outside = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=outside | identity, check=True,
                          capture_output=True, text=True)
    return done.stdout.strip()


def test_the_git_hash_is_that_of_the_checkout_and_tells_changes(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "a tag does not replace the hash")
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_hash(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert git_hash(tmp_path) == f"{head}-dirty"


def test_without_a_checkout_of_its_own_or_without_git_there_is_no_hash(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_hash(inside) is None
    assert git_hash(tmp_path) is None  # no commit yet
    monkeypatch.setenv("PATH", "")
    assert git_hash(tmp_path) is None


def test_importing_the_package_loads_no_heavy_one():
    code = ("import sys, fastsnn_jax.record, fastsnn_jax.data, fastsnn_jax.scope\n"
            "print(sorted({'sklearn', 'tensorflow_datasets', 'orbax', 'matplotlib', 'PIL'} "
            "& set(sys.modules)))")
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
