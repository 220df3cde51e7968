"""Finds the places of a program where spikes can stand for numbers.

    sites="activations"   results of activation functions, see ``activations``
    sites="synapses"      the data side of every product with a parameter

What is a parameter and what is data is decided by dataflow, as the energy accountant does; what is
an activation by its values. An activation that only feeds another function of its own result, as
the relu that keeps a variance from falling below 0 does, is part of that function and no site.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from fastsnn_jax import jaxpr
from fastsnn_jax.conversion import activations
from fastsnn_jax.conversion.linear import is_linear
from fastsnn_jax.energy.op_rules import is_elementwise
from fastsnn_jax.energy.origins import CONSTANT, PARAMETER, held, origin, picked, weight_side
from fastsnn_jax.energy.products import PRODUCTS
from fastsnn_jax.jaxpr import Equation, Path

KINDS = ("activations", "synapses")
ROOTS = 24  # inputs a value is known as a function of: no activation is written in more operations

_SUMS = ("reduce_sum", "cumsum", "reduce_window_sum", *PRODUCTS)
_VIEWS = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "expand_dims", "copy")
_CLOSED_LOOPS = {
    "while": "inside a while loop, whose turns are not known beforehand; write it as a scan",
    "shard_map": "inside a shard_map; convert the function first and shard the result",
}


@dataclass(frozen=True)
class Site:
    """One place of a program.

    Attributes:
      name: the name scopes it stands in and its kind; ``site0:relu`` where there are none.
      kind: the activation, "dot_general" or "conv_general_dilated"; of what is not understood the
        primitive.
      shape: of the value, of one run.
      loops: lengths of the scans it stands in, outermost first; it has a threshold for each turn.
      converted: whether spikes carry it.
      reason: why not; None where they do.
      path: place of its equation, see ``jaxpr.Path``.
      operand: which operand of the equation it is; None for the result.
      channels: the axes of its channels.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    loops: tuple[int, ...]
    converted: bool
    reason: str | None
    path: Path
    operand: int | None
    channels: tuple[int, ...]

    @property
    def nonnegative(self) -> bool:
        """True where the value is known never to be negative."""
        return self.operand is None and self.kind in activations.NONNEGATIVE


def find(closed: Any, origins: Sequence[int], kind: str) -> tuple[Site, ...]:
    """Sites of a program whose arguments have the given origins, in its order, named."""
    finder = _Finder()
    finder.program(closed, origins)
    found = finder.synapses if kind == "synapses" else [*_activations(finder)]
    return _named(sorted(found, key=lambda place: place.equation.path))


@dataclass(eq=False)
class _Signal:
    """What is known of a value: where it comes from, what it is a function of, who uses it."""

    origin: int
    number: Any = None
    unary: dict["_Signal", np.ndarray] = field(default_factory=dict)
    operands: Sequence["_Signal"] = ()
    uses: list["_Use"] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.moves:
            self.unary[self] = activations.PROBES

    @property
    def moves(self) -> bool:
        return self.origin > PARAMETER

    def passed_on(self, origin: int) -> "_Signal":
        """The same value beyond a border, with all who use it there."""
        other = _Signal(origin)
        self.uses.append(_Use(None, [other], linear=True))
        return other


@dataclass(eq=False)
class _Use:
    """An equation that reads a value; none where the value only crosses a border."""

    equation: Equation | None
    outputs: list[_Signal]
    linear: bool
    curve: bool = False  # a nonlinear function of this value alone
    weighted: bool = False  # a product with a parameter


@dataclass
class _Place:
    """A site before it has a name."""

    equation: Equation
    kind: str
    aval: Any
    channels: tuple[int, ...]
    loops: tuple[int, ...]
    reason: str | None
    operand: int | None = None


@dataclass
class _Result:
    """The result of an elementwise equation on data."""

    place: _Place
    signal: _Signal
    linear: bool
    root: _Signal | None = None  # of what it is an activation

    def inside(self) -> set[_Signal]:
        """The values on the way from the root to the result, the root apart."""
        met, open_ = {self.signal}, [self.signal]
        while open_:
            for operand in open_.pop().operands:
                if operand not in met and operand is not self.root and self.root in operand.unary:
                    met.add(operand)
                    open_.append(operand)
        return met


