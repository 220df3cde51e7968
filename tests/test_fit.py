"""`fit` trains a model on a user's own arrays and refuses arrays that cannot be meant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.encoding import direct
from fastsnn_jax.train import fit

N, FEATURES, CLASSES = 60, 4, 3


class Count(NamedTuple):
    nonzero: jax.Array


class Threshold:
    """Class scores from how often a linear layer's rectified sum passes a threshold."""

    def init(self, key, inputs):
        return {"params": 0.5 * jax.random.normal(key, (inputs.shape[-1], CLASSES))}

    def apply(self, variables, inputs):
        logits = (inputs @ variables["params"]).mean(0)
        return logits, {"input": Count((inputs > 0.5).sum((0, 2), dtype=jnp.int32))}


def samples(dtype=np.float32):
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, N)
    x = random.uniform(0.0, 0.4, (N, FEATURES))
    x[np.arange(N), y] = 1.0
    return (x * 255).astype(dtype) if dtype == np.uint8 else x.astype(dtype), y


def test_arrays_are_learned_and_the_best_variables_classify_them():
    x, y = samples()
    fitted = fit(Threshold(), (x, y), epochs=20, batch_size=6, learning_rate=0.1, num_steps=5,
                 validation=(x, y))
    logits, _ = Threshold().apply(fitted.variables, direct(x, 5))
    accuracy = 100 * np.mean(np.argmax(logits, -1) == y)
    assert accuracy > 95
    np.testing.assert_allclose(max(fitted.history["val_acc"]), accuracy, rtol=1e-6)


def test_spike_totals_are_exact():
    x, y = samples()
    fitted = fit(Threshold(), (x, y), epochs=3, batch_size=10, validation=0, num_steps=7)
    # One feature of each sample is above the threshold, at each of 7 steps, in each of 3 epochs.
    assert fitted.journal.totals["spikes"] == {"input": N * 7 * 3}
    assert fitted.history["val_acc"] == [] and fitted.journal.totals["samples"] == 3 * N


def test_a_share_holds_out_at_least_one_sample():
    fitted = fit(Threshold(), samples(), epochs=2, batch_size=10, validation=1e-9)
    assert len(fitted.history["val_acc"]) == 2


def test_uint8_is_scaled_to_one():
    x, y = samples(np.uint8)
    fitted, same = (
        fit(Threshold(), (values, y), epochs=2, batch_size=6)
        for values in (x, x.astype(np.float32) / np.float32(255))
    )
    np.testing.assert_allclose(
        fitted.variables["params"], same.variables["params"], rtol=1e-5, atol=1e-6)


def test_validation_may_be_other_samples_and_an_encoder_of_ones_own_may_be_random():
    def encode(key, x):
        return (jax.random.uniform(key, (3, *x.shape)) < x).astype(x.dtype)

    x, y = samples()
    runs = [
        fit(Threshold(), (x, y), epochs=2, batch_size=6, validation=(x[:5], y[:5]), encode=encode,
            seed=seed) for seed in (0, 0, 1)
    ]
    assert set(runs[0].history["val_acc"]) <= {0.0, 20.0, 40.0, 60.0, 80.0, 100.0}
    totals = [run.journal.totals["spikes"]["input"] for run in runs]
    assert totals[0] == totals[1] != totals[2]


def test_a_fit_into_a_directory_is_resumed(tmp_path):
    options = {"batch_size": 6, "learning_rate": 0.1}
    fit(Threshold(), samples(), epochs=1, out=tmp_path, **options)
    assert Checkpoints(tmp_path).labels()
    resumed = fit(Threshold(), samples(), epochs=3, out=tmp_path, resume=True, **options)
    whole = fit(Threshold(), samples(), epochs=3, **options)
    np.testing.assert_array_equal(resumed.variables["params"], whole.variables["params"])
    assert resumed.history["losses"] == whole.history["losses"]


def test_a_fit_is_resumed_with_the_samples_it_began_with_only(tmp_path):
    x, y = samples()
    options = {"batch_size": 6, "out": tmp_path, "validation": (x[:5], y[:5])}
    fit(Threshold(), (x, y), epochs=1, **options)
    other = x.copy()
    other[7, 1] += 0.5
    with pytest.raises(CheckpointError, match="'data': .*got.*'data': "):
        fit(Threshold(), (other, y), epochs=2, resume=True, **options)
    with pytest.raises(CheckpointError, match="'data'"):
        fit(Threshold(), (x, y), epochs=2, resume=True,
            **options | {"validation": (x[1:6], y[1:6])})
    assert len(fit(Threshold(), (x, y), epochs=2, resume=True, **options).history["losses"]) == 2


def change(**parts):
    x, y = samples()
    return {"x": x, "y": y} | parts


def spoil(value):
    x, _ = samples()
    x[3, 2] = value
    return x


@pytest.mark.parametrize(("parts", "options", "error", "message"), [
    (change(x=spoil(np.nan)), {}, ValueError, "x of samples must be finite"),
    (change(x=spoil(np.inf)), {}, ValueError, "x of samples must be finite"),
    (change(x=samples()[0][:-1]), {}, ValueError, r"x \(59, 4\) and y \(60,\)"),
    (change(x=samples()[0].astype(int)), {}, TypeError, "floating or uint8, got dtype int64"),
    (change(y=samples()[1].astype(float)), {}, TypeError, "integer classes, got dtype float64"),
    (change(y=samples()[1] + 1), {}, ValueError, r"y must lie in 0..2, .*got 1..3"),
    (change(y=samples()[1] - 1), {}, ValueError, r"got -1..1"),
    (change(), {"batch_size": 55}, ValueError, "batch_size must be <= 54"),
    (change(), {"batch_size": 0}, ValueError, "batch_size must be >= 1"),
    (change(), {"learning_rate": 0.0}, ValueError, "learning_rate must be > 0"),
    (change(), {"learning_rate": float("inf")}, ValueError, "learning_rate must be finite"),
    (change(), {"learning_rate": "0.1"}, TypeError, "learning_rate must be a number"),
    (change(), {"num_steps": 0}, ValueError, "num_steps must be >= 1"),
    (change(), {"validation": 1.0}, ValueError, "validation must be a share"),
    (change(), {"validation": (samples()[0], samples()[1][:3])}, ValueError, "validation must"),
    (change(x=samples()[0][:, 0]), {}, ValueError, r"x \[N, ...\]"),
])
def test_arrays_that_cannot_be_meant_are_refused(parts, options, error, message):
    with pytest.raises(error, match=message):
        fit(Threshold(), (parts["x"], parts["y"]), **{"batch_size": 6} | options)


def test_a_model_that_does_not_keep_the_contract_is_refused():
    class NoActivity(Threshold):
        def apply(self, variables, inputs):
            return inputs.mean(0) @ variables["params"], None

    class Stateful(Threshold):
        def init(self, key, inputs):
            return super().init(key, inputs) | {"batch_stats": jnp.zeros(3)}

    with pytest.raises(ValueError, match="must return .logits .B, K., activity dict"):
        fit(NoActivity(), samples(), batch_size=6)
    with pytest.raises(ValueError, match="only collection must be params, got .'batch_stats'."):
        fit(Stateful(), samples(), batch_size=6)
    with pytest.raises(ValueError, match="samples must be a tuple"):
        fit(Threshold(), samples()[0])
