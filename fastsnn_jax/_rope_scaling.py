"""Kinds of rotary scaling: what a configuration may ask for and what ``attention.rope`` does."""

from typing import Any

from fastsnn_jax._checks import check, check_choice, check_number

NUMBERS = {
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "attention_factor", "beta_fast", "beta_slow", "factor", "original_max_position_embeddings",
    ),
}
SMALLEST, LARGEST = 1e-6, 1e9  # far outside what is used, far inside float32
_RISING = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_slow", "beta_fast")}


def check_rope_scaling(where: str, name: str, scaling: tuple[tuple[str, Any], ...] | None) -> None:
    """Raises unless ``scaling`` is None or names a kind and just the numbers of that kind.

    Raises ValueError for an unknown kind, a number that is missing, strange or out of range,
    TypeError for one that is no number.
    """
    if scaling is None:
        return
    given = dict(scaling)
    kind = given.pop("rope_type", None)
    check_choice(where, f"{name}'s rope_type", kind, tuple(NUMBERS))
    check(sorted(given) == sorted(NUMBERS[kind]), where,
          f"{name} of rope_type {kind!r} must hold {', '.join(NUMBERS[kind])}", sorted(given))
    for key, value in given.items():
        check_number(where, f"{name} {key}", value, above=SMALLEST, at_most=LARGEST)
    if kind in _RISING:
        low, high = _RISING[kind]
        check(given[low] < given[high], where, f"{name} {high} must be above {low} = {given[low]}",
              given[high])
