"""Registries: names to factories, without surprises."""

import pytest

from fastsnn_jax import registry
from fastsnn_jax.registry import Registry


@pytest.fixture
def shapes():
    shapes = Registry("shape")
    shapes.register("round")(lambda cfg, layer: ("round", cfg, layer))
    shapes.register("flat")(lambda cfg, layer: ("flat", cfg, layer))
    return shapes


def test_a_name_gives_its_own_factory_back(shapes):
    assert shapes.get("flat")("cfg", 3) == ("flat", "cfg", 3)
    assert shapes.names() == ("flat", "round")


def test_registering_returns_the_factory_unchanged(shapes):
    def factory(cfg, layer):
        return None

    assert shapes.register("new")(factory) is factory
    assert shapes.get("new") is factory


def test_a_name_is_taken_once_and_keeps_its_first_factory(shapes):
    first = shapes.get("flat")
    with pytest.raises(ValueError, match="shape: name must be new, got 'flat'"):
        shapes.register("flat")(lambda cfg, layer: None)
    assert shapes.get("flat") is first


@pytest.mark.parametrize("name", ["square", None, ["flat"]])
def test_an_unknown_name_is_refused_with_the_known_ones(shapes, name):
    with pytest.raises(ValueError, match="shape: name must be one of flat, round, got"):
        shapes.get(name)


@pytest.mark.parametrize("name", ["", "two words", "3d", "a-b"])
def test_a_bad_name_is_refused(shapes, name):
    with pytest.raises(ValueError, match="shape: name must be letters, digits and underscores"):
        shapes.register(name)


def test_a_name_that_is_no_string_or_a_factory_that_cannot_be_called_is_refused(shapes):
    with pytest.raises(TypeError, match="shape: name must be a string, got 3"):
        shapes.register(3)
    with pytest.raises(TypeError, match="shape: factory of 'new' must be callable, got 3"):
        shapes.register("new")(3)
    assert shapes.names() == ("flat", "round")


def test_a_copy_is_extended_without_touching_the_original(shapes):
    copy = shapes.copy()
    copy.register("new")(lambda cfg, layer: None)
    assert copy.names() == ("flat", "new", "round") and copy.get("flat") is shapes.get("flat")
    assert shapes.names() == ("flat", "round")
    with pytest.raises(ValueError, match="shape: name must be new, got 'new'"):
        copy.register("new")(lambda cfg, layer: None)


@pytest.mark.parametrize("kind", ["neuron", "attention", "ffn"])
def test_the_global_registries_are_entered_by_their_own_decorator(kind):
    shared = getattr(registry, {"neuron": "NEURONS", "attention": "ATTENTION", "ffn": "FFN"}[kind])
    assert shared.kind == kind
    assert getattr(registry, f"register_{kind}") == shared.register
