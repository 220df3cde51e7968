"""The table of language models that the laws run over, and what their tests share."""

import dataclasses
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fastsnn_jax import NEURONS, SNNConfig, adaptive_threshold, build_model_from_config
from fastsnn_jax.nn import Coding

B, L = 5, 12
CUTS = (0, 5, 6, 11, L)  # prefill to odd places, single tokens between

_SMALL = SNNConfig(
    vocab_size=29, d_model=16, n_heads=4, head_dim=6, n_layers=2, d_ff=20, window=3
)


def small(attn_kind, **fields):
    """A configuration whose sizes are small and all different."""
    return dataclasses.replace(_SMALL, attn_kind=attn_kind, **fields)


ATTENTIONS = {
    "hybrid_alt": small("hybrid_alt", n_kv_heads=2, qkv_bias=True, spiking_lm_head=True),
    "interleaved": small(
        "interleaved", n_kv_heads=1, gate="none", normalizer="rms", feature_map="relu",
        ffn="gated", neuron="lif_sint", qk_norm=True, tie_lm_head=False, spiking_lm_head=True,
    ),
    "parallel_sum": small("parallel_sum", feature_map="exp", norm="layer", rounding="down"),
    "linear": small("linear", feature_map="elu1", qkv_bias=True),
    "linear_exp_decay": small(
        "linear", n_kv_heads=2, feature_map="exp", gate="decay", neuron="lif_sint",
        rounding="down",
    ),
    "linear_decay": small("linear", gate="decay", normalizer="rms", ffn="gated", norm="layer"),
    "sliding": small("sliding", window=2, window_inclusive=True, n_kv_heads=2, qkv_bias=True,
                     output_bias=True, ffn="gated", neuron="lif_sint",
                     rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "softmax": small("softmax", n_kv_heads=1, qk_norm=True, norm="layer", tie_lm_head=False),
}
FAST = ("interleaved",)
SOME = ("interleaved", "linear_decay", "sliding", "softmax")  # every core, for the dearer laws


def twin(config):
    """The same network without spikes."""
    return dataclasses.replace(config, spiking=False)


def rows(fast=FAST, among=SOME):
    """Marks a test to run over the rows ``among`` the table, slow but for those ``fast``."""
    return pytest.mark.parametrize("config", [
        pytest.param(config, id=name, marks=[] if name in fast else [pytest.mark.slow])
        for name, config in ATTENTIONS.items() if name in among
    ])


NEURONS_AND_FINE = NEURONS.copy()


@NEURONS_AND_FINE.register("fine")
def _fine(config, layer):
    """Counts so large that nothing is rounded away."""
    return adaptive_threshold(1e5, limit=2**24)


def model_of(config):
    return build_model_from_config(config, neurons=NEURONS_AND_FINE)


def tokens_of(config, shape=(B, L), seed=0):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.integers(0, config.vocab_size, shape), jnp.int32)


CENTRES = {"scale": 1.0, "log_threshold": -1.0, "gate_bias": 2.0, "weights": 0.5}


def random_parameters(shapes):
    """Parameters of the given shapes: none is a 0 or 1, as some are at first, to hide a mistake."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        spread = len(leaf) ** -0.5 if name == "kernel" else 0.3
        values = CENTRES.get(name, 0.0) + spread * random.normal(size=leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def variables_of(config):
    tokens = jnp.zeros((1, 2), jnp.int32)
    return random_parameters(jax.eval_shape(model_of(config).init, jax.random.key(0), tokens))


def named_leaves(tree):
    """Leaves of nested dicts by their path, ``a/b/c``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


# Running a model, listening to its codings


