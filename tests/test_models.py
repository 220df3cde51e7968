"""Laws of the spiking MLP and CNN: counts, windows of time, forms of input, synapses, programs."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from fastsnn_jax.activity import fan_out
from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.neurons import current_lif, lif, recurrent
from fastsnn_jax.spikes import SpikeTensor

T, B, N, HIDDEN, CLASSES = 7, 3, 11, 6, 4
MAP = (7, 6, 2)  # odd and even, so that "SAME" pads each side differently
LEARNED = lif(0.5, learn=("decay", "threshold"))
MODELS = {
    "mlp": (MLP((HIDDEN, CLASSES), lif(0.5)), (N,)),
    "mlp_learned": (MLP((HIDDEN, 5, CLASSES), LEARNED, logit_scale=0.5), (N,)),
    "mlp_current": (MLP((HIDDEN, CLASSES), current_lif(0.5, 0.5)), (N,)),
    "cnn": (CNN((2, 3), CLASSES, lif(0.5)), MAP),
    "cnn_learned": (CNN((5,), CLASSES, LEARNED, logit_scale=0.25), MAP),
}
FAST = ("mlp", "mlp_learned", "cnn")  # every kind of layer and of parameter
every_model = pytest.mark.parametrize("name", [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS
])


def train_of(shape, rate=0.4, seed=0):
    """Random spikes [T, B, *shape]."""
    random = np.random.default_rng(seed)
    return jnp.asarray((random.random((T, B, *shape)) < rate).astype(np.float32))


@cache  # a test that needs other variables makes new ones
def started(name):
    """A model, its variables in multiples of 1/64 that let every layer fire, and a train.

    What neurons learn is left as it starts, at decay 1/2 and threshold 1.
    """
    model, shape = MODELS[name]
    x = train_of(shape)

    def dyadic(path, leaf):
        leaf = np.asarray(leaf)
        return leaf if "neuron" in str(path) else np.round(64 * (1.5 * leaf + 0.1)) / 64

    variables = jax.jit(model.init)(jax.random.key(1), x)
    return model, jax.tree_util.tree_map_with_path(dyadic, variables), x


# Jitted here, so that all tests share one program for each model and shape.


@partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, x, trace=()):
    return model.apply(variables, x, trace)


@partial(jax.jit, static_argnums=0)
def window(model, variables, state, x):
    return model.apply(variables, state, x, method="run")


@partial(jax.jit, static_argnums=0)
def windows(model, variables, x):
    """The run at once, its first 3 steps, those after them, and those after them from rest."""
    run = partial(model.apply, variables, method="run")
    first = run(None, x[:3])
    return run(None, x), first, run(first[0], x[3:]), run(None, x[3:])


@partial(jax.jit, static_argnums=0)
def gradients(model, variables, x, weights):
    return jax.grad(lambda variables: (weights * model.apply(variables, x)[0]).sum())(variables)


@every_model
def test_logits_are_the_scaled_counts_of_the_output(name):
    model, variables, x = started(name)
    logits, activity = apply(model, variables, x)
    assert logits.shape == (B, CLASSES) and logits.dtype == jnp.float32
    assert len(np.unique(logits)) > 1
    np.testing.assert_array_equal(logits, model.logit_scale * activity["output"].events)


@every_model
def test_activity_counts_what_enters_each_kernel_and_the_output(name):
    model, variables, x = started(name)
    logits, activity, traces = apply(model, variables, x, model.layer_names)
    names = model.layer_names
    assert tuple(activity) == (*(f"{layer}/kernel" for layer in names), "output")
    assert tuple(traces) == names
    signals = [x, *(traces[layer].spikes for layer in names)]
    for count, signal in zip(activity.values(), signals, strict=True):
        summed = np.asarray(signal).sum(0).reshape(B, -1)
        assert 0 < summed.mean() < T and set(np.unique(signal)) == {0.0, 1.0}
        np.testing.assert_array_equal(count.events.reshape(B, -1), summed)
        np.testing.assert_array_equal(count.nonzero, summed.sum(1))
        assert count.nonzero.dtype == jnp.int32 and count.saturated.tolist() == [0] * B
    for layer in names:
        assert traces[layer].membrane.shape == traces[layer].spikes.shape
    assert_trees_equal(apply(model, variables, x), (logits, activity))


@every_model
def test_windows_add_up_to_one_long_run(name):
    model, variables, x = started(name)
    whole, first, second, restarted = windows(model, variables, x)
    assert_trees_equal(second[0], whole[0])
    assert_trees_equal(jax.tree.map(np.add, first[1], second[1]), whole[1])
    assert (np.asarray(restarted[1][0]) != second[1][0]).any()  # the state matters


@every_model
def test_none_is_the_state_at_rest(name):
    model, variables, x = started(name)
    at_rest = jax.jit(model.rest, static_argnums=(0, 1))(B, x.shape[2:])
    assert_trees_equal(
        window(model, variables, at_rest, x), windows(model, variables, x)[0]
    )


@every_model
def test_jit_changes_nothing(name):
    model, variables, x = started(name)
    names = model.layer_names
    assert_trees_equal(
        apply(model, variables, x, names), model.apply(variables, x, names)
    )


@every_model
def test_samples_of_a_batch_do_not_meet(name):
    model, variables, x = started(name)
    together = jax.tree.map(np.asarray, apply(model, variables, x))
    for i in range(B):
        alone = apply(model, variables, np.asarray(x)[:, i : i + 1])
        assert_trees_equal(alone, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together))


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@jax.jit
def events_of(x, saturated=0):
    spikes = SpikeTensor.from_dense(x).to_event(N)
    return SpikeTensor.from_event(spikes.data, N, saturated=saturated)


@pytest.mark.parametrize("name", ["mlp_learned", "mlp_current"])
def test_events_and_a_dense_train_give_the_same_run_and_counts(name):
    model, variables, x = started(name)
    assert_trees_equal(apply(model, variables, events_of(x)), apply(model, variables, x))


@pytest.mark.parametrize("name", ["mlp_learned", "mlp_current"])
def test_events_and_a_dense_train_give_the_same_gradient(name):
    model, variables, x = started(name)
    variables = jax.tree.map(
        lambda leaf: leaf + 0.02 * normal(leaf.size, leaf.shape), variables
    )
    weights = normal(3, (B, CLASSES))
    by_events, by_train = (gradients(model, variables, form, weights) for form in (events_of(x), x))
    for leaf in jax.tree.leaves(by_train):
        assert (np.asarray(leaf) != 0).any()
    assert_trees_close(by_events, by_train, 1e-5)


def test_spikes_lost_by_the_input_are_passed_on_as_saturated():
    model, variables, x = started("mlp")
    count = apply(model, variables, events_of(x, np.array([4, 0, 2])))[1]["dense0/kernel"]
    assert count.saturated.tolist() == [4, 0, 2]


def test_the_output_of_every_cnn_layer_has_the_shape_of_its_state():
    model, variables, x = started("cnn")
    traces = apply(model, variables, x, model.layer_names)[2]
    shapes = [traces[layer].membrane.shape[1:] for layer in model.layer_names]
    assert shapes == [(B, 4, 3, 2), (B, 2, 2, 3), (B, CLASSES)]
    assert [state.v.shape for state in jax.eval_shape(lambda: model.rest(B, MAP))] == shapes


# Synapses


def ones_where(variables, density=1.0, seed=0):
    """Variables whose kernels are 1 at a share ``density`` of their entries and 0 elsewhere."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (random.random(leaf.shape) < density).astype(np.float32),
                        variables)


