"""Decoding and prefill of a language model over the length of its context, and what they keep.

    python -m benchmarks.decode
    python -m benchmarks.decode --quick         short contexts and texts, few rounds, nothing saved

The recipe's small network (4 layers, 4 heads, 128 wide, every projection spiking) over bytes, batch
1, with each kind of attention. All programs of a part take turns, round by round: a shared
machine's drift cancels in the ratios, which are medians over rounds.

stream    ``stream_prefill`` of one long text in equal pieces, first, while the peak of the resident
          memory (Linux) is still its own.
decode    ``decode_step``, greedy, from a cache that was made at its position rather than read up to
          it. Linear and sliding states have one size at every position, so theirs is one compiled
          program, and the ratio of two contexts says that no work hangs on the position.
prefill   ``stream_prefill`` of the whole prompt in one piece; only the last position's logits.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from fastsnn_jax.generation import stream_prefill
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.recipes.lm import preset

CONFIG = dataclasses.replace(preset("nanogpt-cpu").model, vocab_size=256)
KINDS = ("linear", "sliding", "interleaved", "softmax")
CONTEXTS, CONTEXTS_QUICK = (1024, 16384, 65536), (1024, 65536)
PROMPTS = tuple(2**n for n in range(9, 17))
LONGEST_SOFTMAX, LONGEST_QUICK = 16384, 2048
TEXTS, TEXTS_QUICK = (100_000, 1_000_000), (10_000, 40_000)
PIECE = 1000  # divides the texts: one program reads them whole
NEW_TOKENS = 64  # decoded per measurement
ROUNDS, ROUNDS_QUICK = 9, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short and unsaved")
    quick = parser.parse_args().quick
    rounds = ROUNDS_QUICK if quick else ROUNDS
    stream = _stream("interleaved", TEXTS_QUICK if quick else TEXTS)
    decoding = _decode(CONTEXTS_QUICK if quick else CONTEXTS, rounds)
    prefill = _prefill([n for n in PROMPTS if not quick or n <= LONGEST_QUICK], rounds)
    if not quick:
        print(_timing.save("decode", {
            "model": CONFIG.to_json(), "batch": 1, "stream": stream, "decode": decoding,
            "prefill": prefill,
        }))


def _stream(kind: str, lengths: tuple[int, ...]) -> dict[str, Any]:
    model, variables = _network(kind)
    text = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (1, lengths[-1]), np.uint8)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(model.init_cache(1, 1)))

    def read(length: int) -> None:
        cache = model.init_cache(1, 1)  # no layer needs room for the text
        out = stream_prefill(model, variables, cache, text[:, :length], chunk=PIECE)
        jax.block_until_ready(out)

    read(PIECE)  # compiles
    rows = []
    for length in lengths:
        seconds = _seconds(partial(read, length))
        rows.append({"tokens": length, "tokens_per_s": length / seconds, **_resident()})
        print(f"stream {kind} {length:9,} tokens {length / seconds:8,.0f} tokens/s   "
              f"peak {rows[-1]['peak_bytes'] / 2**20:.0f} MiB   "
              f"now {rows[-1]['resident_bytes'] / 2**20:.0f} MiB", flush=True)
    growth = rows[-1]["peak_bytes"] / rows[0]["peak_bytes"] - 1
    print(f"peak memory grows by {100 * growth:.1f} %; state {state:,} bytes")
    return {"attention": kind, "piece": PIECE, "state_bytes": state, "rows": rows,
            "peak_growth": growth}


def _decode(contexts: tuple[int, ...], rounds: int) -> dict[str, Any]:
    programs = {}
    for kind in KINDS:
        model, variables = _network(kind)
        step = partial(_greedy(model), variables)
        for context in contexts:
            if kind != "softmax" or context <= LONGEST_SOFTMAX:
                cache = cache_at(model, context, NEW_TOKENS)
                programs[kind, context] = partial(_steps, step, cache)
    took = _timing.take_turns(programs, rounds)
    rows, ratios = [], {}
    for (kind, context), seconds in took.items():
        row = {"attention": kind, "context": context,
               "ms_per_token": _timing.summary(1e3 * seconds / NEW_TOKENS)}
        rows.append(row)
        ratio = seconds / took[kind, CONTEXTS[0]]
        ratios[f"{kind}_{context}_over_{CONTEXTS[0]}"] = _timing.summary(ratio)
        print(f"decode {kind:12} context {context:6,} {row['ms_per_token']['median']:7.3f} "
              f"ms/token   {np.median(ratio):.2f} times that at {CONTEXTS[0]:,}", flush=True)
    return {"rows": rows, "ratios": ratios}


def _prefill(lengths: list[int], rounds: int) -> dict[str, Any]:
    networks = {kind: _network(kind) for kind in ("interleaved", "softmax")}
    programs = {
        (kind, length): partial(_read, *networks[kind], length)
        for length in lengths for kind in networks
        if kind != "softmax" or length <= LONGEST_SOFTMAX
    }
    took = _timing.take_turns(programs, rounds)
    rows, ratios = [], {}
    for length in lengths:
        for kind in networks:
            row: dict[str, Any] = {"attention": kind, "length": length}
            if (kind, length) in took:
                row["ms"] = _timing.summary(1e3 * took[kind, length])
            else:
                row["not_measured"] = "does not fit"
            rows.append(row)
            figure = f"{row['ms']['median']:10.1f} ms" if "ms" in row else row["not_measured"]
            print(f"prefill {kind:12} L={length:6,} {figure}", flush=True)
        if ("softmax", length) in took:
            ratios[length] = _timing.summary(took["softmax", length] / took["interleaved", length])
            print(f"softmax takes {ratios[length]['median']:.2f} times as long", flush=True)
    slower = [length for length, ratio in ratios.items() if ratio["median"] <= 1]
    faster_from = min((n for n in ratios if n > max(slower, default=0)), default=None)
    print(f"interleaved is faster from L = {faster_from} on")
    return {"rows": rows, "softmax_over_interleaved": ratios, "faster_from": faster_from}


def cache_at(model: LanguageModel, context: int, room: int) -> Any:
    """A cache as after ``context`` tokens, of random content, with ``room`` for more."""
    leaves, tree = jax.tree.flatten(model.init_cache(1, context + room))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(tree, [
        jnp.full_like(leaf, context) if jnp.issubdtype(leaf.dtype, jnp.integer)  # a position
        else jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ])


def _network(kind: str) -> tuple[LanguageModel, Any]:
    model = build_model_from_config(dataclasses.replace(CONFIG, attn_kind=kind))
    return model, model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


def _greedy(model: LanguageModel) -> Callable[..., Any]:
    @partial(jax.jit, donate_argnums=1)
    def step(variables, cache, token):
        cache, (logits, _) = model.decode_step(variables, cache, token)
        return cache, logits.argmax(-1)

    return step


def _steps(step: Callable[..., Any], cache: Any) -> float:
    """Seconds of decoding ``NEW_TOKENS`` from a copy of the cache: a step consumes it."""
    cache = jax.block_until_ready(jax.tree.map(jnp.copy, cache))
    token = jnp.zeros(1, jnp.int32)
    start = time.perf_counter()
    for _ in range(NEW_TOKENS):
        cache, token = step(cache, token)
    jax.block_until_ready((cache, token))
    return time.perf_counter() - start


def _read(model: LanguageModel, variables: Any, length: int) -> float:
    """Seconds of reading one prompt in one piece."""
    text = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (1, length))
    cache = jax.block_until_ready(model.init_cache(1, length))
    return _seconds(lambda: stream_prefill(model, variables, cache, text, chunk=length))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _resident() -> dict[str, int]:
    """Peak and present resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    names = {"peak_bytes": "VmHWM", "resident_bytes": "VmRSS"}
    return {ours: 1024 * int(kilobytes[theirs].split()[0]) for ours, theirs in names.items()}


if __name__ == "__main__":
    main()
