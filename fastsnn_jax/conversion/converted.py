"""A converted network: a function with spikes where it had numbers, on counts and in time."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_count, fail
from fastsnn_jax._typing import Array, PyTree
from fastsnn_jax.activity import SpikeCount
from fastsnn_jax.conversion import stepping, trains
from fastsnn_jax.conversion.methods import Encoded, Method
from fastsnn_jax.conversion.program import UNREACHED, Program
from fastsnn_jax.conversion.report import ConversionReport
from fastsnn_jax.conversion.sites import Site


@dataclass(frozen=True, eq=False)
class Converted:
    """A spiking network made from a function, built by `convert`.

    Attributes:
      apply_fn: the original function.
      method: how numbers became spikes, with its options.
      kind: "activations" or "synapses".
      coding: how a count is written as a train of spikes, see ``codings``.
      temporal: when a step works on what is not linear, see ``conversion.temporal``.
      fold: whether products take up what scales them, see ``conversion.folding``.
      sites: all places that were found, see `Site`.
      variables: ``{"model": the user's variables, "sites": {name: {"threshold": V}}}``; what an
        optimiser trains. Of a site in a scan V has an axis for its turns.
      report: what the conversion did.
    """

    apply_fn: Callable
    method: Method
    kind: str
    coding: str
    temporal: str
    fold: bool
    sites: tuple[Site, ...]
    variables: PyTree
    report: ConversionReport

    def apply(self, variables: PyTree, x: PyTree) -> tuple[PyTree, dict[str, SpikeCount]]:
        """Runs the network on counts, all time steps at once.

        Args:
          variables: `variables`, or the original function's own with the calibrated thresholds.
          x: as the original function takes it, batch first.

        Returns:
          Its output, and the spikes of each site by name: events ``[B, *N]`` (of a site in a scan
          ``[B, turns, *N]``), and per sample the spikes and those clipped. A site without an axis
          of the samples is one sample.

        Raises:
          ValueError: where thresholds are not finite or not those of this network, or the
            function has other sites for an ``x`` of this shape.
        """
        return self._apply(self.split(variables), x)

    def rest(self, x: PyTree, input_steps: int = 1) -> dict[str, Any]:
        """The state before the first step.

        Args:
          x: an input, or its shapes and dtypes.
          input_steps: steps over which the input will come.
        """
        check_count("Converted.rest", "input_steps", input_steps)
        return stepping.rest(self, x, input_steps)

    def step(
        self, variables: PyTree, state: dict[str, Any], x: PyTree
    ) -> tuple[dict[str, Any], PyTree]:
        """One time step: the share of ``x`` that comes in it, and the share of the output.

        Over `duration` steps the shares of the output add up to the output of `apply` for the sum
        of the shares of ``x``: bit for bit where the sums are exact, as those of dyadic numbers
        are, layerwise also with any nonlinear operation; else within rounding. A whole number,
        such as a token, comes in the first step. Raises ValueError as `apply` does.
        """
        return stepping.step(self, self.split(variables), state, x)

    def duration(self, x: PyTree, input_steps: int = 1) -> int:
        """Steps until the last spike has arrived, for an input that comes in ``input_steps``."""
        check_count("Converted.duration", "input_steps", input_steps)
        return stepping.duration(self, x, input_steps)

    def present(self, x: PyTree, input_steps: int = 1) -> PyTree:
        """An input as it comes in time, ``[duration, ...]``: the same share in each input step.

        Raises ValueError where whole numbers are to come in more than one step.
        """
        whole = [leaf.dtype for leaf in jax.tree.leaves(x)
                 if not jnp.issubdtype(leaf.dtype, jnp.floating)]
        check(input_steps == 1 or not whole, "Converted.present",
              "input_steps must be 1 for whole numbers", input_steps)
        steps = jnp.arange(self.duration(x, input_steps))

        def train(leaf: Array) -> Array:
            share = leaf if input_steps == 1 else leaf / input_steps
            shown = (steps < input_steps).reshape(-1, *[1] * leaf.ndim)
            return jnp.where(shown, share, jnp.zeros_like(share))

        return jax.tree.map(train, x)

    def expand(self, coding: str) -> "Converted":
        """The same network with its counts written in another coding.

        Raises ValueError for an unknown one, and for "binary" where a site's spikes have signs.
        """
        trains.check_coding(coding, self.method, self.sites)
        check(self.temporal == "layerwise", "Converted.expand",
              "spikes that may be taken back have no coding", "temporal='differences'",
              "convert with temporal='layerwise'")
        return dataclasses.replace(self, coding=coding, report=self.report.written(coding))

    def split(self, variables: PyTree) -> dict[str, Any]:
        """``{"model": ..., "sites": ...}``, with the calibrated thresholds where there are none.

        Raises ValueError where given thresholds are not finite or not those of this network.
        """
        if isinstance(variables, Mapping) and set(variables) == {"model", "sites"}:
            self._check_thresholds(variables["sites"])
            return dict(variables)
        return {"model": variables, "sites": self.variables["sites"]}

    def program(self, variables: PyTree, x: PyTree) -> Program:
        """The function traced for ``x``; ValueError where its sites are not those converted."""
        program = Program.trace(self.apply_fn, variables, x, self.kind, self.fold).leaving(
            {site.name for site in self.sites if site.reason == UNREACHED}
        )
        ours, theirs = ([site.name for site in each if site.converted]
                        for each in (self.sites, program.sites))
        check(ours == theirs, "Converted", f"the function must have the sites {ours}", theirs,
              "convert it again with a batch of this shape")
        return program

    @cached_property
    def _apply(self) -> Callable:
        return jax.jit(self._count)

    def _count(self, variables: dict[str, Any], x: PyTree):
        program = self.program(variables["model"], x)
        record = partial(_spikes, self.coding, self.method.num_steps)
        output, records = program.count(
            self.method, variables["sites"], variables["model"], x, record
        )
        batch, *_ = *jnp.shape(jax.tree.leaves(x)[0]), 1
        activity = {
            site.name: _spike_count(records[site.name], site, batch)
            for site in program.converted
        }
        return output, activity

    def _check_thresholds(self, given: Any) -> None:
        ours = jax.tree.structure(self.variables["sites"])
        theirs = jax.tree.structure(given)
        check(ours == theirs, "Converted", f"thresholds must be {ours}", theirs)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
            return
        for name, feed in jax.device_get(given).items():
            for value in feed.values():
                if not np.all(np.isfinite(value)):
                    raise fail("Converted", f"thresholds of {name} must be finite", value)


def _spikes(coding: str, num_steps: int, site: Site, encoded: Encoded, value: Array):
    """Spikes of each neuron, and the numbers that were clipped."""
    del site, value
    counts = jax.lax.stop_gradient(encoded.counts)
    return trains.spikes_of(counts, coding, num_steps), encoded.clipped


def _spike_count(record: tuple[Array, Array], site: Site, batch: int) -> SpikeCount:
    """The counts of a site, per sample; its leading axes are those of the loops."""
    events, clipped = (_per_sample(array, site, batch) for array in record)
    nonzero = jnp.sum(events.astype(jnp.int32), axis=tuple(range(1, events.ndim)))
    saturated = jnp.sum(clipped, axis=tuple(range(1, clipped.ndim)), dtype=jnp.int32)
    return SpikeCount(events, nonzero, saturated)


def _per_sample(array: Array, site: Site, batch: int) -> Array:
    """Samples first, then the turns of loops; all is one sample where they are not to be found."""
    loops = len(site.loops)
    turns = tuple(range(loops))
    array = jnp.transpose(array, (*turns, *(loops + axis for axis in site.samples_first)))
    rest = array.shape[loops:]
    if site.batch is None or rest[0] % batch:
        rest = (1, *rest)
    elif rest[0] != batch:
        rest = (batch, rest[0] // batch, *rest[1:])
    return jnp.moveaxis(array.reshape(*array.shape[:loops], *rest), loops, 0)
