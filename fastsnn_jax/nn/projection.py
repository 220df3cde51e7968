"""Where spikes meet weights in a network that integrates no time: coding, then projection.

A signal is an array ``[B, L, D]`` or, in a spiking network, that array as counts (`Coded`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._typing import Array, Float
from fastsnn_jax.activity import TokenSpikes, count_tokens
from fastsnn_jax.spikes import SpikeTensor


class Coded(NamedTuple):
    """An array as spike counts: it stands for ``spikes.value() * scale``.

    Attributes:
      spikes: count form ``[B, L, D]``.
      scale: per channel ``[D]``, to be folded into the weights that read the spikes; or None.
      counted: the spikes of each token, once for all who read them.
    """

    spikes: SpikeTensor
    scale: Array | None
    counted: TokenSpikes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, ``(B, L, D)``."""
        return self.spikes.shape


Signal: TypeAlias = Array | Coded
Activity: TypeAlias = dict[str, TokenSpikes]


class Coding(nn.Module):
    """Codes ``[B, L, D]`` as spikes.

    Attributes:
      neuron: an sINT neuron (``fastsnn_jax.neurons.adaptive_threshold``), or None for a network
        without spikes: then the array passes as it is.
    """

    neuron: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Signal:
        if self.neuron is None:
            return x
        shape = x.shape[-1:]
        learnable = jax.eval_shape(lambda key: self.neuron.init(key, shape), jax.random.key(0))
        params = {name: self.param(name, lambda key, name=name: self.neuron.init(key, shape)[name])
                  for name in learnable}
        if hasattr(self.neuron, "encode_tallied"):  # which a neuron of a user's own need not have
            spikes, tally = self.neuron.encode_tallied(params, x)
        else:
            spikes, tally = self.neuron.encode(params, x), None
        return Coded(spikes, self.neuron.channel_scale(params), count_tokens(spikes, tally))


class Heard(NamedTuple):
    """A coding at work.

    Attributes:
      potential: what was rounded ``[B, L, D]``: the array in units of its thresholds.
      counts: the spike counts ``[B, L, D]``.
    """

    potential: Array
    counts: Array


def hear_codings(
    apply: Callable[..., Any], *args: Any
) -> tuple[Any, dict[str, list[Heard]]]:
    """Runs ``apply(*args)`` of a model; returns its outputs, and its codings by layer, in order.

    Under jit it must be inside the function that is traced.

    >>> from fastsnn_jax.neurons import adaptive_threshold
    >>> coding = nn.Sequential([Coding(adaptive_threshold(k=2.0))])
    >>> _, heard = hear_codings(coding.apply, {}, jnp.array([[[1.0, 3.0]]]))  # mean 2: V = 1
    >>> [(each.potential.tolist(), each.counts.tolist()) for each in heard["layers_0"]]
    [([[[1.0, 3.0]]], [[[1.0, 3.0]]])]
    """
    heard: dict[str, list[Heard]] = {}

    def listen(run: Callable, given: tuple, named: dict, context: Any) -> Any:
        coded = run(*given, **named)
        if isinstance(context.module, Coding) and isinstance(coded, Coded):
            x, *_ = given
            scale = coded.spikes.threshold * (1.0 if coded.scale is None else coded.scale)
            heard.setdefault(context.module.path[0], []).append(
                Heard(x.astype(jnp.float32) / scale, coded.spikes.data.astype(jnp.float32))
            )
        return coded

    with nn.intercept_methods(listen):
        outputs = apply(*args)
    return outputs, heard


class Projection(nn.Module):
    """Linear map along the last axis; counts enter the product as they are, scaled afterwards.

        y = x @ kernel + bias,    spiking:  y = threshold * (counts @ (scale * kernel)) + bias

    Attributes:
      features: M.
      use_bias: adds a bias, zero at first.
      gain: scale of the kernel's initial values, which are normal with variance gain^2 / D.
      dtype: of the product's operands; the kernel itself is float32.
      result_dtype: of the result; None for ``dtype``.
    """

    features: int
    use_bias: bool = False
    gain: float = 1.0
    dtype: Any = jnp.float32
    result_dtype: Any = None

    @nn.compact
    def __call__(self, signal: Signal) -> Float[Array, "B L M"]:
        init = nn.initializers.variance_scaling(self.gain**2, "fan_in", "normal")
        kernel = self.param("kernel", init, (signal.shape[-1], self.features))
        y = product(signal, kernel, self.dtype)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y.astype(self.result_dtype or self.dtype)

    @property
    def key(self) -> str:
        """The synapse's name in ``activity``: the path of its kernel."""
        return "/".join((*self.path, "kernel"))


def product(signal: Signal, kernel: Float[Array, "D M"], dtype: Any) -> Float[Array, "B L M"]:
    """``signal @ kernel`` with operands in ``dtype`` and sums in float32."""
    if not isinstance(signal, Coded):
        return _matmul(signal, kernel, dtype)
    if signal.scale is not None:
        kernel = signal.scale[:, None] * kernel
    # Not SpikeTensor.matmul, which is exact: this one is to run in the compute dtype. Counts up to
    # 127 are whole in bfloat16 too.
    return _matmul(signal.spikes.data, kernel, dtype) * signal.spikes.threshold


def project(signal: Signal, layers: Sequence[Projection]) -> tuple[list[Array], Activity]:
    """Feeds one signal to several projections; the count of its spikes is that of each."""
    outputs = [layer(signal) for layer in layers]
    if not isinstance(signal, Coded):
        return outputs, {}
    return outputs, {layer.key: signal.counted for layer in layers}


def _matmul(x: Array, kernel: Array, dtype: Any) -> Array:
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)
