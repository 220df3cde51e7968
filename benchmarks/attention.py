"""Time and memory per token of every attention core over L: linear, sliding, softmax, hybrids.

    python -m benchmarks.attention
    python -m benchmarks.attention --quick              to L = 4,096, few rounds, nothing saved
    python -m benchmarks.attention --max-length 65536

One sequence of float32, H = G = 4 heads of D = 32. All programs take turns, round by round: a
shared machine's drift cancels in the ratios, which are medians over rounds. A program whose
temporary memory is above two fifths of the machine's is compiled only, and said not to fit.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from fastsnn_jax.attention.linear import linear_attention, linear_attention_recurrent
from fastsnn_jax.attention.sliding_window import sliding_window
from fastsnn_jax.attention.softmax import softmax_attention

HEADS, SIZE, WINDOW = 4, 32, 128
LENGTHS = (1024, 4096, 16384, 65536, 262144)
LONGEST_QUICK, ROUNDS, ROUNDS_QUICK = 4096, 7, 5
PASSES = ("forward", "forward_gradient")
SHARE_OF_MEMORY = 0.4


class Form(NamedTuple):
    """One attention ``run(q, k, v, log_decay) -> out``, and up to which length it is measured."""

    run: Callable[..., jax.Array]
    longest: int = LENGTHS[-1]
    beyond: str = ""


FORMS = {
    "recurrent": Form(
        lambda q, k, v, a: linear_attention_recurrent(q, k, v)[1], 16384, "takes too long"
    ),
    "chunkwise": Form(lambda q, k, v, a: linear_attention(q, k, v)[1]),
    "gla": Form(lambda q, k, v, a: linear_attention(q, k, v, log_decay=a, normalizer="none")[1]),
    "sliding": Form(lambda q, k, v, a: sliding_window(q, k, v, WINDOW)),
    "softmax": Form(lambda q, k, v, a: softmax_attention(q, k, v), 16384, "does not fit"),
    # Of the hybrids what mixes positions: two layers in turn, and two branches of one layer.
    "interleaved": Form(
        lambda q, k, v, a: linear_attention(q, k, sliding_window(q, k, v, WINDOW))[1]
    ),
    "parallel": Form(
        lambda q, k, v, a: linear_attention(q, k, v)[1] + sliding_window(q, k, v, WINDOW)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short and unsaved")
    parser.add_argument("--max-length", type=int, default=LENGTHS[-1], metavar="L")
    options = parser.parse_args()
    longest = min(options.max_length, LONGEST_QUICK if options.quick else LENGTHS[-1])
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    lengths = [length for length in LENGTHS if length <= longest]
    if not lengths:
        raise SystemExit(f"--max-length must be at least {LENGTHS[0]}, got {longest}")

    programs = {
        (name, length, which): _compiled(form.run, length, which)
        for name, form in FORMS.items()
        for length in lengths if length <= form.longest
        for which in PASSES
    }
    memory = {key: program.memory_analysis().temp_size_in_bytes
              for key, program in programs.items()}
    limit = SHARE_OF_MEMORY * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = {key: program for key, program in programs.items() if memory[key] <= limit}
    seconds = _take_turns(fitting, {length: _inputs(length) for length in lengths}, rounds)
    rows = []
    for name, form in FORMS.items():
        for length in lengths:
            row: dict[str, Any] = {"attention": name, "length": length}
            for which in PASSES:
                key = name, length, which
                if key in seconds:
                    row[f"{which}_us_per_token"] = _timing.summary(1e6 * seconds[key] / length)
                else:
                    row[f"{which}_not_measured"] = "does not fit" if key in memory else form.beyond
                if key in memory:
                    row[f"{which}_temporary_bytes"] = memory[key]
            rows.append(row)
            print(_line(row), flush=True)
    ratios = _ratios(seconds, lengths)
    for name, ratio in ratios.items():
        print(f"{name:58} {ratio:.2f}")
    if not options.quick:
        print(_timing.save("attention", {
            "shape": {"batch": 1, "heads": HEADS, "kv_heads": HEADS, "head_dim": SIZE},
            "window": WINDOW, "dtype": "float32", "rows": rows, "ratios": ratios,
        }))


def _inputs(length):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, gate = (jax.random.normal(key, (1, length, HEADS, SIZE)) for key in keys)
    return q, k, v, jax.nn.log_sigmoid(gate) / 16


def _compiled(run, length, which):
    def loss(*arrays):
        return jnp.sum(jnp.sin(run(*arrays)))

    program = run if which == "forward" else jax.value_and_grad(loss, (0, 1, 2, 3))
    shapes = [jax.ShapeDtypeStruct((1, length, HEADS, SIZE), jnp.float32)] * 4
    return jax.jit(program).lower(*shapes).compile()


def _take_turns(programs, inputs, rounds):
    """Seconds ``[rounds]`` of every program; the first round warms up."""
    seconds = {key: [] for key in programs}
    for number in range(-1, rounds):
        for key, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*inputs[key[1]]))
            if number >= 0:
                seconds[key].append(time.perf_counter() - start)
    return {key: np.array(values) for key, values in seconds.items()}


def _ratios(seconds, lengths):
    """The comparisons that speed is judged by, of those whose two sides were measured."""

    def ratio(above, below):
        return float(np.median(seconds[above] / seconds[below]))

    ratios = {}
    for length in lengths:
        sides = ("recurrent", length, PASSES[1]), ("chunkwise", length, PASSES[1])
        if sides[0] in seconds:
            ratios[f"recurrent_over_chunkwise_forward_gradient_at_{length}"] = ratio(*sides)
    for name in ("chunkwise", "gla", "sliding", "interleaved", "parallel"):
        for which in PASSES if 65536 in lengths else ():
            sides = (name, 65536, which), (name, 16384, which)
            ratios[f"{name}_{which}_65536_over_16384"] = ratio(*sides)
    for length in lengths:
        micros = 1e6 * np.median(seconds["sliding", length, "forward"]) / length
        ratios[f"sliding_forward_us_per_token_at_{length}"] = float(micros)
        if ("softmax", length, "forward") in seconds:
            for name in ("chunkwise", "sliding"):
                sides = ("softmax", length, "forward"), (name, length, "forward")
                ratios[f"softmax_over_{name}_forward_at_{length}"] = ratio(*sides)
    return ratios


def _line(row):
    return f"{row['attention']:11} L={row['length']:7,} " + "   ".join(
        f"{which} {_time(row, which)} {_memory(row, which)}" for which in PASSES
    )


def _time(row, which):
    if f"{which}_us_per_token" in row:
        return f"{row[f'{which}_us_per_token']['median']:8.2f} us/token"
    return row[f"{which}_not_measured"]


def _memory(row, which):
    size = row.get(f"{which}_temporary_bytes")
    return "" if size is None else f"{size / 2**20:8.1f} MiB"


if __name__ == "__main__":
    main()
