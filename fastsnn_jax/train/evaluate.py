"""Sums over a whole data set, in dispatches of at most about a second."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fastsnn_jax._checks import check, check_count
from fastsnn_jax._typing import Array, Key, Params
from fastsnn_jax.sharding import fitting_mesh, replicate, shard_batch
from fastsnn_jax.train.chunk import Chunk, Pace, Source, run_chunks
from fastsnn_jax.train.journal import add_sums
from fastsnn_jax.train.order import full_order

_CHUNK_S = 0.5  # aimed duration of a dispatch
MetricsFn: TypeAlias = Callable[[Params, Any, Array, Key], dict[str, Any]]


def make_evaluate(
    metrics_fn: MetricsFn, source: Source, batch_size: int, key: Key, *,
    mesh: Mesh | None = None,
) -> Callable[[Params], dict[str, Any]]:
    """Returns ``evaluate(params) -> sums``, with every sample counted exactly once.

    Batch ``i`` draws from ``fold_in(key, i)``: the same parameters give the same sums. Of a source
    that changes with the epoch it is the first epoch.

    Args:
      metrics_fn: ``(params, batch, mask, key) -> sums``, where ``mask`` [B] is False for padding,
        which must not be counted. The sums are int32 or float32 of any shape and hold ``loss``
        (summed over samples), ``correct`` and ``samples``.
      batch_size: of the evaluation; it is lowered to the number of samples if larger.
    Returns:
      ``sums`` holds what ``metrics_fn`` counts, over all samples, as Python numbers or nested
      lists (integers exact), but ``loss`` is the mean and ``accuracy`` is added, in percent.
    """
    check_count("make_evaluate", "batch_size", batch_size)
    check(source.size > 0, "make_evaluate", "source must have samples", source.size)
    batch_size = min(batch_size, source.size)
    mesh = fitting_mesh(batch_size) if mesh is None else mesh
    index, mask = full_order(source.size, batch_size)
    order = shard_batch(mesh, {"index": index, "mask": mask}, axis=1)
    order["number"] = replicate(mesh, jnp.arange(len(index)))
    data = replicate(mesh, source.data(0))
    key_data = replicate(mesh, jax.random.key_data(key))

    def fetch(known, row):
        params, data, key_data = known
        key = jax.random.fold_in(jax.random.wrap_key_data(key_data), row["number"])
        return params, source.fetch(data, row["index"]), row["mask"], key

    chunk = Chunk(lambda state, batch: (state, metrics_fn(*batch)), fetch, mesh)
    pace = Pace(_CHUNK_S)

    def evaluate(params: Params) -> dict[str, Any]:
        known = (replicate(mesh, params), data, key_data)
        sums: dict[str, Any] = {}
        for _, rows in run_chunks(chunk, (), known, order, 0, len(index), pace):
            sums = add_sums(rows, sums)
        missing = {"loss", "correct", "samples"} - sums.keys()
        check(not missing, "make_evaluate", "metrics_fn must count loss, correct and samples",
              sorted(sums))
        check(sums["samples"] > 0, "make_evaluate", "samples must be > 0", sums["samples"])
        return sums | {
            "loss": sums["loss"] / sums["samples"],
            "accuracy": 100.0 * sums["correct"] / sums["samples"],
        }

    return evaluate
