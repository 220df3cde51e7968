"""The accountant: runs any JAX function once and says what work that run was.

    output, counts = count(function)(*args)

The function's jaxpr is interpreted under jit. What follows from shapes (operations, multiply-adds)
is counted on the host in Python integers; what follows from values (zeros, trips of a while, the
branch a cond takes) is measured on the device while it runs. So work inside a loop is counted as
often as it was done. vmap, grad and whole train steps are functions like any other; code whose
result nobody reads is not run and not counted.

At each product the accountant asks which operand is a *weight*: one computed from parameters, and
constants, alone, however they were transposed, masked, scaled or quantised, or one picked from such
by data, as an expert's kernel. The other operand is the data side, whose zeros and units (-1, 0, 1)
are counted. Parameters are the arguments said to be, and arrays the function is closed over.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax import jaxpr
from fastsnn_jax._checks import check, check_count
from fastsnn_jax.energy.blocks import Block, cut, runs
from fastsnn_jax.energy.op_rules import flops
from fastsnn_jax.energy.origins import DATA, PARAMETER
from fastsnn_jax.energy.products import PRODUCTS, Site, arrived, bits, measure
from fastsnn_jax.energy.xla_flops import xla_flops
from fastsnn_jax.jaxpr import Path

COMPLETE = 0.95  # share of XLA's flops from which counts are called complete


@dataclass(frozen=True)
class ProductCounts:
    """One dot_general or convolution of a program, over all its runs.

    Attributes:
      name: the name scopes it stands in, ``MLP/dense0``; "" for none.
      kind: "weight" where one operand is a weight, else "activation". The data side of a product
        of two activations is the one through which fewer MACs remain, the left one of two alike.
      calls: how often it ran.
      macs: multiply-adds of all calls; padding is none.
      zero_operands: elements of the data side that were 0.
      unit_operands: those that were -1, 0 or 1.
      operands: all that arrived.
      effective_macs: MACs whose data operand was not 0.
      spike_driven_macs: effective MACs of the calls whose data operands were all -1, 0 or 1: they
        are additions.
      lhs_bits: bits of an element of the left operand.
      rhs_bits: bits of an element of the right operand.
    """

    name: str
    kind: str
    calls: int
    macs: int
    zero_operands: int
    unit_operands: int
    operands: int
    effective_macs: int
    spike_driven_macs: int
    lhs_bits: int
    rhs_bits: int


@dataclass(frozen=True)
class OpCounts:
    """Work of one run, in Python integers.

    Attributes:
      products: matrix products and convolutions in program order; those that never ran too.
      elementwise: operations by class: add, mul, div, compare, select, round, shift, convert,
        reduce, random, other; and the transcendentals exp, log, sqrt, trig.
      moved: elements by way of moving: gather, scatter, sort, copy, collective.
      unknown: primitive -> how often one ran that no rule covers; its work is in no other number.
      flops: what XLA calls so: 2 a MAC, 1 any other operation, none a transcendental.
      coverage: ``flops`` over XLA's own count; None where XLA gives none.
    """

    products: tuple[ProductCounts, ...]
    elementwise: Mapping[str, int]
    moved: Mapping[str, int]
    unknown: Mapping[str, int]
    flops: int
    coverage: float | None

    @property
    def complete(self) -> bool:
        """True where nothing is unknown and the coverage is at least 95 %."""
        return not self.unknown and self.coverage is not None and self.coverage >= COMPLETE


def count(
    function: Callable, parameters: Sequence[int] | None = None
) -> Callable[..., tuple[Any, OpCounts]]:
    """Returns ``counted(*args) -> (output, OpCounts)``, which runs ``function`` once.

    Programs are kept with ``counted``: called again with arguments of the same shapes and dtypes,
    it traces and compiles nothing.

    Args:
      function: of arrays and pytrees of arrays; anything that ``jax.jit`` takes as it is.
      parameters: positions of the arguments whose leaves are parameters; None for the first. Of
        these leaves, keys and integers of 32 bits and more (step counters) are data.

    Raises:
      TypeError: if ``function`` is not callable, or an argument holds what is not an array.
      ValueError: if there is no argument at a position of ``parameters``.

    >>> spikes, weights = jnp.array([1.0, 0.0, 1.0]), jnp.ones((3, 2))
    >>> output, counts = count(jnp.matmul, parameters=(1,))(spikes, weights)
    >>> product = counts.products[0]
    >>> product.macs, product.effective_macs, product.spike_driven_macs, counts.flops
    (6, 4, 4, 12)
    """
    if not callable(function):
        raise TypeError(f"count: function must be callable, got {function!r}; "
                        "write count(function)(*args)")
    if not isinstance(parameters, Sequence | None):
        raise TypeError(f"count: parameters must be a tuple of positions, got {parameters!r}")
    positions = (0,) if parameters is None else tuple(parameters)
    for position in positions:
        check_count("count", "each of parameters", position, at_least=0)
    programs: dict[Any, _Program] = {}

    def counted(*args: Any) -> tuple[Any, OpCounts]:
        wanted = () if parameters is None and not args else positions
        check(all(position < len(args) for position in wanted), "count",
              f"parameters must be positions of the {len(args)} arguments", wanted)
        leaves, tree = jax.tree.flatten(args)
        key = tree, tuple(map(_kind_of, leaves))
        if key not in programs:
            programs[key] = _Program(function, args, wanted)
        return programs[key](leaves)

    return counted


class _Program:
    """A function traced for arguments of given shapes, ready to be run and counted."""

    def __init__(self, function: Callable, args: tuple, positions: Sequence[int]):
        closed, self.tree = jaxpr.trace(function, *args)
        origins = [
            PARAMETER if place in positions and _may_be_weight(leaf) else DATA
            for place, argument in enumerate(args) for leaf in jax.tree.leaves(argument)
        ]
        self.blocks = cut(closed, origins)
        self.references = _references(self.blocks)
        rules = dict.fromkeys(PRODUCTS, _measuring(self.blocks))
        self.run = jax.jit(lambda leaves: jaxpr.evaluate(closed, leaves, rules))

    def __call__(self, leaves: Sequence[Any]) -> tuple[Any, OpCounts]:
        outputs, tape = self.run(leaves)
        measured = {path: total.integers() for path, total in jax.device_get(tape).items()}
        return jax.tree.unflatten(self.tree, outputs), self.counts(measured)

    def counts(self, tape: Mapping[Path, list[int]]) -> OpCounts:
        """One run of each block times its runs, with what was measured."""
        times = runs(self.blocks, tape)
        elementwise, moved, unknown = (
            _summed([getattr(block, kind) for block in self.blocks], times)
            for kind in ("operations", "moved", "unknown")
        )
        products = tuple(
            _product(site, tape[site.path], n)
            for site, n in sorted(
                (site, n) for block, n in zip(self.blocks, times, strict=True)
                for site in block.products
            )
        )
        ours = flops(elementwise) + 2 * sum(product.macs for product in products)
        coverage = None
        if self.references is not None:
            theirs = sum(n * each for n, each in zip(times, self.references, strict=True))
            coverage = ours / theirs if theirs else float(ours == 0)
        return OpCounts(products, elementwise, moved, unknown, ours, coverage)


def _references(blocks: Sequence[Block]) -> list[int] | None:
    """XLA's flops of one run of each block; None where it has none for one of them."""
    found = []
    for block in blocks:
        theirs = xla_flops(block.closed)
        if theirs is None:
            return None
        found.append(theirs)
    return found


