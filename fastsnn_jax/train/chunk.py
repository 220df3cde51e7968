"""Many steps in one dispatch, of any number, all through one compiled body."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastsnn_jax._typing import Array, State

ChunkStep: TypeAlias = Callable[[State, Any], tuple[State, Any]]
LIMIT = 1024  # rows of the output buffers: at most so many steps per dispatch


class Source(NamedTuple):
    """Samples to draw batches from; it may be images, text windows or anything else.

    Attributes:
      data: ``data(epoch) -> pytree of arrays``, kept whole on every device during that epoch
        (from 0) and placed there again only when it is another object. It depends on the epoch
        alone, so that a resumed run sees what it saw, and keeps its shapes and dtypes.
      size: number of samples in an epoch.
      fetch: ``fetch(data, index[B]) -> batch``, traced; must accept any index in [0, size).
    """

    data: Callable[[int], Any]
    size: int
    fetch: Callable[[Any, Array], Any]


def rows_of(data: Any) -> Source:
    """Source over a pytree of arrays that share their leading axis: a sample is a row.

    Every epoch has the same samples.

    >>> rows_of((jnp.zeros((4, 2)), jnp.zeros(4))).size
    4
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1:
        raise ValueError(f"rows_of: arrays need one common leading axis, got {sorted(sizes)}")
    return Source(
        lambda epoch: data, sizes.pop(), lambda data, index: jax.tree.map(lambda a: a[index], data)
    )


class Chunk:
    """``chunk(state, data, order, start, count) -> (state, outputs)``, compiled once.

        for i in range(count): state, outputs[i] = step(state, fetch(data, order[start + i]))

    ``start`` and ``count`` (at most ``LIMIT``) are traced, so every cut of an epoch into chunks
    runs the same compiled body and gives the same bits. ``order`` is any pytree with a leading
    axis of steps; ``outputs`` have ``LIMIT`` rows, of which the first ``count`` are filled.
    ``state`` is donated. Shapes may not change between calls. On a ``mesh`` the results are kept
    replicated.
    """

    def __init__(self, step: ChunkStep, fetch: Callable[[Any, Any], Any], mesh: Mesh | None = None):
        self._jitted = jit_update(partial(_run_steps, step, fetch), mesh)
        self._compiled = None

    def prepare(self, state: State, data: Any, order: Any) -> jax.stages.Compiled:
        """Compiles if that is still to do."""
        if self._compiled is None:
            lowered = self._jitted.lower(state, data, order, jnp.int32(0), jnp.int32(0))
            self._compiled = compile_apart(lowered)
        return self._compiled

    def __call__(
        self, state: State, data: Any, order: Any, start: int, count: int
    ) -> tuple[State, Any]:
        compiled = self.prepare(state, data, order)
        return compiled(state, data, order, jnp.int32(start), jnp.int32(count))


def jit_update(function: Callable[..., Any], mesh: Mesh | None) -> Any:
    """Jitted ``function(state, ...)`` that consumes its state; results replicated on the mesh."""
    placed: dict[str, Any] = {}
    if mesh is not None:
        placed["out_shardings"] = NamedSharding(mesh, PartitionSpec())
    return jax.jit(function, donate_argnums=0, **placed)


def compile_apart(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles in another thread: Ctrl-C need not wait for it."""
    worker = ThreadPoolExecutor(max_workers=1)
    compiled = worker.submit(lowered.compile)
    worker.shutdown(wait=False)
    return compiled.result()


def run_chunks(
    chunk: Chunk, state: State, data: Any, order: Any, start: int, stop: int, pace: "Pace"
) -> Iterator[tuple[State, Any]]:
    """Runs steps ``start`` to ``stop``; yields (state, host outputs [n, ...]) per dispatch."""
    while start < stop:
        count = pace.length(stop - start)
        began = time.perf_counter()
        state, outputs = chunk(state, data, order, start, count)
        outputs = jax.device_get(outputs)
        pace.update(count, time.perf_counter() - began)
        start += count
        yield state, jax.tree.map(itemgetter(slice(count)), outputs)


class Pace:
    """Chooses how many steps a dispatch runs, so that it lasts about ``target_s`` seconds.

    The first dispatch warms up: it runs one step and its time is ignored. After that the length
    follows the last measurement and grows at most fourfold at a time.
    """

    def __init__(self, target_s: float):
        self.target_s = target_s
        self.warm = False
        self._next = 1

    def length(self, remaining: int) -> int:
        """Steps of the next dispatch."""
        return min(self._next, remaining, LIMIT)

    def update(self, count: int, seconds: float) -> None:
        """Takes in that ``count`` steps lasted ``seconds``."""
        if self.warm:
            wanted = int(self.target_s * count / max(seconds, 1e-6))
            self._next = max(1, min(wanted, 4 * count))
        self.warm = True


def _run_steps(step, fetch, state, data, order, start, count):
    def once(i, state):
        return step(state, fetch(data, jax.tree.map(lambda rows: rows[i], order)))

    def body(i, carry):
        state, buffers = carry
        state, outputs = once(start + i, state)
        return state, jax.tree.map(lambda buffer, row: buffer.at[i].set(row), buffers, outputs)

    _, row = jax.eval_shape(once, start, state)
    buffers = jax.tree.map(lambda leaf: jnp.zeros((LIMIT, *leaf.shape), leaf.dtype), row)
    return lax.fori_loop(0, count, body, (state, buffers))