class _Finder:
    """Walks a program on signals."""

    def __init__(self) -> None:
        self.results: list[_Result] = []
        self.synapses: list[_Place] = []
        self.loops: tuple[int, ...] = ()
        self.reason: str | None = None

    def program(self, closed: Any, origins: Sequence[int]) -> None:
        self.walk(closed, [_Signal(origin) for origin in origins], (), "")

    def walk(self, closed: Any, signals: Sequence[_Signal], path: Path, name: str) -> list[_Signal]:
        def constant(value: Any) -> _Signal:
            known = held(value)
            return _Signal(known.origin, known.number)

        return jaxpr.walk(closed, signals, self.visit, constant=constant, path=path, name=name)

    def visit(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
        called = jaxpr.called(equation)
        if called is not None:
            return self.walk(called, signals, equation.path, equation.name)
        control = getattr(self, f"_{equation.primitive}", None)
        if control is not None:
            return control(equation, signals)
        if equation.primitive in PRODUCTS:
            self.product(equation, signals)
        return self.compute(equation, signals)

    def compute(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
        """Signals of what an ordinary equation gives, recorded with those who are read."""
        where = origin(equation, [signal.origin for signal in signals])
        results = [_Signal(where, operands=signals) for _ in equation.outputs]
        moving = [signal.moves for signal in signals]
        sources = {signal for signal in signals if signal.moves}
        self.follow(equation, signals, results[0])
        elementwise = is_elementwise(equation.primitive)
        use = _Use(
            equation, results, is_linear(equation, moving) if any(moving) else True,
            elementwise and len(sources) == 1,
            equation.primitive in PRODUCTS and PARAMETER in [s.origin for s in signals],
        )
        for source in sources:
            source.uses.append(use)
        floating = jnp.issubdtype(equation.outputs[0].dtype, jnp.floating)
        if sources and elementwise and floating:
            place = self.place(equation, equation.primitive, equation.outputs[0], None)
            self.results.append(_Result(place, results[0], use.linear))
        return results

    def follow(self, equation: Equation, signals: list[_Signal], result: _Signal) -> None:
        """What the result is a function of; its number where all operands are numbers."""
        if equation.primitive in _VIEWS:
            result.number = signals[0].number
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
        result.unary[result] = result.unary.pop(result)  # itself comes last

    def place(self, equation: Equation, kind: str, aval: Any, operand: int | None) -> _Place:
        channels = (len(aval.shape) - 1,) if aval.shape else ()
        return _Place(equation, kind, aval, channels, self.loops, self.reason, operand)

    def product(self, equation: Equation, signals: list[_Signal]) -> None:
        """Records the data side of a product with a parameter."""
        weight = weight_side(*(signal.origin for signal in signals))
        if weight is None or not signals[1 - weight].moves:
            return
        data = 1 - weight
        place = self.place(equation, equation.primitive, equation.inputs[data], data)
        numbers = equation.params["dimension_numbers"]
        if equation.primitive == "dot_general":
            place.channels = tuple(numbers[0][data])
        else:
            place.channels = (numbers[0][1],)
            if data == 1 and place.reason is None:
                place.reason = "the kernel of a convolution is data"
        if not jnp.issubdtype(place.aval.dtype, jnp.floating) and place.reason is None:
            place.reason = f"{place.aval.dtype} numbers are no analog signal"
        self.synapses.append(place)

    # Control flow

    def _scan(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
        params, num_carry = equation.params, equation.params["num_carry"]
        consts, carry, inputs = jaxpr.split(signals, params["num_consts"], num_carry)
        origins = self.settled(params["jaxpr"], consts, carry, inputs)
        turns = [before.passed_on(each) for before, each in zip(carry, origins, strict=True)]
        rows = [signal.passed_on(signal.origin) for signal in inputs]
        around, self.loops = self.loops, (*self.loops, params["length"])
        outputs = self.walk(params["jaxpr"], [*consts, *turns, *rows], equation.path, equation.name)
        self.loops = around
        for output, turn in zip(outputs, turns, strict=False):
            output.uses.append(_Use(None, [turn], linear=True))
        return [output.passed_on(max(output.origin, each)) for output, each in
                zip(outputs, [*origins, *[CONSTANT] * (len(outputs) - num_carry)], strict=True)]

    def _while(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
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

    def _cond(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
        index, *operands = signals
        branches = [
            self.walk(branch, [signal.passed_on(signal.origin) for signal in operands],
                      (*equation.path, number), equation.name)
            for number, branch in enumerate(equation.params["branches"])
        ]
        results = []
        for outputs in zip(*branches, strict=True):
            where = picked(max(output.origin for output in outputs), index.origin)
            result = _Signal(where)
            for output in outputs:
                output.uses.append(_Use(None, [result], linear=True))
            results.append(result)
        return results

    def _shard_map(self, equation: Equation, signals: list[_Signal]) -> list[_Signal]:
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
            start = [_Signal(each) for each in (*fixed[0], *origins, *fixed[1])]
            outputs = _Finder().walk(body, start, (), "")
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


def _activations(finder: _Finder) -> Iterator[_Place]:
    """The activations among the results, and what stands in their place and is not understood."""
    found: dict[_Signal, _Result] = {}
    for result in finder.results:
        if _is_copy(result.signal):
            continue
        for root, values in result.signal.unary.items():
            kind = None if root is result.signal else activations.recognise(values)
            if kind is not None:
                result.root, result.place.kind = root, kind
                found[result.signal] = result
                break
    around: dict[_Signal, list[set[_Signal]]] = {}
    for result in found.values():
        inside = result.inside()
        for signal in inside - {result.signal}:
            around.setdefault(signal, []).append(inside)
    hidden = {signal for signal, wholes in around.items() if any(
        all(output in whole for use in signal.uses for output in use.outputs) for whole in wholes
    )}
    for result in finder.results:
        signal = result.signal
        if signal in hidden:
            continue
        if signal in found and not _only_bent(signal):
            yield result.place
        elif signal not in around and _is_unknown(result) and _reaches_weight(signal):
            result.place.reason = result.place.reason or (
                f"{result.place.equation.primitive} ends no activation that is known"
            )
            yield result.place


def _is_copy(signal: _Signal) -> bool:
    return any(activations.is_identity(values) for root, values in signal.unary.items()
               if root is not signal)


def _only_bent(signal: _Signal) -> bool:
    """True where all that is made of a value is another nonlinear function of it alone."""
    def passes(use: _Use) -> bool:
        return use.linear and (use.equation is None or use.equation.primitive not in _SUMS)

    ends = [use for reached in _reached(signal, passes) for use in reached.uses if not passes(use)]
    return bool(ends) and all(use.curve and not use.linear for use in ends)


def _is_unknown(result: _Result) -> bool:
    """True of a nonlinear result, unless it is a product or quotient of different data."""
    bent = [not activations.is_affine(values) for root, values in result.signal.unary.items()
            if root is not result.signal]
    if bent:
        return any(bent)
    return not result.linear and result.place.equation.primitive not in ("mul", "div")


def _reaches_weight(signal: _Signal) -> bool:
    """True where a value comes to a product with a parameter by linear operations alone."""
    return any(use.weighted and use.linear
               for reached in _reached(signal, lambda use: use.linear) for use in reached.uses)


def _reached(signal: _Signal, passes: Callable[[_Use], bool]) -> set[_Signal]:
    """All that is made of a value by the uses that pass it on, itself included."""
    met, open_ = {signal}, [signal]
    while open_:
        fresh = {output for use in open_.pop().uses if passes(use) for output in use.outputs} - met
        met |= fresh
        open_ += fresh
    return met


def _named(places: Sequence[_Place]) -> tuple[Site, ...]:
    taken: dict[str, int] = {}
    found = []
    for number, place in enumerate(places):
        scope = place.equation.name
        name = f"{scope}/{place.kind}" if scope else f"site{number}:{place.kind}"
        again = taken.get(name, 0)
        taken[name] = again + 1
        found.append(Site(
            f"{name}_{again}" if again else name, place.kind, tuple(place.aval.shape), place.loops,
            place.reason is None, place.reason, place.equation.path, place.operand, place.channels,
        ))
    return tuple(found)