def _measuring(blocks: Sequence[Block]) -> jaxpr.Rule:
    """The rule of a product: run it as it is, measure what arrives."""
    sites = {site.path: site for block in blocks for site in block.products}

    def rule(equation, operands, tape):
        measured = [measure(operands[side.operand], side) for side in sites[equation.path].sides]
        tape[equation.path] = jaxpr.total(jnp.concatenate(measured))
        return equation.bind(operands)

    return rule


def _product(site: Site, measured: list[int], calls: int) -> ProductCounts:
    parts = jaxpr.split(measured, *(2 + 2 * len(side.fan_outs) for side in site.sides))
    sides = [arrived(part, side, calls) for part, side in zip(parts, site.sides, strict=False)]
    data = min(sides, key=lambda side: side.effective_macs)
    return ProductCounts(
        site.name, site.kind, calls, calls * site.macs, data.zeros, data.units, data.size,
        data.effective_macs, data.spike_driven_macs, *site.bits,
    )


def _summed(counters: Sequence[Mapping[str, int]], times: Sequence[int]) -> dict[str, int]:
    total: Counter = Counter()
    for counter, n in zip(counters, times, strict=True):
        total.update({key: n * value for key, value in counter.items()})
    return {key: value for key, value in sorted(total.items()) if value}


def _kind_of(leaf: Any) -> tuple:
    """What a program is compiled for: shape, dtype, and whether the dtype is a mere Python type."""
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        raise TypeError(f"count: arguments must be arrays, got {leaf!r} of type "
                        f"{type(leaf).__name__}; close the function over what is not one")
    weak = getattr(leaf, "weak_type", not hasattr(leaf, "dtype"))
    return jnp.shape(leaf), jnp.result_type(leaf), weak


def _may_be_weight(leaf: Any) -> bool:
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return False
    return not jnp.issubdtype(dtype, jnp.integer) or bits(dtype) < 32
