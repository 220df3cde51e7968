"""Follows the values of a program: where from, functions of what, read by whom.

The walk is over `Signal`, one for each value, without running anything. What it meets on the way is
kept: elementwise results made of data, and products with a parameter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastsnn_jax import jaxpr
from fastsnn_jax.conversion import activations, features, folding
from fastsnn_jax.conversion.linear import is_linear
from fastsnn_jax.conversion.signs import is_nonnegative
from fastsnn_jax.energy.origins import CONSTANT, PARAMETER, held, origin, picked, weight_side
from fastsnn_jax.energy.products import PRODUCTS, Side, sides
from fastsnn_jax.jaxpr import Equation, Path

ROOTS = 24  # inputs a value is known as a function of: no activation is written in more operations

_VIEWS = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "expand_dims", "copy")
_CLOSED_LOOPS = {
    "while": "inside a while loop, whose turns are not known beforehand; write it as a scan",
    "shard_map": "inside a shard_map; convert the function first and shard the result",
}


@dataclass(eq=False)
class Signal:
    """What is known of a value: where it comes from, what it is a function of, who uses it."""

    origin: int
    number: Any = None
    nonnegative: bool = False
    features: int | None = None
    binary: bool = False  # false and true as numbers: spikes already
    folded: tuple[str, ...] = ()  # what the product that made it took up
    unary: dict["Root", np.ndarray] = field(default_factory=dict)
    operands: Sequence["Signal"] = ()
    uses: list["Use"] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.moves:
            self.unary[Root(self)] = activations.PROBES

    @property
    def moves(self) -> bool:
        return self.origin > PARAMETER

    def is_of(self, signal: "Signal | None") -> bool:
        """Whether it is known as a function of that value."""
        return any(root.signal is signal for root in self.unary)

    def passed_on(self, origin: int, nonnegative: bool = False) -> "Signal":
        """The same value beyond a border, with all who use it there."""
        other = Signal(origin, nonnegative=nonnegative)
        self.uses.append(Use(None, [other], linear=True))
        return other


class Root(NamedTuple):
    """A value that others are a function of, element by element.

    Attributes:
      signal: the value.
      axes: of it, in the order of theirs; empty where the order is the same.
    """

    signal: Signal
    axes: tuple[int, ...] = ()

    def transposed(self, order: Sequence[int]) -> "Root":
        """The same for a value whose axes are turned to ``order``."""
        axes = tuple(self.axes[axis] if self.axes else axis for axis in order)
        return Root(self.signal, () if axes == tuple(range(len(axes))) else axes)


@dataclass(eq=False)
class Use:
    """An equation that reads a value; none where the value only crosses a border."""

    equation: Equation | None
    outputs: list[Signal]
    linear: bool
    curve: bool = False  # a nonlinear function of this value alone
    weighted: bool = False  # a product with a parameter


@dataclass
class Place:
    """A site before it has a name."""

    equation: Equation
    kind: str
    aval: Any
    loops: tuple[int, ...]
    reason: str | None
    operand: int | None = None
    nonnegative: bool = False
    channels: tuple[int, ...] = ()  # where known: those a product sums over, or made
    partners: tuple[int, ...] = ()  # axes of the weight that meet them
    side: Side | None = None  # the operand of a product, with the fan-outs of its elements
    folded: tuple[str, ...] = ()  # what its product, or the one before it, took up


@dataclass
class Result:
    """The result of an elementwise equation on data."""

    place: Place
    signal: Signal
    linear: bool
    root: Signal | None = None  # of what it is an activation

    def inside(self) -> set[Signal]:
        """The values on the way from the root to the result, the root apart."""
        met, open_ = {self.signal}, [self.signal]
        while open_:
            for operand in open_.pop().operands:
                if operand not in met and operand is not self.root and operand.is_of(self.root):
                    met.add(operand)
                    open_.append(operand)
        return met


class Finder:
    """Walks a program on signals."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.synapses: list[Place] = []
        self.loops: tuple[int, ...] = ()
        self.reason: str | None = None
        self.folded: tuple[str, ...] = ()

    def program(self, closed: Any, origins: Sequence[int]) -> None:
        """Walks a whole program whose arguments have the given origins."""
        self.walk(closed, [Signal(origin) for origin in origins], (), "")

    def walk(self, closed: Any, signals: Sequence[Signal], path: Path, name: str) -> list[Signal]:
        """Signals of a jaxpr's outputs."""
        def constant(value: Any) -> Signal:
            known = held(value)
            positive = isinstance(known.number, (bool, int, float)) and known.number >= 0
            return Signal(known.origin, known.number, positive)

        return jaxpr.walk(closed, signals, self.visit, constant=constant, path=path, name=name)

    def visit(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        """Signals of what any equation gives."""
        called = jaxpr.called(equation)
        if called is not None:
            around, self.folded = self.folded, self.folded or folding.operations(equation)
            outputs = self.walk(called, signals, equation.path, equation.name)
            self.folded = around
            return outputs
        control = getattr(self, f"_{equation.primitive}", None)
        if control is not None:
            return control(equation, signals)
        if equation.primitive in PRODUCTS:
            self.product(equation, signals)
        return self.compute(equation, signals)

    def compute(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        """Signals of what an ordinary equation gives, recorded with those who are read."""
        where = origin(equation, [signal.origin for signal in signals])
        positive = is_nonnegative(equation, [signal.nonnegative for signal in signals])
        elementwise = activations.is_elementwise(equation.primitive)
        axis = self.channel_axis(equation, signals, elementwise)
        binary = equation.primitive in _VIEWS and signals[0].binary or (
            equation.primitive == "convert_element_type" and equation.inputs[0].dtype == bool
        )
        folded = self.folded
        if elementwise or equation.primitive in _VIEWS:
            folded = folded or next((each.folded for each in signals if each.folded), ())
        results = [Signal(where, None, positive, axis, binary, folded, operands=signals)
                   for _ in equation.outputs]
        moving = [signal.moves for signal in signals]
        sources = {signal for signal in signals if signal.moves}
        self.follow(equation, signals, results[0])
        use = Use(
            equation, results, is_linear(equation, moving) if any(moving) else True,
            elementwise and len(sources) == 1,
            equation.primitive in PRODUCTS and PARAMETER in [s.origin for s in signals],
        )
        for source in sources:
            source.uses.append(use)
        if sources and elementwise and _is_analog(equation):
            place = self.place(equation, equation.primitive, equation.outputs[0], None)
            place.nonnegative, place.channels = positive, () if axis is None else (axis,)
            place.folded = folded
            self.results.append(Result(place, results[0], use.linear))
        return results

    def channel_axis(
        self, equation: Equation, signals: list[Signal], elementwise: bool
    ) -> int | None:
        """The axis of the result's channels, where one is known."""
        if equation.primitive in PRODUCTS:
            weight = weight_side(*(signal.origin for signal in signals))
            return None if weight is None else features.of_product(equation, weight)
        axes = [signal.features for signal in signals]
        return features.passed_on(equation, axes, elementwise)

    def follow(self, equation: Equation, signals: list[Signal], result: Signal) -> None:
        """What the result is a function of; its number where all operands are numbers."""
        if equation.primitive in _VIEWS:
            result.number = signals[0].number
            if equation.primitive == "transpose":
                order = equation.params["permutation"]
                known = {root.transposed(order): each for root, each in signals[0].unary.items()}
                result.unary = known | result.unary
            return
        if all(signal.number is not None for signal in signals):
            values = activations.at_probes(equation, [signal.number for signal in signals])
            result.number = None if values is None or values.ndim else values.item()
            return
        moving = [signal for signal in signals if signal.moves]
        if any(not s.moves and s.number is None for s in signals) or not moving:
            return
        shared = [root for root in moving[0].unary if all(root in s.unary for s in moving)]
        for root in shared[-ROOTS:]:
            operands = [s.unary[root] if s.moves else s.number for s in signals]
            values = activations.at_probes(equation, operands)
            if values is not None:
                result.unary[root] = values
        result.unary[Root(result)] = result.unary.pop(Root(result))  # itself comes last

    def place(self, equation: Equation, kind: str, aval: Any, operand: int | None) -> Place:
        """A place in the loops that the walk is in."""
        return Place(equation, kind, aval, self.loops, self.reason, operand)

    def product(self, equation: Equation, signals: list[Signal]) -> None:
        """Records the data side of a product with a parameter, unless it is spikes already."""
        weight = weight_side(*(signal.origin for signal in signals))
        if weight is None or not signals[1 - weight].moves or signals[1 - weight].binary:
            return
        data = 1 - weight
        place = self.place(equation, equation.primitive, equation.inputs[data], data)
        place.nonnegative, place.side = signals[data].nonnegative, sides(equation)[data]
        place.folded = self.folded
        numbers = equation.params["dimension_numbers"]
        if equation.primitive == "dot_general":
            pairs = sorted(zip(numbers[0][data], numbers[0][weight], strict=True))
            place.channels = tuple(ours for ours, _ in pairs)
            place.partners = tuple(theirs for _, theirs in pairs)
        else:
            place.channels, place.partners = (numbers[0][1],), (numbers[1][1],)
            if data == 1 and place.reason is None:
                place.reason = "the kernel of a convolution is data"
        if not jnp.issubdtype(place.aval.dtype, jnp.floating) and place.reason is None:
            place.reason = f"{place.aval.dtype} numbers are no analog signal"
        self.synapses.append(place)

    # Control flow

    def _scan(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        params, num_carry = equation.params, equation.params["num_carry"]
        consts, carry, inputs = jaxpr.split(signals, params["num_consts"], num_carry)
        origins = self.settled(params["jaxpr"], consts, carry, inputs)
        turns = [before.passed_on(each) for before, each in zip(carry, origins, strict=True)]
        rows = [signal.passed_on(signal.origin, signal.nonnegative) for signal in inputs]
        around, self.loops = self.loops, (*self.loops, params["length"])
        outputs = self.walk(params["jaxpr"], [*consts, *turns, *rows], equation.path, equation.name)
        self.loops = around
        for output, turn in zip(outputs, turns, strict=False):
            output.uses.append(Use(None, [turn], linear=True))
        return [output.passed_on(max(output.origin, each)) for output, each in
                zip(outputs, [*origins, *[CONSTANT] * (len(outputs) - num_carry)], strict=True)]

    def _while(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        params = equation.params
        first, second, carry = jaxpr.split(
            signals, params["cond_nconsts"], params["body_nconsts"]
        )
        origins = self.settled(params["body_jaxpr"], second, carry, [])
        turns = [before.passed_on(each) for before, each in zip(carry, origins, strict=True)]
        with self.closed("while"):
            self.walk(params["cond_jaxpr"], [*first, *turns], (*equation.path, 0), equation.name)
            outputs = self.walk(params["body_jaxpr"], [*second, *turns], (*equation.path, 1),
                                equation.name)
        return [output.passed_on(each) for output, each in zip(outputs, origins, strict=True)]

    def _cond(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        index, *operands = signals
        branches = [
            self.walk(branch, [signal.passed_on(signal.origin, signal.nonnegative)
                               for signal in operands],
                      (*equation.path, number), equation.name)
            for number, branch in enumerate(equation.params["branches"])
        ]
        results = []
        for outputs in zip(*branches, strict=True):
            where = picked(max(output.origin for output in outputs), index.origin)
            result = Signal(where, nonnegative=all(output.nonnegative for output in outputs))
            for output in outputs:
                output.uses.append(Use(None, [result], linear=True))
            results.append(result)
        return results

    def _shard_map(self, equation: Equation, signals: list[Signal]) -> list[Signal]:
        with self.closed("shard_map"):
            outputs = self.walk(
                jaxpr.closed_jaxpr(equation.params["jaxpr"]),
                [signal.passed_on(signal.origin) for signal in signals], equation.path,
                equation.name,
            )
        return [output.passed_on(output.origin) for output in outputs]

    def settled(self, body: Any, consts, carry, inputs) -> list[int]:
        """Origins of a loop's carry that another turn does not raise."""
        origins = [signal.origin for signal in carry]
        fixed = [signal.origin for signal in consts], [signal.origin for signal in inputs]
        while True:
            start = [Signal(each) for each in (*fixed[0], *origins, *fixed[1])]
            outputs = Finder().walk(body, start, (), "")
            raised = [max(old, new.origin) for old, new in zip(origins, outputs, strict=False)]
            if raised == origins:
                return origins
            origins = raised

    @contextmanager
    def closed(self, primitive: str) -> Iterator[None]:
        """Marks everything found inside as not to be converted."""
        around, self.reason = self.reason, self.reason or _CLOSED_LOOPS[primitive]
        yield
        self.reason = around


def _is_analog(equation: Equation) -> bool:
    """True where real numbers are made of real numbers."""
    return jnp.issubdtype(equation.outputs[0].dtype, jnp.floating) and any(
        jnp.issubdtype(aval.dtype, jnp.floating) for aval in equation.inputs
    )
