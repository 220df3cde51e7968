"""A checkpoint comes back bit for bit, or not at all with one clear error."""

import hashlib
import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.train import init_state


def tree():
    return {
        "dense0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.float32(0.1)},
        "a/b.c": [jnp.int8(-3), jnp.array([1.5, 2.5], jnp.bfloat16), jnp.array([True, False])],
        "nothing": None,
    }


def state():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    return init_state({"w": jnp.arange(3.0)}, tx, jax.random.key(7), ema=True)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_saving_then_restoring_is_the_identity(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    journal = {"loss": 0.1, "spikes": 2**70, "history": [1e-300, 3.0], "stopped": None}
    checkpoints.save({"state": state(), "best": tree()}, journal)
    found = checkpoints.restore({"state": state(), "best": tree()})
    assert_same(found.items, {"state": state(), "best": tree()})
    assert found.journal == journal


def test_without_a_template_the_arrays_come_as_nested_dicts(tmp_path):
    Checkpoints(tmp_path).save({"state": state()}, {})
    found = Checkpoints(tmp_path).restore().items["state"]
    np.testing.assert_array_equal(found["params"]["w"], [0.0, 1.0, 2.0])
    assert found["step"] == 0


def test_the_newest_two_are_kept_and_the_newest_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in range(4):
        path = checkpoints.save({"x": {"w": jnp.float32(number)}}, {"number": number})
    assert checkpoints.labels() == [2, 3] and path == checkpoints.path(3)
    assert checkpoints.restore().journal == {"number": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000003"]


def test_a_relative_path_is_resolved_when_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("run/checkpoints")
    monkeypatch.chdir("/")
    checkpoints.save({"x": tree()}, {})
    assert (tmp_path / "run" / "checkpoints" / "00000000").is_dir()


def test_a_half_written_checkpoint_is_never_picked_up_and_goes_at_the_next_save(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    whole = checkpoints.save({"x": tree()}, {"number": 0})
    shutil.copytree(whole, tmp_path / "00000001.unfinished")
    shutil.copytree(whole, tmp_path / "00000001.unfinished.orbax-checkpoint-tmp")
    shutil.copytree(whole, tmp_path / "00000001")
    (tmp_path / "00000001" / "manifest.json").unlink()
    assert checkpoints.labels() == [0] and checkpoints.restore().journal == {"number": 0}
    checkpoints.save({"x": tree()}, {"number": 2})
    assert checkpoints.restore().journal == {"number": 2}
    assert not list(tmp_path.glob("*.unfinished*"))


def damages(data):
    middle = len(data) // 2
    yield "cut", data[:middle]
    yield "flipped", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
    yield "missing", None


def test_damage_to_any_file_is_found_and_named_with_the_way_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": tree()}, {"number": 0})
    newest = checkpoints.save({"x": tree()}, {"number": 1})
    files = [file for file in newest.rglob("*") if file.is_file() and file.stat().st_size]
    assert len(files) > 3
    for file in files:
        data = file.read_bytes()
        for kind, damaged in damages(data):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            if kind == "missing" and file.name == "manifest.json":
                continue  # then it is not a finished checkpoint
            with pytest.raises(CheckpointError, match=f"{newest} is damaged: .*remove it") as error:
                checkpoints.restore()
            assert "\n" not in str(error.value)
        file.write_bytes(data)
    assert checkpoints.restore().journal == {"number": 1}
    shutil.rmtree(newest)
    assert checkpoints.restore().journal == {"number": 0}
    other = json.dumps({"journal": {}, "arrays": {}, "files": []})  # its checksum is right
    sealed = json.dumps({"sha256": hashlib.sha256(other.encode()).hexdigest(), "manifest": other})
    for text in ("{}", "[]", "null", '{"sha256": 1, "manifest": 2}', sealed):
        (checkpoints.path(0) / "manifest.json").write_text(text)
        lost = "files" if text == sealed else "sha256"
        with pytest.raises(CheckpointError, match=f"damaged: a file without {lost}; start anew"):
            checkpoints.restore()


def test_restoring_from_nothing_is_an_error(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=f"no finished checkpoint in {directory}"):
            Checkpoints(directory).restore()


def test_a_template_of_another_shape_or_structure_is_an_error_that_names_the_leaf(tmp_path):
    Checkpoints(tmp_path).save({"x": tree()}, {})
    other = tree()
    other["dense0"]["kernel"] = jnp.zeros((2, 4))
    with pytest.raises(CheckpointError, match=r"x/dense0/kernel should be float32\[2, 4\], got"):
        Checkpoints(tmp_path).restore({"x": other})
    del other["dense0"]
    with pytest.raises(CheckpointError, match="x/dense0/bias should be absent, got float32"):
        Checkpoints(tmp_path).restore({"x": other})


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    for write in (checkpoints.prepare, lambda: checkpoints.save({"x": tree()}, {})):
        with pytest.raises(CheckpointError, match="cannot write .*/file/checkpoints: "):
            write()


def test_a_full_disk_is_an_error_and_the_earlier_checkpoint_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": tree()}, {"number": 0})
    noise = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a stand-in for no space
    try:
        with pytest.raises(CheckpointError, match="cannot write .* earlier ones are intact"):
            checkpoints.save({"x": {"w": noise}}, {"number": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.restore().journal == {"number": 0}
    checkpoints.save({"x": {"w": noise}}, {"number": 1})
    assert checkpoints.restore().journal == {"number": 1}
