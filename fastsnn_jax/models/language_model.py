"""Spiking language model: next-token logits, and the same step by step in O(1) per token."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Float, Int
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.models._layers import dense_synapse
from fastsnn_jax.nn.block import Block, make_norm
from fastsnn_jax.nn.projection import Activity, Coded, Coding, Projection, product, project

Cache = tuple[Any, ...]
Outputs = tuple[Float[Array, "B L V"], Activity]
TIED_HEAD = "embed/embedding"


class LanguageModel(nn.Module):
    """Embedding, blocks, norm, head; built by ``build_model_from_config``.

        tokens [B, L] -> embed -> blocks -> norm -> head -> logits [B, L, V] float32

    ``apply(variables, tokens) -> (logits, activity)``. Keys of `activity` are the paths of the
    kernels that read spikes; without spikes it is empty. For dropout pass ``train=True`` and
    ``rngs={"dropout": key}``. The logits at a position depend on no later one.

    Attributes:
      config: sizes and kinds.
      blocks: layers, see ``fastsnn_jax.nn.block``.
      neuron: codes the head's input; None where the head reads no spikes.
    """

    config: SNNConfig
    blocks: tuple[Block, ...]
    neuron: Any = None

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        small = nn.initializers.normal(0.02)
        self.embed = nn.Embed(config.vocab_size, config.d_model, dtype=dtype, embedding_init=small)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = make_norm(config)
        self.coding = Coding(self.neuron)
        if not config.tie_lm_head:
            self.lm_head = Projection(config.vocab_size, dtype=dtype, result_dtype=jnp.float32)

    def __call__(self, tokens: Int[Array, "B L"], train: bool = False) -> Outputs:
        return self.extend(None, tokens, train)[1]

    def extend(
        self, cache: Cache | None, tokens: Int[Array, "B L"], train: bool = False
    ) -> tuple[Cache | None, Outputs]:
        """Runs the positions that follow those in ``cache``; None: a whole sequence, no cache."""
        cache, (hidden, activity) = self.trunk(cache, tokens, train)
        logits, counted = self.head(hidden)
        return cache, (logits, activity | counted)

    def trunk(
        self, cache: Cache | None, tokens: Int[Array, "B L"], train: bool = False
    ) -> tuple[Cache | None, tuple[Float[Array, "B L D"], Activity]]:
        """All but the head: who needs few logits applies `head` to few positions."""
        tokens = self._checked(tokens)
        x = self.dropout(self.embed(tokens), deterministic=not train)
        caches, activity = [], {}
        for i, block in enumerate(self.blocks):
            layer_cache, x, counted = block(x, None if cache is None else cache[i], train)
            caches.append(layer_cache)
            activity |= counted
        return (None if cache is None else tuple(caches)), (self.norm(x), activity)

    def head(self, hidden: Float[Array, "B L D"]) -> Outputs:
        """Logits of hidden states, float32."""
        signal = self.coding(hidden)
        if not self.config.tie_lm_head:
            (logits,), activity = project(signal, [self.lm_head])
            return logits, activity
        logits = product(signal, self.embed.embedding.T, jnp.dtype(self.config.dtype))
        return logits, {TIED_HEAD: signal.counted} if isinstance(signal, Coded) else {}

    def init_cache(self, batch: int, max_len: int) -> Cache:
        """Cache of ``batch`` empty sequences; only softmax layers need ``max_len`` positions."""
        return tuple(block.attention.init_cache(batch, max_len) for block in self.blocks)

    def prefill(
        self, variables: Any, cache: Cache, tokens: Int[Array, "B L"]
    ) -> tuple[Cache, Outputs]:
        """Reads any number of tokens that follow those in ``cache``.

        Raises:
          ValueError: if the cache is of another model or batch size.
        """
        self._check_cache(cache, len(tokens))
        outputs: Any = self.apply(variables, cache, tokens, method="extend")
        return outputs

    def decode_step(
        self, variables: Any, cache: Cache, tokens: Int[Array, " B"]
    ) -> tuple[Cache, tuple[Float[Array, "B V"], Activity]]:
        """Reads one token per sequence; `prefill` of length 1, with logits ``[B, V]``."""
        cache, (logits, activity) = self.prefill(variables, cache, tokens[:, None])
        return cache, (logits[:, 0], activity)

    def synapses(self, variables: Any, input_shape: tuple[int, ...] = ()) -> dict[str, Callable]:
        """Linear map ``[N] -> [M]`` of every kernel that reads spikes, keyed as `activity`."""
        del input_shape  # a projection has one shape only
        return {key: dense_synapse(kernel) for key, kernel in self.kernels(variables).items()}

    def kernels(self, variables: Any) -> dict[str, Float[Array, "N M"]]:
        """Kernels that read spikes, keyed as `activity`, in order through the network."""
        def kernel(key: str) -> Array:
            if key == TIED_HEAD:
                embedding = variables["params"]["embed"]["embedding"]
                return jnp.transpose(embedding)
            leaf = variables["params"]
            for name in key.split("/"):
                leaf = leaf[name]
            return leaf

        return {key: kernel(key) for group in self.input_groups() for key in group}

    def input_groups(self) -> tuple[tuple[str, ...], ...]:
        """Keys of `activity` whose kernels read the same spikes, in order through the network."""
        groups: dict[int, list[str]] = {}

        def trace(key):
            (_, activity), _ = self.init_with_output(key, jnp.zeros((1, 1), jnp.int32))
            for name, count in activity.items():
                groups.setdefault(id(count), []).append(name)

        jax.eval_shape(trace, jax.random.key(0))
        return tuple(map(tuple, groups.values()))

    def _checked(self, tokens: Any) -> Int[Array, "B L"]:
        where, size = "LanguageModel", self.config.vocab_size
        if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
            raise TypeError(f"{where}: tokens must be integers, got {jnp.result_type(tokens)}")
        check(jnp.ndim(tokens) == 2, where, "tokens must be [B, L]", jnp.shape(tokens))
        check(jnp.size(tokens) > 0, where, "there must be tokens", jnp.shape(tokens))
        if not isinstance(tokens, jax.core.Tracer):
            ids = np.asarray(tokens)  # not jnp: tokens may be a constant of what jit traces
            low, high = int(ids.min()), int(ids.max())
            check(low >= 0 and high < size, where, f"token ids must be in 0..{size - 1}",
                  low if low < 0 else high, "encode the text with the tokenizer of the model")
        # Under jit a foreign id gives NaN logits; without this, -1 would be the last row.
        tokens = jnp.asarray(tokens, jnp.int32)
        return jnp.where(tokens < 0, size, tokens)

    def _check_cache(self, cache: Any, batch: int) -> None:
        remedy = "start from model.init_cache(batch, max_len)"
        short, long = (jax.eval_shape(lambda n=n: self.init_cache(batch, n)) for n in (1, 2))
        if jax.tree.structure(cache) != jax.tree.structure(short):
            raise fail("cache", "it must be of this model", jax.tree.structure(cache), remedy)
        leaves = (jax.tree.leaves(tree) for tree in (cache, short, long))
        for leaf, one, two in zip(*leaves, strict=True):
            # An axis that follows max_len may have any size.
            fits = len(leaf.shape) == len(one.shape) and leaf.dtype == one.dtype and all(
                size == a or a != b
                for size, a, b in zip(leaf.shape, one.shape, two.shape, strict=True)
            )
            check(fits, "cache", f"leaves must be of this model and batch, {one.dtype}{one.shape}",
                  f"{leaf.dtype}{leaf.shape}", remedy)
