"""The jaxpr evaluator: every higher-order primitive, rules inside it, and what the tape sums;
and what runs of a function where only its outputs count."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from fastsnn_jax import jaxpr
from fastsnn_jax.jaxpr import Total, evaluate, run_needed, total, trace, walk
from fastsnn_jax.models import MLP, AnnCNN, build_model_from_config
from fastsnn_jax.neurons import lif
from fastsnn_jax.recipes.lm import preset as lm_preset
from fastsnn_jax.surrogate import fast_sigmoid

X = np.linspace(-1.5, 1.25, 6, dtype=np.float32).reshape(2, 3)


def scanned(inner, x):
    def body(carry, row):
        return carry + inner(row), inner(carry) * row

    return lax.scan(body, jnp.ones(3), x, reverse=True)


def nested(inner, x):
    return lax.fori_loop(0, 2, lambda i, x: scanned(inner, x)[1] + i, x)


def looped(inner, x):
    def more(state):
        return inner(state[0].sum()) + state[1] < 3.5

    return lax.while_loop(more, lambda state: (inner(state[0]), state[1] + 1), (x, 0))


def branched(inner, x):
    middle = jnp.argmax(x[0])
    x = lax.switch(middle, [lambda x: x, lambda x: x + inner(x[0]), lambda x: inner(x)], x)
    return lax.cond(x[0, 0] > 0, lambda: x, lambda: inner(x) + 1)


def with_custom_jvp(inner, x):
    function = jax.custom_jvp(inner)
    function.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))
    return function(x)


def with_custom_vjp(inner, x):
    function = jax.custom_vjp(inner)
    function.defvjp(lambda x: (inner(x), None), lambda _, cotangent: (cotangent,))
    return function(x)


def over_shards(inner, x):
    mesh = Mesh(np.array(jax.devices()[:1]), ("a",))
    shard = jax.shard_map(
        lambda x: lax.psum(inner(x).sum(0), "a"), mesh=mesh, in_specs=PartitionSpec("a"),
        out_specs=PartitionSpec(),
    )
    return shard(x)


def with_keys(inner, x):
    def body(key, row):
        key, drawn = jax.random.split(key)
        return key, inner(row) + jax.random.normal(drawn, row.shape)

    return lax.scan(body, jax.random.key(0), x)[1]


HIGHER_ORDER = {
    "jit": lambda inner, x: jax.jit(lambda x: jax.jit(inner)(x) + 1)(x),
    "remat": lambda inner, x: jax.checkpoint(inner)(x),
    "remat, differentiated": lambda inner, x: jax.grad(
        lambda x: jax.checkpoint(lambda x: inner(x) * inner(x))(x).sum())(x),
    "scan": scanned,
    "loops in loops": nested,
    "while": looped,
    "while, vmapped": lambda inner, x: jax.vmap(partial(looped, inner))(x),
    "cond": branched,
    "custom_jvp": with_custom_jvp,
    "custom_vjp": with_custom_vjp,
    "shard_map": over_shards,
    "keys": with_keys,
    "scan of nothing": lambda inner, x: lax.scan(lambda c, r: (inner(c), r), x, x[:0])[0],
}


def run(function, *args, rules=()):
    """Outputs of a function evaluated under jit, and the tape in Python integers."""
    closed, tree = trace(function, *args)
    outputs, tape = jax.jit(partial(evaluate, closed, rules=dict(rules)))(jax.tree.leaves(args))
    return jax.tree.unflatten(tree, outputs), {at: each.integers() for at, each in tape.items()}


@pytest.mark.parametrize("name", HIGHER_ORDER)
def test_a_rule_replaces_its_primitive_wherever_it_stands(name):
    seen = []

    def cosine(equation, operands, tape):
        seen.append(equation.path)
        tape[equation.path] = total(jnp.ones(()))
        return [jnp.cos(operands[0])]

    function = HIGHER_ORDER[name]
    replaced, tape = run(partial(function, jnp.sin), X, rules={"sin": cosine})
    expected = jax.jit(partial(function, jnp.cos))(X)
    if name == "remat, differentiated":  # the derivative was taken before
        expected = jax.jit(lambda x: 2 * jnp.cos(x) * jnp.cos(x))(X)
        replaced = jax.jit(lambda: replaced)()
    assert_trees_equal(replaced, expected)
    assert seen and set(seen) <= set(tape)


@pytest.mark.parametrize("name", HIGHER_ORDER)
def test_without_rules_a_function_gives_what_it_gives(name):
    function = partial(HIGHER_ORDER[name], jnp.sin)
    assert_trees_equal(run(function, X)[0], jax.jit(function)(X))


def test_a_custom_derivative_is_kept_where_no_rule_applies():
    spike = fast_sigmoid(slope=10.0)
    closed, _ = trace(lambda u: jax.jit(spike)(u) * 3, X)
    gradient = jax.grad(lambda u: evaluate(closed, [u], {"sin": None})[0][0].sum())(X)
    np.testing.assert_allclose(gradient, 3 / (1 + 10 * np.abs(X)) ** 2, rtol=1e-6)


def ones_of(size):
    """A rule that lets its operand pass and measures ``size`` at every run."""
    def rule(equation, operands, tape):
        tape[equation.path] = total(jnp.full((2,), size, jnp.uint32) - jnp.arange(2))
        return operands

    return {"sin": rule}


def test_the_tape_sums_over_all_loops_beyond_32_bits():
    def function(x, turns):
        def outer(i, x):
            return lax.scan(lambda x, _: (jnp.sin(x), None), x, None, 5)[0]

        return lax.fori_loop(0, turns, outer, x)

    _, tape = run(function, 1.0, 7, rules=ones_of(2**31))
    (trips,), sums = (tape[path] for path in sorted(tape, key=len))
    assert trips == 7
    assert sums == [35 * 2**31, 35 * (2**31 - 1)]


def test_trips_and_branches_are_measured_without_a_rule():
    def function(x):
        def body(state):
            i, x = state
            return i + 1, lax.switch(i % 3, [lambda x: x, lambda x: x + 1, lambda x: x * 2], x)

        return lax.while_loop(lambda state: state[0] < 8, body, (0, x))

    _, tape = run(function, 1.0)
    loop, branch = sorted(tape, key=len)
    assert tape[loop] == [8] and tape[branch] == [3, 3, 2]
    assert branch[:len(loop)] == loop and branch[len(loop)] == 1  # in the body


def test_a_condition_is_measured_each_time_it_is_asked():
    _, tape = run(lambda x: lax.while_loop(lambda x: jnp.sin(x) < 4, lambda x: x + 1, x), 0.0,
                  rules=ones_of(1))
    loop, condition = sorted(tape, key=len)
    assert (tape[loop], tape[condition]) == ([4], [5, 0]) and condition == (*loop, 0, 0)


def test_a_branch_not_taken_leaves_zeros():
    def function(x):
        return lax.cond(x > 0, lambda: jnp.sin(x), lambda: 2 * jnp.sin(x + 1))

    _, tape = run(function, 1.0, rules=ones_of(6))
    (path,) = {path[:1] for path in tape}
    assert tape == {path: [0, 1], (*path, 0, 1): [0, 0], (*path, 1, 0): [6, 5]}


def test_totals_carry():
    values = [0, 1, 2**32 - 1, 2**32, 5 * 2**32 - 7]
    words = [np.array([v % 2**32 for v in values], np.uint32),
             np.array([v >> 32 for v in values], np.uint32)]
    here = Total(*map(jnp.asarray, words))
    most = total(jnp.uint32(2**32 - 1))
    assert here.plus(here).plus(most).integers() == [2 * v + 2**32 - 1 for v in values]


def test_code_that_nobody_reads_is_not_traced():
    closed, _ = trace(lambda x: scanned(jnp.sin, x)[0] + jnp.cos(x)[0] * 0, X)
    unread, _ = trace(lambda x: (jnp.cos(x), scanned(lambda x: x, x)[0])[1], X)
    names = [[eqn.primitive.name for eqn in each.jaxpr.eqns] for each in (closed, unread)]
    assert "cos" in names[0] and "cos" not in names[1]


def test_a_walk_meets_equations_in_order_with_their_names():
    met = []

    def visit(equation, values):
        met.append((equation.primitive, equation.path, equation.name))
        inner = jaxpr.called(equation)
        if inner is not None:
            return walk(inner, values, visit, path=equation.path, name=equation.name)
        return [sum(values)]

    @jax.jit
    def inner(x):
        with jax.named_scope("b"):
            return jnp.sin(x) * 2.0

    def function(x):
        with jax.named_scope("a"):
            return inner(x) + x

    closed, _ = trace(function, 1.0)
    assert walk(closed, [10.0], visit, constant=float) == [22.0]
    assert [(name, path) for name, path, _ in met] == [
        ("jit", (0,)) if met[0][0] == "jit" else ("pjit", (0,)),
        ("sin", (0, 0)), ("mul", (0, 1)), ("add", (1,)),
    ]
    assert [name for *_, name in met] == ["a", "a/b", "a/b", "a"]


# What the outputs need


INITIAL = {
    "learned": (lambda: MLP((3, 2), lif(learn=("decay", "threshold"))), jnp.zeros((1, 1, 4))),
    "normalised": (lambda: AnnCNN((2, 3), 2), jnp.zeros((1, 8, 8, 1))),
    "language model": (lambda: build_model_from_config(lm_preset("smoke").model),
                       jnp.zeros((1, 1), jnp.int32)),
}


@pytest.mark.parametrize("name", [
    "learned", "normalised", pytest.param("language model", marks=pytest.mark.slow),
])
def test_initial_values_alone_are_those_of_init_to_the_bit(name):
    make, x = INITIAL[name]
    init, key = make().init, jax.random.key(3)
    assert_trees_equal(run_needed(init, key, x), init(key, x))


def test_what_no_output_needs_is_not_run():
    ran = []

    def told(x):
        return jax.pure_callback(lambda x: ran.append(1) or np.float32(x), jnp.float32(0), x)

    def function(x):
        return {"double": 2 * x, "none": None}, told(x)

    assert run_needed(lambda x: function(x)[0], jnp.float32(3)) == {"double": 6, "none": None}
    assert not ran
    run_needed(function, jnp.float32(3))
    assert ran == [1]


def test_what_a_function_refuses_is_refused_as_without():
    with pytest.raises(ValueError, match="input must be"):
        run_needed(MLP((3, 2)).init, jax.random.key(0), jnp.zeros(4))
