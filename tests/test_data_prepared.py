"""Laws of prepared TFDS directories: found at every level, refused when spoiled, moved in whole."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from fastsnn_jax.data import DataError, load_images
from fastsnn_jax.data.prepared import download_prepared, find_prepared

TFDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
needs_tfds = pytest.mark.skipif(not TFDS.is_dir(), reason="no ../shared/data/tfds")


def write_description(path, **fields):
    path.mkdir(parents=True)
    (path / "dataset_info.json").write_text(json.dumps(fields))


def test_the_newest_version_is_found_from_every_level(tmp_path):
    for version in ("3.0.1", "3.0.10"):
        write_description(
            tmp_path / "mnist" / version, name="mnist", version=version, fileFormat="array_record"
        )
    newest = tmp_path / "mnist" / "3.0.10"
    for level in (tmp_path, tmp_path / "mnist", newest):
        assert find_prepared(level, "mnist") == newest
    assert find_prepared(tmp_path, "cifar10") is None
    assert find_prepared(tmp_path / "mnist" / "3.0.1", "mnist").name == "3.0.1"


def test_a_format_that_needs_tensorflow_is_refused(tmp_path):
    path = tmp_path / "mnist" / "3.0.1"
    write_description(path, name="mnist", version="3.0.1", fileFormat="tfrecord")
    with pytest.raises(DataError, match="array_record, .*got tfrecord"):
        load_images("auto", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_spoiled_description_is_an_error(tmp_path, content):
    write_description(tmp_path / "mnist/3.0.1")
    (tmp_path / "mnist/3.0.1/dataset_info.json").write_text(content)
    with pytest.raises(DataError, match="dataset_info.json"):
        load_images("auto", tmp_path)


@needs_tfds
@pytest.mark.parametrize("spoil", ["truncated", "missing", "no features"])
def test_a_spoiled_prepared_directory_is_an_error(tmp_path, spoil):
    version = tmp_path / "mnist" / "3.0.1"
    version.mkdir(parents=True)
    for path in (TFDS / "mnist" / "3.0.1").iterdir():
        if "train" not in path.name or spoil == "truncated":
            shutil.copyfile(path, version / path.name)
    if spoil == "truncated":
        (train,) = version.glob("*train*")
        with open(train, "r+b") as file:
            file.truncate(train.stat().st_size // 2)
    elif spoil == "no features":
        (version / "features.json").unlink()
    with pytest.raises(DataError) as error:
        load_images("auto", tmp_path)
    assert str(version) in str(error.value) and "\n" not in str(error.value)


def test_download_without_tensorflow_says_what_to_do(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name)
    )
    with pytest.raises(DataError, match="pip install tensorflow"):
        load_images("auto", tmp_path / "new", download=True, warn=pytest.fail)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def fake_tensorflow(monkeypatch):
    """TFDS with a builder that needs no network; fails half way when told to."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder:
        failure = None

        def __init__(self, name, data_dir, file_format):
            assert file_format == "array_record"
            self.data_dir = f"{data_dir}/{name}/3.0.1"

        def download_and_prepare(self):
            write_description(
                Path(self.data_dir), name="mnist", version="3.0.1", fileFormat="array_record"
            )
            if self.failure is not None:
                raise self.failure

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds, "builder", Builder)
    return Builder


def test_a_finished_download_is_moved_into_place(tmp_path, fake_tensorflow):
    target = tmp_path / "data" / "mnist" / "3.0.1"
    assert download_prepared(tmp_path / "data", "mnist") == target
    assert find_prepared(tmp_path / "data", "mnist") == target
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist"]


def test_a_failed_download_leaves_nothing_behind(tmp_path, fake_tensorflow):
    fake_tensorflow.failure = ConnectionError("no route")
    with pytest.raises(DataError, match="no route"):
        load_images("auto", tmp_path, download=True, warn=pytest.fail)
    assert list(tmp_path.iterdir()) == []
