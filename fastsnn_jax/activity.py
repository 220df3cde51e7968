"""Spike counts: what a network returns beside its logits, and what they say.

``activity`` is a dict. Its keys are the paths of the synaptic kernels whose *input* was counted,
plus "output"; its values are `SpikeCount`, of a language model `TokenSpikes`. Counts of
consecutive windows of time add up leaf by leaf. Whoever drops them pays nothing: under jit their
computation is removed.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_count
from fastsnn_jax._typing import Array, Bool, Float, Int
from fastsnn_jax.jaxpr import run_needed
from fastsnn_jax.kernels.tally import Tally
from fastsnn_jax.kernels.time_sum import sum_over_time
from fastsnn_jax.spikes import SpikeTensor

SATURATED_RATE = 0.95  # spikes per step from which a neuron carries next to no information


class SpikeCount(NamedTuple):
    """Spikes of one signal over all T.

    Attributes:
      events: float32 ``[B, *N]``, spikes of each neuron, those of either sign; exact below 2^24.
        Of an analog signal the sum of magnitudes.
      nonzero: int32 ``[B]``, non-zero entries over all T and N. For a binary train the total of
        ``events``, and the cheaper way to it.
      saturated: int32 ``[B]``, spikes that did not fit their representation and were dropped.
    """

    events: Float[Array, "B *N"]
    nonzero: Int[Array, " B"]
    saturated: Int[Array, " B"]


class TokenSpikes(NamedTuple):
    """Spikes that each token sends into one synapse, summed over its channels.

    Attributes:
      active: int32 ``[B, L]``, channels whose count is not zero.
      unary: int32 ``[B, L]``, sum of ``|s|``: spikes of a binary or ternary train.
      bit_plane: int32 ``[B, L]``, sum of the ones in ``|s|``: spikes of bit planes.
      saturated: int32 ``[B, L]``, channels whose count was clipped.
      log_counts: float32 ``[B, L]``, sum of ``log2(1 + |s|)``: a stand-in for ``bit_plane`` through
        which gradients flow, for penalties.
    """

    active: Int[Array, "B L"]
    unary: Int[Array, "B L"]
    bit_plane: Int[Array, "B L"]
    saturated: Int[Array, "B L"]
    log_counts: Float[Array, "B L"]


Activity = Mapping[str, SpikeCount]

SILENT_SHARE = 1e-3  # of the channels active: below, a layer passes nothing on
SATURATED_SHARE = 1e-2  # of the counts clipped: above, a layer distorts what it passes on


def count_spikes(signal: Float[Array, "T B *N"] | SpikeTensor) -> SpikeCount:
    """Counts a spike train, given dense ``[T, B, *N]`` or as a `SpikeTensor`.

    >>> import jax.numpy as jnp
    >>> count_spikes(jnp.array([[[1., 0.]], [[1., 1.]]])).events
    Array([[2., 1.]], dtype=float32)
    """
    if isinstance(signal, SpikeTensor):
        form = signal if signal.form == "count" else signal.to_dense()
        spikes = jnp.abs(jax.lax.stop_gradient(form.data)).astype(jnp.float32)
        events = spikes if form.form == "count" else sum_over_time(spikes)
        return SpikeCount(events, signal.num_events(), signal.saturated)
    # Not from `events`: whoever reads only totals is then spared the sum per neuron.
    axes = (0, *range(2, signal.ndim))
    nonzero = jnp.sum(signal != 0, axis=axes, dtype=jnp.float32).astype(jnp.int32)
    # Not abs, whose gradient at 0 would keep a rate penalty from silent neurons.
    if not jnp.issubdtype(signal.dtype, jnp.floating):
        signal = signal.astype(jnp.float32)
    magnitude = jnp.where(signal < 0, -signal, signal)
    return SpikeCount(sum_over_time(magnitude), nonzero, jnp.zeros_like(nonzero))


def count_tokens(signal: SpikeTensor, tally: Tally | None = None) -> TokenSpikes:
    """Counts the spikes of each token; ``signal`` holds counts ``[B, L, D]``.

    Args:
      tally: the sums of its counts, where the neuron made them in passing.

    Raises ValueError for a train or events.

    >>> import jax.numpy as jnp
    >>> counts = jnp.array([[[3., 0., -5.]]])
    >>> tokens = count_tokens(SpikeTensor.from_count(counts, coding="bitwise"))
    >>> tokens.active.item(), tokens.unary.item(), tokens.bit_plane.item()
    (2, 8, 4)
    """
    check(signal.form == "count", "count_tokens", "counts are needed", f"a {signal.form} view",
          "call to_count() first")
    if tally is None:
        size = jnp.abs(jax.lax.stop_gradient(signal.data).astype(jnp.int32))
        tally = Tally(
            jnp.sum(size != 0, axis=-1, dtype=jnp.int32), jnp.sum(size, axis=-1),
            jnp.sum(jax.lax.population_count(size), axis=-1), signal.saturated,
        )
    counts = signal.data.astype(jnp.float32)
    # Not abs, whose gradient at 0 would push silent channels to one side.
    magnitude = counts * jnp.sign(jax.lax.stop_gradient(counts))
    log_counts = jnp.sum(jnp.log2(1 + magnitude), axis=-1)
    return TokenSpikes(*tally, log_counts)


def total_tokens(
    activity: Mapping[str, Any], mask: Array | bool = True
) -> dict[str, dict[str, Int[Array, ""]]]:
    """The integer counts of every synapse of a language model, summed over tokens where ``mask``
    [B, L] holds; int32, in one reduction.

    Other entries of ``activity`` are passed over; synapses that read one input share its sums.

    >>> import jax.numpy as jnp
    >>> counts = jnp.array([[[3., 0., -5.]]])
    >>> spikes = count_tokens(SpikeTensor.from_count(counts, coding="bitwise"))
    >>> [(name, int(sum)) for name, sum in total_tokens({"q": spikes, "k": spikes})["k"].items()]
    [('active', 2), ('unary', 8), ('bit_plane', 4), ('saturated', 0)]
    """
    inputs = {id(count.unary): count for count in activity.values()
              if isinstance(count, TokenSpikes)}
    if not inputs:
        return {}
    each = jnp.stack([leaf for count in inputs.values() for leaf in count[:-1]])
    sums = iter(jnp.sum(jnp.where(mask, each, 0), axis=(1, 2), dtype=jnp.int32))
    totals = {key: dict(zip(Tally._fields, sums, strict=False)) for key in inputs}
    return {key: totals[id(count.unary)] for key, count in activity.items()
            if isinstance(count, TokenSpikes)}


def warn_unhealthy(rates: Mapping[str, Mapping[str, float]]) -> None:
    """Warns of each layer that is silent or saturated, with its name and the remedy.

    Args:
      rates: of each layer the shares of its channels that were ``active`` and ``saturated``, over
        all tokens counted; other entries are ignored.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_unhealthy({"ffn/down": {"active": 0.0, "saturated": 0.0}})
    >>> str(caught[0].message).partition(";")[0]
    'ffn/down: silent, 0.000 % of its channels spike'
    """
    for layer, share in rates.items():
        active, clipped = 100 * share["active"], 100 * share["saturated"]
        if active < 100 * SILENT_SHARE:
            warnings.warn(
                f"{layer}: silent, {active:.3f} % of its channels spike; raise k or lower the "
                "threshold, or weaken the spike-rate penalty", stacklevel=2,
            )
        if clipped > 100 * SATURATED_SHARE:
            warnings.warn(
                f"{layer}: saturated, {clipped:.3f} % of its counts are clipped; lower k or raise "
                "the threshold, or regularise with a spike-rate penalty", stacklevel=2,
            )


def firing_rates(count: SpikeCount, num_steps: int) -> Float[Array, " *N"]:
    """Mean spikes per neuron and step over the batch, in [0, 1] for binary trains."""
    check_count("firing_rates", "num_steps", num_steps)
    return jnp.mean(count.events, axis=0) / num_steps


def silent(count: SpikeCount) -> Bool[Array, " *N"]:
    """Neurons that never fired in the whole batch."""
    return jnp.all(count.events == 0, axis=0)


def saturated(
    count: SpikeCount, num_steps: int, rate: float = SATURATED_RATE
) -> Bool[Array, " *N"]:
    """Neurons whose mean rate over the batch is at least ``rate``: they carry no information."""
    return firing_rates(count, num_steps) >= rate


def fan_out(synapse: Callable[[Array], Array], shape: tuple[int, ...]) -> Float[Array, " *N"]:
    """Non-zero synapses leaving each input neuron.

    Args:
      synapse: a linear map whose weights are all 0 or 1, ``[*N] -> [*M]``.
      shape: ``*N``.

    Returns:
      Its VJP at ones, so stride, groups, dilation, padding and pruning are exact.

    >>> import jax.numpy as jnp
    >>> fan_out(lambda s: s @ jnp.array([[1., 1.], [0., 1.]]), (2,))
    Array([2., 1.], dtype=float32)
    """
    def pulled_back() -> Array:
        output, pullback = jax.vjp(synapse, jnp.zeros(shape, jnp.float32))
        return pullback(jnp.ones_like(output))[0]

    return run_needed(pulled_back)


def synaptic_events(count: SpikeCount, fan_outs: Float[Array, " *N"]) -> Float[Array, " B"]:
    """Synaptic operations one signal causes in each sample: its spikes times their fan-out."""
    check(
        count.events.shape[1:] == fan_outs.shape, "synaptic_events",
        f"fan_outs must have the neurons' shape {count.events.shape[1:]}", fan_outs.shape,
    )
    axes = tuple(range(1, count.events.ndim))
    return jnp.sum(count.events * fan_outs, axis=axes)
