"""Finds the places of a program where spikes can stand for numbers.

    sites="activations"   results of activation functions, see ``activations``
    sites="synapses"      the data side of every product with a parameter

What is a parameter and what is data is decided by dataflow, as the energy accountant does; what is
an activation by its values. An activation that only feeds another function of its own result, as
the relu that keeps a variance from falling below 0 does, is part of that function and no site.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastsnn_jax.conversion import activations
from fastsnn_jax.conversion.dataflow import Finder, Place, Result, Signal, Use
from fastsnn_jax.energy.products import PRODUCTS, Side
from fastsnn_jax.jaxpr import Path

KINDS = ("activations", "synapses")

_SUMS = ("reduce_sum", "cumsum", "reduce_window_sum", *PRODUCTS)


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
      batch: the axis of the samples, alone or merged with others; None where there is none.
      channels: the axes of its channels: those the product sums over; of an activation the one
        that the product before it made, else the last beside ``batch``.
      partners: the axes of the weight that meet them, of a product.
      nonnegative: whether the value is known never to be negative.
      side: of a product, how many multiply-adds each element enters.
      folded: operations that its product took up, of an activation the one before it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    loops: tuple[int, ...]
    converted: bool
    reason: str | None
    path: Path
    operand: int | None
    batch: int | None
    channels: tuple[int, ...]
    partners: tuple[int, ...]
    nonnegative: bool
    side: Side | None = field(repr=False, compare=False)
    folded: tuple[str, ...]

    @property
    def samples_first(self) -> tuple[int, ...]:
        """Its axes, that of the samples first."""
        others = tuple(axis for axis in range(len(self.shape)) if axis != self.batch)
        return others if self.batch is None else (self.batch, *others)


def find(closed: Any, doubled: Any, origins: Sequence[int], kind: str) -> tuple[Site, ...]:
    """Sites of a program in its order, named.

    Args:
      closed: its jaxpr.
      doubled: that of the same program for twice the samples, which shows where they are; None
        where there is none.
      origins: of its arguments.
      kind: one of `KINDS`.
    """
    found = _places(closed, origins, kind)
    others = found if doubled is None else _places(doubled, origins, kind)
    paths, theirs = ([place.equation.path for place in each] for each in (found, others))
    known = doubled is not None and paths == theirs
    return _named([
        (place, _batch(place.aval.shape, other.aval.shape) if known else _first(place.aval.shape))
        for place, other in zip(found, others if known else found, strict=True)
    ])


def _places(closed: Any, origins: Sequence[int], kind: str) -> list[Place]:
    finder = Finder()
    finder.program(closed, origins)
    found = finder.synapses if kind == "synapses" else [*_activations(finder)]
    return sorted(found, key=lambda place: place.equation.path)


def _batch(shape: tuple[int, ...], doubled: tuple[int, ...]) -> int | None:
    """The axis that is twice as long with twice the samples."""
    grown = [axis for axis, sizes in enumerate(zip(shape, doubled, strict=False))
             if sizes[0] != sizes[1]]
    return grown[0] if len(grown) == 1 else None


def _activations(finder: Finder) -> Iterator[Place]:
    """The activations among the results, and what stands in their place and is not understood."""
    found: dict[Signal, Result] = {}
    for result in finder.results:
        if _is_copy(result.signal):
            continue
        for root, values in result.signal.unary.items():
            kind = None if root.signal is result.signal else activations.recognise(values)
            if kind is not None:
                result.root, result.place.kind = root.signal, kind
                result.place.nonnegative |= kind in activations.NONNEGATIVE
                found[result.signal] = result
                break
    around: dict[Signal, list[set[Signal]]] = {}
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


def _is_copy(signal: Signal) -> bool:
    return any(activations.is_identity(values) for root, values in signal.unary.items()
               if root.signal is not signal)


def _only_bent(signal: Signal) -> bool:
    """True where all that is made of a value is another nonlinear function of it alone."""
    def passes(use: Use) -> bool:
        return use.linear and (use.equation is None or use.equation.primitive not in _SUMS)

    ends = [use for reached in _reached(signal, passes) for use in reached.uses if not passes(use)]
    return bool(ends) and all(use.curve and not use.linear for use in ends)


def _is_unknown(result: Result) -> bool:
    """True of a nonlinear result, unless it is a product or quotient of different data."""
    if result.linear:
        return False
    bent = [not activations.is_affine(values) for root, values in result.signal.unary.items()
            if root.signal is not result.signal]
    return any(bent) if bent else result.place.equation.primitive not in ("mul", "div")


def _reaches_weight(signal: Signal) -> bool:
    """True where a value comes to a product with a parameter by linear operations alone."""
    return any(use.weighted and use.linear
               for reached in _reached(signal, lambda use: use.linear) for use in reached.uses)


def _reached(signal: Signal, passes: Callable[[Use], bool]) -> set[Signal]:
    """All that is made of a value by the uses that pass it on, itself included."""
    met, open_ = {signal}, [signal]
    while open_:
        fresh = {output for use in open_.pop().uses if passes(use) for output in use.outputs} - met
        met |= fresh
        open_ += fresh
    return met


def _first(shape: tuple[int, ...]) -> int | None:
    return 0 if len(shape) > 1 else None


def _named(places: Sequence[tuple[Place, int | None]]) -> tuple[Site, ...]:
    taken: dict[str, int] = {}
    found = []
    for number, (place, batch) in enumerate(places):
        scope, shape = _scope(place.equation.name), tuple(place.aval.shape)
        name = f"{scope}/{place.kind}" if scope else f"site{number}:{place.kind}"
        again = taken.get(name, 0)
        taken[name] = again + 1
        features = [axis for axis in range(len(shape)) if axis != batch]
        found.append(Site(
            f"{name}_{again}" if again else name, place.kind, shape, place.loops,
            place.reason is None, place.reason, place.equation.path, place.operand, batch,
            place.channels or tuple(features[-1:]), place.partners, place.nonnegative,
            place.side, place.folded,
        ))
    return tuple(found)


def _scope(name: str) -> str:
    """The scopes of modules; those of their methods, ``block.attend``, say it once more."""
    return "/".join(part for part in name.split("/") if "." not in part)