def test_a_spike_reaches_400_hidden_and_10_output_neurons_of_the_default_mlp():
    model = MLP()
    variables = ones_where(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1, 784))))
    synapses = model.synapses(variables, (784,))
    assert (fan_out(synapses["dense0/kernel"], (784,)) == 400).all()
    assert (fan_out(synapses["dense1/kernel"], (400,)) == 10).all()
    assert list(synapses) == ["dense0/kernel", "dense1/kernel"]


def test_fan_out_of_a_pruned_mlp_counts_the_synapses_left():
    model, variables, _ = started("mlp_learned")
    pruned = ones_where(variables, 0.3)
    synapses = model.synapses(pruned, (N,))
    for name, inputs in (("dense0", N), ("dense1", HIDDEN), ("dense2", 5)):
        kernel = pruned["params"][name]["kernel"]
        assert 0 < kernel.mean() < 1
        left = fan_out(synapses[f"{name}/kernel"], (inputs,))
        np.testing.assert_array_equal(left, np.count_nonzero(kernel, axis=1))


def weights_leaving(kernel, shape, stride):
    """Non-zero weights of a "SAME" convolution that each input [H, W, C] meets, one by one."""
    size = kernel.shape[0]
    out = [-(-length // stride) for length in shape[:2]]
    before = [max((o - 1) * stride + size - s, 0) // 2 for o, s in zip(out, shape, strict=False)]
    count = np.zeros(shape)
    for y in range(out[0]):
        for x in range(out[1]):
            for i in range(size):
                for j in range(size):
                    row, column = y * stride + i - before[0], x * stride + j - before[1]
                    if 0 <= row < shape[0] and 0 <= column < shape[1]:
                        count[row, column] += np.count_nonzero(kernel[i, j], axis=-1)
    return count


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_fan_out_of_a_convolution_knows_stride_border_and_pruned_weights(density):
    model, variables, _ = started("cnn")
    pruned = ones_where(variables, density)
    synapses = model.synapses(pruned, MAP)
    params = pruned["params"]
    for name, shape in (("conv0", MAP), ("conv1", (4, 3, 2))):
        expected = weights_leaving(params[name]["kernel"], shape, 2)
        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(fan_out(synapses[f"{name}/kernel"], shape), expected)
    dense = fan_out(synapses["dense/kernel"], (2, 2, 3))
    np.testing.assert_array_equal(
        dense.reshape(-1), np.count_nonzero(params["dense"]["kernel"], axis=1)
    )


@pytest.mark.parametrize("name", ["mlp_learned", "cnn"])
def test_synapses_are_the_linear_maps_of_the_network(name):
    model, variables, x = started(name)
    traces = apply(model, variables, x, model.layer_names)[2]
    signal = x
    for layer, (key, synapse) in zip(
        model.layer_names, model.synapses(variables, x.shape[2:]).items(), strict=True
    ):
        assert key == f"{layer}/kernel"
        params = variables["params"][layer]
        neuron = params.get("spiking", {}).get("neuron", {})

        @jax.jit
        def spikes_of(signal, bias, neuron, synapse=synapse):
            current = jax.vmap(jax.vmap(synapse))(signal) + bias
            state = model.neuron.rest(current.shape[1:])
            return model.neuron.unroll(neuron, state, current)[1]

        spikes = spikes_of(signal, params["bias"], neuron)
        np.testing.assert_array_equal(spikes, traces[layer].spikes)
        signal = spikes


# Bad input


@pytest.mark.parametrize(("name", "shape"), [
    ("mlp", (B, N)), ("mlp", (T, B, N, 1)), ("cnn", (T, B, N)), ("cnn", (B, *MAP)),
])
def test_an_input_of_the_wrong_rank_is_refused_by_the_first_layer(name, shape):
    model, variables, _ = started(name)
    with pytest.raises(ValueError, match=rf"{model.layer_names[0]}: input must be \[T, B, "):
        apply(model, variables, np.zeros(shape, np.float32))


@every_model
def test_nan_in_the_input_or_a_parameter_is_refused_unless_traced(name):
    model, variables, x = started(name)

    def spoilt(leaf):
        return jnp.asarray(leaf, jnp.float32).at[(0,) * leaf.ndim].set(jnp.nan)

    for given in ((variables, spoilt(x)), (jax.tree.map(spoilt, variables), x)):
        with pytest.raises(ValueError, match="current must be finite, got NaN or infinity; look"):
            model.apply(*given)
        jax.jit(model.apply)(*given)


@every_model
def test_no_step_another_width_or_another_batch_than_the_state_is_refused(name):
    model, variables, x = started(name)
    x = np.asarray(x)
    with pytest.raises(ValueError):
        apply(model, variables, x[:0])
    with pytest.raises(ValueError, match="channels"):
        apply(model, variables, x[..., :-1])
    state = jax.eval_shape(lambda: model.rest(B - 1, x.shape[2:]))
    with pytest.raises(ValueError):
        jax.eval_shape(partial(window, model), variables, state, x)


@every_model
def test_an_unknown_layer_to_trace_is_refused(name):
    model, variables, x = started(name)
    with pytest.raises(ValueError, match=r"trace: layers must be among .*got \['dense7'\]"):
        apply(model, variables, x, (*model.layer_names, "dense7"))


def test_spikes_as_integers_or_booleans_are_spikes():
    model, variables, x = started("mlp")
    for dtype in (np.int32, np.int8, np.bool_):
        signal = np.asarray(x).astype(dtype)
        assert_trees_equal(apply(model, variables, signal), apply(model, variables, x))


def test_the_initial_kernel_has_the_asked_variance():
    gain, inputs, outputs = 3.0, 400, 300
    model = MLP((outputs, CLASSES), gain=gain)
    variables = jax.jit(model.init)(jax.random.key(4), jnp.zeros((1, 1, inputs)))
    kernel = np.asarray(variables["params"]["dense0"]["kernel"])
    count = inputs * outputs
    sigma = gain / math.sqrt(inputs)
    assert abs(kernel.mean()) < 5 * sigma / math.sqrt(count)
    assert abs(kernel.var() / sigma**2 - 1) < 5 * math.sqrt(2 / count)


def test_input_of_another_width_or_kind_is_refused():
    mlp, cnn = MLP(features=(4, 3)), CNN(channels=(2,), num_classes=3)
    variables = jax.eval_shape(mlp.init, jax.random.key(0), np.zeros((1, 1, 5), np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    with pytest.raises(ValueError, match="dense0: input must have 5 channels, got 6"):
        mlp.apply(variables, jnp.zeros((2, 1, 6)))
    with pytest.raises(ValueError, match="state must hold the 2 layers, got 1"):
        mlp.apply(variables, mlp.rest(1, (5,))[:1], jnp.zeros((2, 1, 5)), method="run")
    with pytest.raises(TypeError, match="conv0: input must be an array"):
        cnn.init(jax.random.key(0), SpikeTensor.from_dense(jnp.zeros((2, 1, 4, 4, 1))))
    with pytest.raises(ValueError, match="at least one layer"):
        MLP(features=()).init(jax.random.key(0), jnp.zeros((1, 1, 5)))


def test_a_recurrent_layer_can_be_traced():
    model = MLP(features=(4, 3), neuron=recurrent(lif()))
    x = np.ones((5, 2, 6), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    _, _, traces = apply(model, variables, x, ("dense0",))
    assert traces["dense0"].membrane.shape == (5, 2, 4)
