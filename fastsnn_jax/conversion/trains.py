"""Counts of a converted network as trains of spikes."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax import codings
from fastsnn_jax._checks import check, check_choice
from fastsnn_jax._typing import Array
from fastsnn_jax.conversion.methods import Method, is_signed
from fastsnn_jax.conversion.sites import Site


def natural_coding(method: Method, sites: Iterable[Site]) -> str:
    """One spike for one: "binary", or "ternary" where a site's spikes have signs."""
    signed = any(is_signed(method, site) for site in sites if site.converted)
    return "ternary" if signed else "binary"


def check_coding(coding: str, method: Method, sites: Iterable[Site]) -> None:
    """Raises ValueError unless the counts of all sites can be written in a coding."""
    check_choice("Converted.expand", "coding", coding, codings.CODINGS)
    if coding == "binary":
        signed = [site.name for site in sites if site.converted and is_signed(method, site)]
        check(not signed, "Converted.expand", "binary spikes have no sign", ", ".join(signed),
              "use ternary, bitwise or twos_complement")


def num_planes(coding: str, num_steps: int) -> int:
    """Steps of a train that holds every count up to ``num_steps``, of either sign.

    >>> [num_planes(coding, 127) for coding in codings.CODINGS]
    [127, 127, 7, 8]
    """
    if coding not in codings.POSITIONAL:
        return num_steps
    return num_steps.bit_length() + (coding == "twos_complement")


def spikes_of(counts: Array, coding: str, num_steps: int) -> Array:
    """How many spikes each count is written in, float32."""
    if coding not in codings.POSITIONAL:
        return jnp.abs(counts).astype(jnp.float32)
    whole = counts.astype(jnp.int32)
    if coding == "bitwise":
        whole = jnp.abs(whole)
    else:
        whole &= 2 ** num_planes(coding, num_steps) - 1
    return jax.lax.population_count(whole).astype(jnp.float32)


def plane(counts: Array, coding: str, num_planes: int, place: Array) -> Array:
    """The spikes of one plane times what each adds to the count; zeros outside the train."""
    planes = codings.encode(counts.astype(jnp.int32), coding, num_planes)
    weighed = codings.weigh(planes, codings.plane_weights(coding, num_planes))
    chosen = jax.lax.dynamic_index_in_dim(
        weighed, jnp.clip(place, 0, num_planes - 1), axis=0, keepdims=False
    )
    return jnp.where((place >= 0) & (place < num_planes), chosen, 0).astype(counts.dtype)


def longest_change(method: Method, site: Site) -> int:
    """Spikes it can take to get from any count of a site to any other."""
    return method.num_steps * (2 if is_signed(method, site) else 1)


def wide_type(dtype: Any) -> Any:
    """The type that numbers of a type are summed in."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.promote_types(dtype, jnp.float32)
    return jnp.promote_types(dtype, jnp.int32)
