"""A function traced for arguments of given shapes, with its sites, and runs of it on counts."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax import jaxpr
from fastsnn_jax._checks import fail
from fastsnn_jax._typing import Array, PyTree
from fastsnn_jax.conversion import folding, threaded
from fastsnn_jax.conversion.methods import Encoded, Method
from fastsnn_jax.conversion.sites import Site, find
from fastsnn_jax.energy.origins import DATA, PARAMETER
from fastsnn_jax.jaxpr import Equation, Path

Record = Callable[[Site, Encoded, Array], Any]
"""``record(site, encoded, value)``: what a run keeps of a site."""


UNREACHED = "no branch that the calibration batch takes has it"

_REFUSALS = (TypeError, ValueError, RuntimeError)  # of a shape: flax raises all three


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function.

    Attributes:
      closed: its jaxpr.
      tree: of its output.
      sites: all that were found, those that stay as they are too.
      folded: how many of its products took up what scales them, see ``folding``.
    """

    closed: Any
    tree: Any
    sites: tuple[Site, ...]
    folded: int

    @classmethod
    def trace(
        cls, apply_fn: Callable, variables: PyTree, x: PyTree, kind: str, fold: bool = False
    ) -> "Program":
        """Traces ``apply_fn(variables, x)``; ValueError in its words where it does not run."""
        def function(variables: PyTree, x: PyTree) -> PyTree:  # methods may not be hashable
            return apply_fn(variables, x)

        try:
            closed, tree = jaxpr.trace(function, variables, x)
        except _REFUSALS as error:
            shapes = jax.tree.map(jnp.shape, x)
            raise fail("convert", "apply_fn(variables, x) must run",
                       f"{type(error).__name__} for x of shape {shapes}: {error}") from error
        try:
            doubled, _ = jaxpr.trace(function, variables, _twice(x))
        except (*_REFUSALS, AssertionError, LookupError):  # it takes this many samples only
            doubled = None
        origins = [PARAMETER] * len(jax.tree.leaves(variables)) + [DATA] * len(jax.tree.leaves(x))
        folded = 0
        if fold:
            closed, folded = folding.fold(closed, jax.tree.leaves((variables, x)), origins)
            if doubled is not None:
                leaves = jax.tree.leaves((variables, _twice(x)))
                doubled, _ = folding.fold(doubled, leaves, origins)
        return cls(closed, tree, find(closed, doubled, origins, kind), folded)

    def leaving(self, names: Collection[str]) -> "Program":
        """The program with sites as they are that the calibration batch never reached."""
        return replace(self, sites=tuple(
            replace(site, converted=False, reason=UNREACHED) if site.name in names else site
            for site in self.sites
        ))

    @property
    def converted(self) -> tuple[Site, ...]:
        """The sites that spikes carry."""
        return tuple(site for site in self.sites if site.converted)

    def by_path(self, feeds: Mapping[str, Any]) -> dict[Path, Any]:
        """What belongs to each site, by its place instead of its name."""
        return {site.path: feeds[site.name] for site in self.converted if site.name in feeds}

    def calibrate(self, method: Method, variables: PyTree, x: PyTree) -> dict[str, Any]:
        """What the method keeps of each site, by its name, from one run of the original."""
        rules = {site.path: _observing(site, method) for site in self.converted}
        return self._run(rules, {}, variables, x)[1]

    def count(
        self, method: Method, feeds: Mapping[str, Any], variables: PyTree, x: PyTree,
        record: Record, given: Mapping[str, Array] | None = None,
    ) -> tuple[PyTree, dict[str, Any]]:
        """Output of one run on counts, and the records by the name of the site.

        The values that are ``given`` go on in place of those of their sites.
        """
        given = given or {}
        rules = {site.path: _counting(site, method, record, given.get(site.name))
                 for site in self.converted}
        return self._run(rules, feeds, variables, x)

    def _run(self, rules, feeds, variables, x):
        operands = jax.tree.leaves((variables, x))
        outputs, records = threaded.run(self.closed, operands, rules, self.by_path(feeds))
        named = {site.name: records[site.path] for site in self.converted}
        return jax.tree.unflatten(self.tree, outputs), named


def _twice(x: PyTree) -> PyTree:
    """Shapes of an input of twice as many samples."""
    samples = [jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(x)][0]

    def grown(leaf: Any) -> jax.ShapeDtypeStruct:
        shape = jnp.shape(leaf)
        if samples and shape[:1] == samples:
            shape = (2 * shape[0], *shape[1:])
        return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))

    return jax.tree.map(grown, x)


def count_rules(program: Program, method: Method) -> dict[Path, threaded.Rule]:
    """Rules that put spikes in the place of a program's sites and keep nothing."""
    return {site.path: _counting(site, method, lambda *_: ()) for site in program.converted}


def _observing(site: Site, method: Method) -> threaded.Rule:
    """Leaves a site as it is, and keeps what the method makes of it."""
    def rule(equation: Equation, operands: list[Any], feed: Any) -> tuple[list[Any], Any]:
        del feed
        outputs = equation.bind(operands)
        if site.operand is None:
            return outputs, method.calibrate(site, outputs[0], None)
        value, weight = operands[site.operand], operands[1 - site.operand]
        return outputs, method.calibrate(site, value, weight)

    return rule


def _counting(
    site: Site, method: Method, record: Record, given: Array | None = None
) -> threaded.Rule:
    """Puts the value of the spikes, or the one given, in a site's place."""
    def spoken(feed: Any, value: Array) -> tuple[Array, Any]:
        encoded = method.encode(site, feed, value)
        heard = encoded.value(value.dtype) if given is None else given.astype(value.dtype)
        return heard, record(site, encoded, value)

    def rule(equation: Equation, operands: list[Any], feed: Any) -> tuple[list[Any], Any]:
        if site.operand is None:
            first, *others = equation.bind(operands)
            first, recorded = spoken(feed, first)
            return [first, *others], recorded
        operands = list(operands)
        operands[site.operand], recorded = spoken(feed, operands[site.operand])
        return equation.bind(operands), recorded

    return rule
