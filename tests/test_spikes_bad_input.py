"""What SpikeTensor refuses, by name."""

import jax
import numpy as np
import pytest

from fastsnn_jax.spikes import SpikeTensor

BAD_INPUT = [
    (lambda: SpikeTensor.from_count(np.array([0.5])), ValueError, "integers within"),
    (lambda: SpikeTensor.from_count(np.array([np.nan])), ValueError, "got nan"),
    (lambda: SpikeTensor.from_count(np.array([2**24 + 2.0])), ValueError, "16777216"),
    (lambda: SpikeTensor.from_count(np.array([2**40])), ValueError, "16777216"),
    (lambda: SpikeTensor.from_count(np.array([-1])), ValueError, "use coding='ternary'"),
    (lambda: SpikeTensor.from_count(np.array([True])), TypeError, "got dtype bool"),
    (lambda: SpikeTensor.from_count(np.array([1j])), TypeError, "got dtype complex"),
    (lambda: SpikeTensor.from_count(3), ValueError, "must have 1 axes"),
    (lambda: SpikeTensor.from_count(np.array([1]), coding="morse"), ValueError, "twos_complement"),
    (lambda: SpikeTensor.from_count(np.array([1]), threshold=0.0), ValueError, "threshold .* > 0"),
    (lambda: SpikeTensor.from_count(np.ones((2, 3)), threshold=np.ones(3)), ValueError,
     "fold a value per channel"),
    (lambda: SpikeTensor.from_count(np.array([1]), threshold=np.nan), ValueError, "got nan"),
    (lambda: SpikeTensor.from_count(np.array([1]), threshold=np.inf), ValueError, "got inf"),
    (lambda: SpikeTensor.from_dense(np.ones(3)), ValueError, "must have 2 axes"),
    (lambda: SpikeTensor.from_dense(np.full((2, 3), -1)), ValueError, r"in \(0, 1\), got -1"),
    (lambda: SpikeTensor.from_dense(np.full((2, 3), 2), coding="bitwise"), ValueError, "got 2"),
    (lambda: SpikeTensor.from_dense(np.ones((25, 1)), coding="bitwise"), ValueError, "<= 24"),
    (lambda: SpikeTensor.from_event(np.array([[0.0]]), 3), TypeError, "index must be int32"),
    (lambda: SpikeTensor.from_event(np.array([[0, 4]]), 3), ValueError, r"in 0 .. 3, got 4"),
    (lambda: SpikeTensor.from_event(np.array([[-1, 0]]), 3), ValueError, "got -1"),
    (lambda: SpikeTensor.from_event(np.array([[-4]]), 3, coding="ternary"), ValueError, "got -4"),
    (lambda: SpikeTensor.from_event(np.array([[2, 1]]), 3), ValueError, "ascending"),
    (lambda: SpikeTensor.from_event(np.array([[1, 1]]), 3), ValueError, "ascending"),
    (lambda: SpikeTensor.from_event(np.array([[3, 1]]), 3), ValueError, "padding last"),
    (lambda: SpikeTensor.from_event(np.array([[1]]), 0), ValueError, "num_channels must be >= 1"),
    (lambda: SpikeTensor.from_event(np.array([[1]]), 2.0), TypeError, "num_channels"),
]


@pytest.mark.parametrize(("build", "error", "message"), BAD_INPUT)
def test_bad_input_to_a_constructor_is_refused(build, error, message):
    with pytest.raises(error, match=rf"^SpikeTensor\.from_.*{message}"):
        build()


SPIKES = SpikeTensor.from_count(np.array([[1, 2, 0]]))
BAD_CALLS = [
    (lambda: SPIKES.to_dense(), TypeError, "num_steps must be an int"),
    (lambda: SPIKES.to_dense(0), ValueError, "num_steps must be >= 1"),
    (lambda: SPIKES.to_dense(2).to_dense(3), ValueError, r"must be 2 .* call to_count\(\) first"),
    (lambda: SPIKES.to_dense(2, overflow="wrap"), ValueError, "saturate, error"),
    (lambda: SPIKES.to_event(2), ValueError, r"call to_dense\(num_steps\) first"),
    (lambda: SPIKES.to_dense(2).to_event(0), ValueError, "capacity must be >= 1"),
    (lambda: SPIKES.synapse(np.ones((3, 2))), ValueError, "use matmul"),
    (lambda: SPIKES.matmul(np.ones((4, 2))), ValueError, r"shape \[3, M\], got \(4, 2\)"),
    (lambda: SPIKES.matmul(np.ones((1, 3, 2))), ValueError, r"shape \[3, M\]"),
    (lambda: SPIKES.matmul(np.ones((3, 2), bool)), TypeError, "got dtype bool"),
    (lambda: SPIKES.matmul(np.ones((3, 2), np.uint32)), TypeError, "int32 sums"),
    (lambda: jax.jit(lambda spikes: spikes.to_dense(2, overflow="error"))(SPIKES), ValueError,
     "needs concrete values"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_calls_are_refused(call, error, message):
    with pytest.raises(error, match=rf"^SpikeTensor\..*{message}"):
        call()
