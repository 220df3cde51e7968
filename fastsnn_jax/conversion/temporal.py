"""One time step of a converted network.

Every number x of the network is a sum over the steps, and a step passes its share x_t on.

    linear       y_t = f(x_t); a bias or another constant is added in the first step
    nonlinear    y_t = f(X_t) - f(X_(t-1)), of the sums X_t = x_0 + ... + x_t     "differences"
                 y_t = f(X_t) in the step that completes X, else 0                "layerwise"
    a site       counts s of X_t, given out as spikes

Layerwise, a site waits for its whole input and then fires the planes of ``codings``, one each step.
By differences it fires at once, at most one spike a step and of either sign, whenever the count of
what has come so far is not the sum of its spikes so far. Either way the shares of the output add up
to what the network gives on counts, once all trains are over.

A cond, and a loop whose number of turns is not fixed, is a nonlinear operation as a whole.

Source of the differences: Jiang et al. 2024, ICLR (STA); of the neuron that takes spikes back: You
et al. 2024, ICML (SpikeZIP-TF, ST-BIF).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from fastsnn_jax import jaxpr
from fastsnn_jax._typing import Array
from fastsnn_jax.conversion import threaded, trains
from fastsnn_jax.conversion.linear import addends, is_linear
from fastsnn_jax.conversion.methods import Method
from fastsnn_jax.conversion.sites import Site
from fastsnn_jax.energy.products import PRODUCTS
from fastsnn_jax.jaxpr import Equation, Path

MODES = ("layerwise", "differences")


@dataclass(eq=False)
class Moving:
    """A number that comes in shares, by its share, its sum so far, or both.

    Attributes:
      key: of its sum in the state.
      ready: the step that completes it, an integer.
      share: of this step; None where only the sum is known.
      sum: over the steps so far; None where only the share is known.
    """

    key: str
    ready: Any
    share: Array | None = None
    sum: Array | None = None


@dataclass
class Stepper:
    """Runs one step.

    Attributes:
      mode: "layerwise" or "differences".
      method, coding: of the conversion.
      sites: by the path of their equation.
      rules: the same on counts, for what is a nonlinear operation as a whole.
      feeds: thresholds by path.
      state: of the step before, by key; None to find out what it has to hold.
      time: number of the step, from 0.
      after: the state after the step.
    """

    mode: str
    method: Method
    coding: str
    sites: Mapping[Path, Site]
    rules: Mapping[Path, threaded.Rule]
    feeds: Mapping[Path, Any]
    state: Mapping[str, Any] | None
    time: Array

    def __post_init__(self) -> None:
        self.after: dict[str, Any] = {}

    def walk(self, closed: Any, values: Sequence[Any], path: Path, name: str) -> list[Any]:
        """Results of a jaxpr on arrays that do not move and `Moving` numbers."""
        return jaxpr.walk(closed, values, self.visit, path=path, name=name)

    def visit(self, equation: Equation, values: list[Any]) -> Sequence[Any]:
        site = self.sites.get(equation.path)
        if site is None:
            return self.compute(equation, values)
        if site.operand is None:
            first, *others = self.compute(equation, values)
            return [self.fire(site, first, f"{_key(equation.path)}>"), *others]
        values = list(values)
        values[site.operand] = self.fire(site, values[site.operand], f"{_key(equation.path)}<")
        return self.compute(equation, values)

    def compute(self, equation: Equation, values: list[Any]) -> Sequence[Any]:
        """Results of an equation that is no site."""
        called = jaxpr.called(equation)
        if called is not None:
            return self.walk(called, values, equation.path, equation.name)
        moving = [isinstance(value, Moving) for value in values]
        if not any(moving):
            return self.bind(equation, values)
        if equation.primitive == "scan" and _can_be_cut(equation, moving):
            return self.scan(equation, values)
        only_sums = all(value.share is None for value in values if isinstance(value, Moving))
        if not is_linear(equation, moving) or only_sums and equation.primitive not in PRODUCTS:
            return self.whole(equation, values)
        return self.linear(equation, values)

    def linear(self, equation: Equation, values: list[Any]) -> list[Moving]:
        """Shares of the results of a linear equation, from those of its operands."""
        added = addends(equation)
        operands = [
            self.share(value) if isinstance(value, Moving)
            else self.once(value) if place in added and _adds_up(value) else value
            for place, value in enumerate(values)
        ]
        ready = _latest(values)
        return [Moving(key, ready, share=result)
                for key, result in _keyed(equation, equation.bind(operands))]

    def whole(self, equation: Equation, values: list[Any]) -> list[Moving]:
        """Results of any equation, from the sums of its operands."""
        operands = [self.sum(value) if isinstance(value, Moving) else value for value in values]
        ready = _latest(values)
        return [Moving(key, ready, sum=result)
                for key, result in _keyed(equation, self.bind(equation, operands))]

    def bind(self, equation: Equation, operands: list[Array]) -> Sequence[Array]:
        """Runs an equation on counts, with the sites inside it."""
        if not any(threaded.holds(equation.path, place) for place in self.rules):
            return equation.bind(operands)
        return threaded.run_control(equation, operands, self.rules, self.feeds)[0]

    # Numbers in time

    def share(self, value: Moving) -> Array:
        """What a number gains in this step."""
        if value.share is None:
            assert value.sum is not None
            if self.mode == "layerwise":
                value.share = jnp.where(self.time == value.ready, value.sum, 0)
            else:
                before = self.remember(f"{value.key} before", value.sum, value.sum.dtype)
                value.share = value.sum - before
        return value.share

    def sum(self, value: Moving) -> Array:
        """What a number has come to."""
        if value.sum is None:
            assert value.share is not None
            wide = trains.wide_type(value.share.dtype)
            before = self.recall(value.key, value.share, wide)
            total = self.after[value.key] = before + value.share.astype(wide)
            value.sum = total.astype(value.share.dtype)
        return value.sum

    def once(self, value: Any) -> Array:
        """A number that does not move, as a share: all of it in the first step."""
        return jnp.where(self.time == 0, value, jnp.zeros_like(value))

    def recall(self, key: str, like: Array, dtype: Any) -> Array:
        """What the state holds; zeros before the first step."""
        return jnp.zeros(like.shape, dtype) if self.state is None else self.state[key]

    def remember(self, key: str, value: Array, dtype: Any) -> Array:
        """Puts a value into the state and gives back the one before."""
        self.after[key] = value.astype(dtype)
        return self.recall(key, value, dtype)

    def fire(self, site: Site, value: Moving, key: str) -> Moving:
        """The spikes of a site, each worth its threshold."""
        total = self.sum(value)
        encoded = self.method.encode(site, self.feeds.get(site.path, {}), total)
        counts = lax.stop_gradient(encoded.counts)
        if self.mode == "layerwise":
            planes = trains.num_planes(self.coding, self.method.num_steps)
            spikes = trains.plane(counts, self.coding, planes, self.time - value.ready)
            ready = value.ready + planes - 1
        else:
            fired = self.recall(key, counts, counts.dtype)
            spikes = jnp.clip(counts - fired, -1, 1)
            self.after[key] = fired + spikes
            ready = value.ready + trains.longest_change(self.method, site) - 1
        return Moving(f"{key} fired", ready, share=(spikes * encoded.threshold).astype(total.dtype))

    # Loops

    def scan(self, equation: Equation, values: list[Any]) -> list[Any]:
        """A scan in whose every turn the step goes on: each turn has a state of its own."""
        params, path = equation.params, equation.path
        num_consts, num_carry = params["num_consts"], params["num_carry"]
        moves = _settled(equation, [isinstance(value, Moving) for value in values])
        values = [
            value if isinstance(value, Moving) or not move
            else Moving("", 0, share=self.once(value))
            for value, move in zip(values, moves, strict=True)
        ]
        shares = [self._border(value) for value in values]
        consts, carry, inputs = jaxpr.split(shares, num_consts, num_carry)
        fed = {at: feed for at, feed in self.feeds.items() if threaded.holds(path, at)}
        key = f"{_key(path)} loop"
        state = None if self.state is None else self.state[key]
        lead = [ready for _, ready in inputs]

        def turn(carry, given):
            rows, feeds, state = given
            inside = Stepper(self.mode, self.method, self.coding, self.sites, self.rules, feeds,
                             state, self.time)
            rows = [(row, ready) for row, ready in zip(rows, lead, strict=True)]
            arguments = [
                share if ready is None else Moving(f"{_key(path)}.in{place}", ready, share=share)
                for place, (share, ready) in enumerate([*consts, *carry, *rows])
            ]
            results = inside.walk(params["jaxpr"], arguments, path, equation.name)
            moved = [*moves[num_consts:num_consts + num_carry],
                     *[isinstance(result, Moving) for result in results[num_carry:]]]
            bordered = [
                inside._border(result if isinstance(result, Moving) or not move
                               else Moving("", 0, share=inside.once(result)))
                for result, move in zip(results, moved, strict=True)
            ]
            return bordered[:num_carry], (bordered[num_carry:], inside.after)

        carry, (rows, self.after[key]) = lax.scan(
            turn, carry, ([share for share, _ in inputs], fed, state), params["length"],
            params["reverse"], params["unroll"],
        )
        results = [*carry, *((row, None if ready is None else jnp.max(ready, initial=0))
                             for row, ready in rows)]
        return [
            share if ready is None else Moving(place, ready, share=share)
            for place, (share, ready) in _keyed(equation, results)
        ]

    def _border(self, value: Any) -> tuple[Array, Any]:
        """A value as it crosses the border of a loop: its share and when it is ready, or itself."""
        if isinstance(value, Moving):
            return self.share(value), jnp.asarray(value.ready, jnp.int32)
        return value, None


def _settled(equation: Equation, moving: Sequence[bool]) -> list[bool]:
    """Which operands of a scan move, those of its carry after any number of turns."""
    num_consts, num_carry = equation.params["num_consts"], equation.params["num_carry"]
    moving = list(moving)
    while True:
        outputs = jaxpr.walk(
            equation.params["jaxpr"], moving, lambda eqn, flags: [any(flags)] * len(eqn.outputs),
            constant=lambda value: False,
        )
        after = list(moving)
        for place in range(num_carry):
            after[num_consts + place] |= outputs[place]
        if after == moving:
            return moving
        moving = after


def _can_be_cut(equation: Equation, moving: Sequence[bool]) -> bool:
    """True where everything that moves across the border of a scan is a number that adds up."""
    num_carry = equation.params["num_carry"]
    moves = _settled(equation, moving)
    avals = [aval for aval, move in zip(equation.inputs, moves, strict=True) if move]
    return all(jnp.issubdtype(aval.dtype, jnp.floating)
               for aval in (*avals, *equation.outputs[num_carry:]))


def _adds_up(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _latest(values: Sequence[Any]) -> Any:
    ready = [value.ready for value in values if isinstance(value, Moving)]
    if all(isinstance(each, int) for each in ready):
        return max(ready)
    latest = jnp.asarray(ready[0], jnp.int32)
    for each in ready[1:]:
        latest = jnp.maximum(latest, each)
    return latest


def _key(path: Path) -> str:
    return ".".join(map(str, path))


def _keyed(equation: Equation, results: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{_key(equation.path)}.{number}", result) for number, result in enumerate(results)]
