"""Registries: how a name in a configuration becomes a neuron, an attention or an FFN."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastsnn_jax._checks import check, check_choice

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry:
    """Names and the factories they stand for, ``factory(cfg, layer)``.

    ``kind`` is what the entries are; it stands in the messages of errors.

    >>> codes = Registry("code")
    >>> @codes.register("constant")
    ... def constant(cfg, layer):
    ...     return (cfg, layer)
    >>> codes.get("constant")("cfg", 3)
    ('cfg', 3)
    >>> codes.get("constent")
    Traceback (most recent call last):
    ValueError: code: name must be one of constant, got 'constent'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Decorator that enters a factory under ``name`` and returns it unchanged.

        Raises TypeError unless ``name`` is a string and the factory callable, ValueError for a
        name that is taken or is no identifier.
        """
        if not isinstance(name, str):
            raise TypeError(f"{self.kind}: name must be a string, got {name!r}")
        check(name.isidentifier(), self.kind, "name must be letters, digits and underscores",
              repr(name))

        def enter(factory: Factory) -> Factory:
            if not callable(factory):
                raise TypeError(f"{self.kind}: factory of {name!r} must be callable, "
                                f"got {factory!r}")
            check(name not in self._factories, self.kind, "name must be new", repr(name),
                  "choose another, or extend a copy() of the registry")
            self._factories[name] = factory
            return factory

        return enter

    def get(self, name: str) -> Callable[..., Any]:
        """The factory of ``name``; ValueError, with the known names, where there is none."""
        check_choice(self.kind, "name", name, self.names())
        return self._factories[name]

    def names(self) -> tuple[str, ...]:
        """The names entered so far, sorted."""
        return tuple(sorted(self._factories))

    def copy(self) -> "Registry":
        """A registry of the same entries, to extend without touching this one."""
        twin = Registry(self.kind)
        twin._factories.update(self._factories)
        return twin


# The one deliberate piece of global state: what every model can be built of by name.
NEURONS = Registry("neuron")
ATTENTION = Registry("attention")
FFN = Registry("ffn")

register_neuron = NEURONS.register
register_attention = ATTENTION.register
register_ffn = FFN.register