@cache
def reader(config):
    """Jitted ``(variables, cache, tokens, forced, force) -> (cache, logits, activity, heard)``.

    Without a cache the model is applied to a whole sequence; with one, a single token goes through
    ``decode_step`` and more go through ``prefill``. ``heard`` is, by the path of each coding, the
    array it read and the spikes it gave. Where ``force`` is true it hands on the spikes in
    ``forced`` in place of its own, so that every coding sees what it would see after them.
    """
    model = model_of(config)

    @jax.jit
    def read(variables, cache, tokens, forced, force):
        heard = {}

        def listen(call, args, kwargs, context):
            out = call(*args, **kwargs)
            coding = context.module
            if not isinstance(coding, Coding) or coding.neuron is None:
                return out
            name = "/".join(coding.path)
            heard[name] = (args[0], out.spikes)
            if not forced:
                return out
            spikes = jax.tree.map(
                lambda own, other: jnp.where(force, other, own), out.spikes, forced[name]
            )
            return out._replace(spikes=spikes)

        with nn.intercept_methods(listen):
            if cache is None:
                logits, activity = model.apply(variables, tokens)
            elif tokens.shape[1] > 1:
                cache, (logits, activity) = model.prefill(variables, cache, tokens)
            else:
                cache, (logits, activity) = model.decode_step(variables, cache, tokens[:, 0])
                logits = logits[:, None]
        return cache, logits, activity, heard

    return read


@cache
def whole(config, length=L, batch=B):
    """Logits, activity and what the codings heard, of the whole sequence at once."""
    tokens = tokens_of(config, (batch, length))
    return reader(config)(variables_of(config), None, tokens, {}, False)[1:]


def in_pieces(config, *, cuts=CUTS, batch=B, force=False, between=lambda cache: cache):
    """What ``whole`` gives, as NumPy, of sequences cut at ``cuts``; ``between`` is done to caches.

    With ``force`` every coding hands on the spikes it gave in ``whole``.
    """
    length = cuts[-1]
    tokens = np.asarray(tokens_of(config, (batch, length)))
    heard = jax.device_get(whole(config, length, batch)[2])
    spikes = {name: given for name, (_, given) in heard.items()}
    cache, pieces = model_of(config).init_cache(batch, length), []
    for start, stop in pairwise(cuts):
        part = jax.tree.map(lambda leaf, cut=slice(start, stop): leaf[:, cut], spikes)
        cache, *piece = reader(config)(
            variables_of(config), between(cache), tokens[:, start:stop], part, force
        )
        pieces.append(jax.device_get(piece))
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)


def relative_difference(actual, expected):
    """Largest difference of each sequence over its largest value, ``[B]``."""
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    axes = tuple(range(1, expected.ndim))
    return np.abs(actual - expected).max(axes) / np.abs(expected).max(axes)


def counts_by_numpy(config, name, potential):
    """Counts that the coding ``name`` makes of what it reads, and how far from a tie, float64."""
    x = np.asarray(potential, np.float64)
    if config.neuron == "lif_sint":
        leaf = named_leaves(variables_of(config))[f"params/{name}/log_threshold"]
        ratio = x / np.exp(np.asarray(leaf, np.float64))
    else:
        ratio = x / np.clip(np.abs(x).mean(-1, keepdims=True) / config.k, 1e-5, 1e4)
    nearest = config.rounding == "nearest"
    low = 0 if name.endswith("ffn/coding") and config.ffn == "pulse" else -127
    counts = np.clip(np.rint(ratio) if nearest else np.trunc(ratio), low, 127)
    past_tie = (ratio + 0.5 * nearest) % 1
    return counts, np.minimum(past_tie, 1 - past_tie)


OWN_CODING = {
    "output": "output_coding", "mix": "mix_coding", "gate_up": "gate_coding", "down": "coding",
}


def coding_of(key):
    """Path of the coding whose spikes the kernel ``key`` reads."""
    *parents, name, _ = key.split("/")
    if not parents:  # a head
        return "coding"
    if name in OWN_CODING:
        return "/".join([*parents, OWN_CODING[name]])
    return "/".join([parents[0], f"{parents[1]}_coding"])
