"""What a token costs a language model beside its projections."""

from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax import energy, jaxpr
from fastsnn_jax._typing import Params
from fastsnn_jax.attention import KVCache, LinearState, WindowCache
from fastsnn_jax.models import LanguageModel


def decoding_work(model: LanguageModel, params: Params, context: int) -> dict[str, Any]:
    """Work of one decoding step in integers, its weight products apart.

    Counted by ``energy.count`` on the step itself. What it does does not depend on the tokens; a
    softmax layer looks at all ``context`` places of its cache.

    Returns:
      ``context``; ``products``, multiply-adds of two activations; ``operations`` by class: norms,
      codings, gates, softmax, positions; ``held_words``, numbers kept from token to token; and
      ``cache_words``, how many of them are read or written.
    """
    cache = model.init_cache(1, context)

    def step(params: Params, cache: Any, token: Any) -> Any:
        cache, (logits, _) = model.decode_step(params, cache, token)
        return cache, logits

    arguments = params, cache, jnp.zeros(1, jnp.int32)
    _, counts = energy.count(step)(*arguments)
    return {
        "context": context,
        "products": sum(each.macs for each in counts.products if each.kind == "activation"),
        "operations": {name: number for name, number in counts.elementwise.items() if number},
        "held_words": sum(leaf.size for leaf in jax.tree.leaves(cache) if leaf.ndim),
        "cache_words": _cache_words(step, *arguments),
    }


def _cache_words(step: Any, params: Params, cache: Any, token: Any) -> int:
    """Words of the cache that a step reads and writes: a state whole, of keys and values one place.

    What comes out as it went in (a normaliser that is not in use) is neither.
    """
    closed, _ = jaxpr.trace(step, params, cache, token)
    first = len(jax.tree.leaves(params))
    parts = jax.tree.leaves(cache, is_leaf=lambda part: type(part) in _PLACES)
    leaves = [(leaf, _PLACES[type(part)](part)) for part in parts for leaf in part]
    old, new = closed.jaxpr.invars[first:], closed.jaxpr.outvars
    return sum(
        leaf.size + leaf.size // places
        for (leaf, places), before, after in zip(leaves, old, new, strict=False)
        if leaf.ndim and before is not after
    )


_PLACES = {  # positions that a cache has room for
    LinearState: lambda state: 1,
    WindowCache: lambda ring: ring.k.shape[2],
    KVCache: lambda cache: cache.k.shape[1],
}
