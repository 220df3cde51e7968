"""Which errors of an experiment are the user's to mend, in one line, and which are defects."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from processes import environment

from fastsnn_jax._checks import check_finite
from fastsnn_jax.cli import is_refusal
from fastsnn_jax.data import load_images
from fastsnn_jax.kernels.event_synapse import event_matmul
from fastsnn_jax.neurons import lif
from fastsnn_jax.recipes import mnist

INDEX, KERNEL = jnp.zeros((2, 3), jnp.int32), jnp.zeros((4, 5))


def full_disk():
    raise OSError(28, "No space left on device")


def full_memory():
    raise MemoryError


def full_device():
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")


def lost_device():
    raise RuntimeError("INTERNAL: something else")


def error_of_another_library():
    raise ValueError("library: expected this, got that")


REFUSALS = {
    "a check": lambda: mnist.preset(epochs=0),
    "a check of types": lambda: mnist.preset(epochs="2"),
    "a check inside jit": lambda: jax.jit(event_matmul)(INDEX, KERNEL[0]),
    "a raise": lambda: event_matmul(KERNEL, KERNEL),
    "a raise over several lines": lambda: lif(decay=1.0, input_gain="1-decay"),
    "bad data": lambda: load_images("mnist", "nowhere"),
    "a large number": lambda: jnp.int32(2**40),
    "a full disk": full_disk,
    "a full memory": full_memory,
    "a full device": full_device,
}
DEFECTS = {
    "an operation on the wrong type": lambda: mnist.headline({"metrics": None}, ""),
    "a library that our code misuses": lambda: event_matmul(INDEX, "kernel"),
    "an error of another library": error_of_another_library,
    "a lost device": lost_device,
}


@pytest.mark.parametrize(("raises", "refusal"), [
    *(pytest.param(act, True, id=name) for name, act in REFUSALS.items()),
    *(pytest.param(act, False, id=name) for name, act in DEFECTS.items()),
])
def test_a_refusal_is_told_from_a_defect(raises, refusal):
    with pytest.raises((ValueError, TypeError, OSError, ArithmeticError, MemoryError, RuntimeError)
                       ) as caught:
        raises()
    assert is_refusal(caught.value) == refusal


def executed(statement):
    """(exit status, standard output, standard error) of ``execute`` on an expression."""
    program = f"from experiments._cli import execute; execute(lambda: {statement})"
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          env=environment(), timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_refusal_exits_2_with_one_line_and_a_defect_exits_1_with_its_traceback():
    status, output, errors = executed("open('/no/such/file')")
    assert (status, output) == (2, "") and errors.count("\n") == 1
    assert errors.startswith("error: [Errno 2]")
    status, output, errors = executed("1 + None")
    assert (status, output) == (1, "") and errors.startswith("Traceback")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_what_cannot_be_printed_is_no_defect():
    program = "from experiments._cli import execute; execute(lambda: {'figure': 'x' * 100_000})"
    command = [sys.executable, "-c", program]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True,
                              env=environment(), timeout=60)
    assert done.returncode == 2 and done.stderr == "error: [Errno 28] No space left on device\n"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment())
    process.stdout.close()  # as `| head` does
    assert (process.wait(timeout=60), process.stderr.read()) == (0, "")
    process.stderr.close()


def test_an_array_that_other_processes_hold_a_part_of_is_not_fetched_to_be_checked():
    class Elsewhere:
        is_fully_addressable, dtype, shape = False, jnp.dtype("float32"), (2,)

        def __array__(self, *_, **__):
            raise AssertionError("fetched")

    check_finite("lif", "current", Elsewhere())
