"""A program cut into blocks that run as a whole, and what one run of each block costs.

A block is the program itself, the body of a scan, condition and body of a while, a branch of a
cond, a shard. Calls (jit, remat, custom derivatives) belong to the block they stand in. How often a
block runs follows from the block around it, and for while and cond from what was measured:

    runs = each_run * runs of the block around + measured
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastsnn_jax import jaxpr
from fastsnn_jax.energy.op_rules import cost
from fastsnn_jax.energy.origins import CONSTANT, Value, folded, held, origin, picked, weight_side
from fastsnn_jax.energy.products import PRODUCTS, Site, bits, macs, sides
from fastsnn_jax.jaxpr import Equation, Path


@dataclass
class Block:
    """One run of a block.

    Attributes:
      closed: its jaxpr.
      around: number of the block around it; that of the program has none.
      each_run: how often it runs in each run of the block around.
      measured: where on the tape its further runs are, path and entry; or None.
      operations, moved, unknown: of one run, see ``OpCounts``.
      products: its sites.
    """

    closed: Any
    around: int = -1
    each_run: int = 1
    measured: tuple[Path, int] | None = None
    operations: Counter = field(default_factory=Counter)
    moved: Counter = field(default_factory=Counter)
    unknown: Counter = field(default_factory=Counter)
    products: list[Site] = field(default_factory=list)


def cut(closed: Any, origins: Sequence[int]) -> list[Block]:
    """Blocks of a program whose arguments have the given origins; each after the one around it."""
    blocks: list[Block] = []
    _Cutter(blocks).block(Block(closed), origins)
    return blocks


def runs(blocks: Sequence[Block], tape: Mapping[Path, Sequence[int]]) -> list[int]:
    """How often each block ran."""
    times: list[int] = []
    for block in blocks:
        outer = times[block.around] if block.around >= 0 else 1
        extra = tape[block.measured[0]][block.measured[1]] if block.measured else 0
        times.append(block.each_run * outer + extra)
    return times


class _Cutter:
    """Walks a program on what is known of its values; without a list of blocks it records nothing.

    Control flow and jit see origins alone: numbers are not known across their border.
    """

    def __init__(self, blocks: list[Block] | None):
        self.blocks = blocks

    def block(self, block: Block, origins: Sequence[int], path: Path = (), name: str = ""):
        """Origins of a block's outputs."""
        number = -1
        if self.blocks is not None:
            number = len(self.blocks)
            self.blocks.append(block)
        visit = partial(self.visit, block, number)
        outputs = jaxpr.walk(
            block.closed, [Value(origin) for origin in origins], visit, constant=held, path=path,
            name=name,
        )
        return [value.origin for value in outputs]

    def visit(self, block: Block, number: int, equation: Equation, values: list[Value]):
        """What is known of an equation's results; its cost goes to the block."""
        origins = [value.origin for value in values]
        called = jaxpr.called(equation)
        if called is not None:
            border = not equation.primitive.startswith("custom_")  # those are run in place
            results = jaxpr.walk(
                called, [Value(value.origin) for value in values] if border else values,
                partial(self.visit, block, number), constant=held, path=equation.path,
                name=equation.name,
            )
            return [Value(value.origin) for value in results] if border else results
        control = getattr(self, f"_{equation.primitive}", None)
        if control is not None:
            return [Value(origin) for origin in control(number, equation, origins)]
        result = folded(equation, values)
        if result is not None:
            return [result]
        if self.blocks is not None:
            _record(block, equation, origins)
        return [Value(origin(equation, origins))] * len(equation.outputs)

    def inner(self, number: int, equation: Equation, closed: Any, origins: Sequence[int],
              each_run: int, measured: int | None = None, branch: tuple[int, ...] = ()):
        place = None if measured is None else (equation.path, measured)
        block = Block(jaxpr.closed_jaxpr(closed), number, each_run, place)
        return self.block(block, origins, (*equation.path, *branch), equation.name)

    def _scan(self, number, equation, origins):
        params, num_carry = equation.params, equation.params["num_carry"]
        consts, carry, inputs = jaxpr.split(origins, params["num_consts"], num_carry)
        body = params["jaxpr"]
        carry = _settled(body, consts, carry, inputs)
        outputs = self.inner(number, equation, body, [*consts, *carry, *inputs], params["length"])
        return [*carry, *outputs[num_carry:]]

    def _while(self, number, equation, origins):
        params = equation.params
        first, second, carry = jaxpr.split(
            origins, params["cond_nconsts"], params["body_nconsts"]
        )
        carry = _settled(params["body_jaxpr"], second, carry, [])
        # The condition runs once more than the body.
        self.inner(number, equation, params["cond_jaxpr"], [*first, *carry], 1, 0, (0,))
        self.inner(number, equation, params["body_jaxpr"], [*second, *carry], 0, 0, (1,))
        return carry

    def _cond(self, number, equation, origins):
        index, *operands = origins
        results = [
            self.inner(number, equation, branch, operands, 0, k, (k,))
            for k, branch in enumerate(equation.params["branches"])
        ]
        return [picked(max(each), index) for each in zip(*results, strict=True)]

    def _shard_map(self, number, equation, origins):
        mesh = equation.params["mesh"]
        shards = 1
        for axis in jaxpr.manual_axes(equation):
            shards *= mesh.shape[axis]
        return self.inner(number, equation, equation.params["jaxpr"], origins, shards)


def _settled(body: Any, consts: list[int], carry: list[int], inputs: list[int]) -> list[int]:
    """Origins of a loop's carry that another turn does not raise."""
    while True:
        outputs = _Cutter(None).block(Block(body), [*consts, *carry, *inputs])
        raised = [max(pair) for pair in zip(carry, outputs, strict=False)]
        if raised == carry:
            return carry
        carry = raised


def _record(block: Block, equation: Equation, origins: list[int]) -> None:
    if equation.primitive in PRODUCTS:
        block.products.append(_site(equation, origins))
        return
    spent = cost(equation)
    if spent is None:
        block.unknown[equation.primitive] += 1
        return
    block.operations.update(spent.operations)
    block.moved.update(spent.moved)


def _site(equation: Equation, origins: list[int]) -> Site:
    both = sides(equation)
    weight = weight_side(*origins)
    if weight is not None:
        measured = (both[1 - weight],)
    elif CONSTANT in origins and origins[0] != origins[1]:
        measured = (both[int(origins[0] == CONSTANT)],)  # a sum written as a product with ones
    else:
        measured = both
    left, right = (bits(aval.dtype) for aval in equation.inputs)
    kind = "activation" if weight is None else "weight"
    return Site(equation.path, equation.name, kind, macs(both[0]), (left, right), measured)
