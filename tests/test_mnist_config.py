"""What an MNIST run is made of: configuration, inputs, augmentation and optimisers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastsnn_jax import windows
from fastsnn_jax.activity import SpikeCount
from fastsnn_jax.config import read_fields
from fastsnn_jax.encoding import event_capacity, latency
from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import MnistConfig, preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan, augment, encode, plan_inputs
from fastsnn_jax.spikes import SpikeTensor

FIELDS = {field.name for field in dataclasses.fields(MnistConfig)}


# Configuration


BAD_VALUES = [
    *((name, value, ValueError) for name in (
        "dataset", "protocol", "model", "encoder", "input_synapse"
    ) for value in ("", "MNIST ", None, ["auto"], 1)),
    *((name, value, error) for name in (
        "num_steps", "latency_window", "latency_winners", "epochs", "batch_size",
        "inference_samples",
    ) for value, error in (
        (0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError),
    )),
    ("seed", -1, ValueError), ("seed", 2**31, ValueError), ("seed", 0.5, TypeError),
    ("patience", 0, ValueError), ("patience", 1.5, TypeError),
    *((name, value, ValueError) for name in (
        "max_rate_hz", "threshold", "decay", "gain", "logit_scale", "learning_rate",
    ) for value in (0, 0.0, -0.5, float("nan"), float("inf"))),
    *((name, value, TypeError) for name in (
        "max_rate_hz", "threshold", "decay", "gain", "logit_scale", "learning_rate",
        "label_smoothing", "shift", "stretch", "latency_threshold",
    ) for value in ("1", True, None)),
    ("latency_winners", 5, ValueError),
    ("max_rate_hz", 1000.5, ValueError), ("decay", 1.001, ValueError),
    *((name, value, ValueError) for name, most in (
        ("label_smoothing", 1.0), ("shift", 8.5), ("stretch", 0.6), ("latency_threshold", 1.0),
        ("energy_weight", 1e7),
    ) for value in (-0.1, most, float("nan"))),
    ("ema_decay", 0.0, ValueError), ("ema_decay", 1.0, ValueError), ("ema_decay", "0.9", TypeError),
    ("learn_decay", 1, TypeError), ("learn_decay", None, TypeError), ("smoke", "yes", TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_VALUES, ids=str)
def test_a_value_that_is_not_allowed_is_refused_by_name(name, value, error):
    with pytest.raises(error, match=rf"^MnistConfig: {name} must be .*got ") as caught:
        MnistConfig(**{name: value})
    assert "\n" not in str(caught.value)


def test_no_field_goes_unchecked():
    assert {name for name, *_ in BAD_VALUES} == FIELDS


@pytest.mark.parametrize("fields", [
    {"model": "cnn"}, {"encoder": "latency"}, {"encoder": "direct"},
])
def test_an_event_synapse_needs_a_dense_layer_and_poisson_spikes(fields):
    with pytest.raises(ValueError, match="input_synapse 'event' needs model mlp and encoder pois"):
        MnistConfig(input_synapse="event", **fields)


def test_the_limits_themselves_are_allowed():
    MnistConfig(max_rate_hz=1000.0, decay=1.0, seed=0, num_steps=1, shift=0, stretch=0.5)
    MnistConfig(seed=2**31 - 1, ema_decay=None, patience=None, latency_threshold=0)


def test_an_unknown_protocol_or_field_is_refused():
    with pytest.raises(ValueError, match="preset: protocol must be one of default, few-events"):
        preset("fast")
    with pytest.raises(ValueError, match=r"preset: fields must be among .*, got \['epoch'\]"):
        preset(epoch=3)


@pytest.mark.parametrize("protocol", ["default", "few-events", "notebook"])
def test_a_configuration_comes_back_from_json(protocol, tmp_path):
    config = preset(protocol, seed=5, max_rate_hz=12.5)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert preset(**read_fields("config", path)) == config
    assert set(config.to_json()) == FIELDS and config.protocol == protocol


def test_given_fields_win_over_the_protocol():
    assert preset("notebook", learning_rate=0.5).learning_rate == 0.5
    assert preset(protocol="notebook").patience == 5


def test_only_the_notebook_selects_on_the_test_set():
    chosen = {name: preset(name).selected_on for name in ("default", "few-events", "notebook")}
    assert chosen == {"default": "validation", "few-events": "validation", "notebook": "test"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000])
def test_a_file_that_holds_no_json_object_is_no_configuration(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config: .*config.json must "):
        read_fields("config", tmp_path / "config.json")


# Inputs


def image_of(rows):
    """One image uint8[1, H, W, 1] from nested lists."""
    return np.array(rows, np.uint8)[None, ..., None]


def test_the_plan_measures_the_busiest_image():
    dark, bright = image_of([[0, 51], [0, 0]]), image_of([[255, 255], [102, 0]])
    plan = plan_inputs(preset(max_rate_hz=20.0), np.concatenate([dark, bright]))
    assert plan.density == pytest.approx((1 + 1 + 0.4) * 0.02 / 4)
    assert plan.synapse == "event"  # far below a tenth, on a CPU


def test_the_slots_leave_room_for_a_stretched_image_and_the_density_does_not():
    white = np.full((1, 20, 10, 1), 255, np.uint8)  # at 100 Hz 20 spikes per step
    plain, stretched = (plan_inputs(preset(max_rate_hz=100.0, stretch=s), white) for s in (0, 0.5))
    assert plain.capacity == event_capacity(20, 200) == 56
    assert stretched.capacity == event_capacity(80, 200) == 144
    assert plain.density == stretched.density == pytest.approx(0.1)


@pytest.mark.parametrize(("fields", "synapse"), [
    ({}, "event"),
    ({"input_synapse": "event"}, "event"),
    ({"input_synapse": "dense"}, "dense"),
    ({"max_rate_hz": 900.0}, "dense"),
    ({"max_rate_hz": 900.0, "input_synapse": "event"}, "event"),
    ({"model": "cnn"}, "dense"),
    ({"encoder": "latency"}, "dense"),
    ({"encoder": "direct"}, "dense"),
])
def test_the_input_synapse_is_chosen_by_density_unless_it_is_given(fields, synapse):
    plan = plan_inputs(preset(**fields), image_of([[255, 255], [0, 0]]))
    assert plan.synapse == synapse and (plan.density is None) == ("encoder" in fields)


def test_on_an_accelerator_the_dense_product_is_chosen(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert plan_inputs(preset(), image_of([[9, 0]])).synapse == "dense"


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_encoder_gives_the_network_its_shape(model):
    images = np.linspace(0, 1, 3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2, 1)
    shape = (5, 3, 8) if model == "mlp" else (5, 3, 4, 2, 1)
    for encoder in ("poisson", "latency", "direct"):
        config = preset(model=model, encoder=encoder, num_steps=5, latency_threshold=0.25,
                        latency_window=3)

        @jax.jit
        def both(images, config=config):
            signal = encode(config, InputPlan("dense", 8, 0.1), jax.random.key(0), images)
            return signal, latency(images.reshape(shape[1:]), 5, threshold=0.25, window=3)

        signal, early = both(images)
        assert signal.shape == shape
        if encoder == "latency":
            np.testing.assert_array_equal(signal, early)
        if encoder == "direct":
            np.testing.assert_array_equal(signal[4], images.reshape(shape[1:]))


def test_both_synapses_read_the_same_spikes():
    images = np.random.default_rng(1).random((3, 4, 5, 1), np.float32)
    config = preset(num_steps=6, max_rate_hz=400.0)

    @jax.jit
    def both(images):
        dense, event = (
            encode(config, InputPlan(synapse, 20, 0.4), jax.random.key(2), images)
            for synapse in ("dense", "event")
        )
        assert isinstance(event, SpikeTensor)
        return dense, event.to_dense().data

    dense, expanded = both(images)
    assert np.asarray(dense).sum() > 50
    np.testing.assert_array_equal(expanded, dense)


# Augmentation


IMAGES = np.random.default_rng(7).random((4, 9, 11, 1), np.float32)


def moved_by(config, images=IMAGES, seed=0):
    """`augment` in one program of its own, as the draws of `drawn` differ from call to call."""
    moved = jax.jit(lambda images: augment(config, jax.random.key(seed), images))(images)
    return np.asarray(moved)


def test_without_shift_and_stretch_images_stay_as_they_are():
    assert augment(preset(shift=0.0, stretch=0.0), jax.random.key(0), IMAGES) is IMAGES


def test_vanishing_shift_and_stretch_change_next_to_nothing():
    moved = moved_by(preset(shift=1e-6, stretch=1e-6))
    np.testing.assert_allclose(moved, IMAGES, atol=1e-4)


def drawn(monkeypatch, *values):
    """Makes the random draws of `augment` the given shares of their bounds, in order."""
    shares = iter(values)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, minval, maxval: jnp.full(
        shape, next(shares) * maxval))


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-2, 3)])
def test_a_shift_by_whole_pixels_moves_the_image_and_fills_with_zeros(monkeypatch, down, right):
    drawn(monkeypatch, 0.0, -down / 4, 0.0, -right / 4)
    moved = moved_by(preset(shift=4.0, stretch=0.0))
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (4, 4), (4, 4), (0, 0)))
    expected = padded[:, 4 - down : 13 - down, 4 - right : 15 - right]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_half_a_pixel_averages_two_neighbours(monkeypatch):
    drawn(monkeypatch, 0.0, 0.0, 0.0, 0.5)
    moved = moved_by(preset(shift=1.0, stretch=0.0))
    expected = (IMAGES[:, :, :-1] + IMAGES[:, :, 1:]) / 2
    np.testing.assert_allclose(moved[:, :, :-1], expected, atol=1e-6)


def test_a_shear_moves_each_row_by_its_distance_from_the_centre(monkeypatch):
    drawn(monkeypatch, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    moved = moved_by(preset(shift=0.0, stretch=0.5))
    for row, offset in ((4, 0), (6, 1), (8, 2)):  # half a pixel a row from the middle one, 4
        np.testing.assert_allclose(
            moved[:, row, : 11 - offset], IMAGES[:, row, offset:], atol=1e-6)
        assert (moved[:, row, 11 - offset :] == 0).all()


def test_a_stretch_keeps_the_centre_and_moves_by_distance_from_it(monkeypatch):
    drawn(monkeypatch, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # rows sampled 1.5 pixels apart
    moved = moved_by(preset(shift=0.0, stretch=0.5))
    np.testing.assert_allclose(moved[:, 4], IMAGES[:, 4], atol=1e-6)
    np.testing.assert_allclose(moved[:, 6], IMAGES[:, 7], atol=1e-6)
    np.testing.assert_allclose(moved[:, 3], (IMAGES[:, 2] + IMAGES[:, 3]) / 2, atol=1e-6)


def test_a_shift_keeps_the_mass_of_what_stays_inside():
    inside = np.zeros((4, 9, 11, 1), np.float32)
    inside[:, 3:6, 3:8] = IMAGES[:, 3:6, 3:8]
    moved = moved_by(preset(shift=2.0, stretch=0.0), inside, seed=1)
    np.testing.assert_allclose(moved.sum((1, 2, 3)), inside.sum((1, 2, 3)), rtol=1e-5)
    assert len({float(image[3].sum()) for image in moved}) > 1  # each moves its own way


def test_the_key_decides_and_jit_changes_nothing():
    config = preset(shift=1.0, stretch=0.1)
    images = jnp.asarray(IMAGES)
    first = augment(config, jax.random.key(3), images)
    np.testing.assert_array_equal(augment(config, jax.random.key(3), images), first)
    assert (augment(config, jax.random.key(4), images) != first).any()
    jitted = jax.jit(lambda key: augment(config, key, images))(jax.random.key(3))
    np.testing.assert_allclose(jitted, first, atol=1e-6)
    assert first.min() >= 0 and first.max() <= 1


# Networks


def test_totals_follow_the_layers_where_jit_sorts_them_by_name():
    model = MLP((2,) * 11)
    activity = {
        key: SpikeCount(jnp.zeros((2, 1)), jnp.array([2**i, 2**i]), jnp.array([i, 99]))
        for i, key in enumerate(network.activity_keys(model))
    }
    activity = jax.jit(lambda given: given)(activity)
    assert list(activity)[2] == "dense10/kernel"  # which is the last but one
    totals = network.spike_totals(model, activity, jnp.array([True, False]))
    assert totals == {"input": 1, "hidden": 2**11 - 2, "output": 2**11, "saturated": 66}


def test_the_record_of_an_mlp_tells_its_synapses_and_fan_outs():
    config = preset(learn_decay=False)
    fans = network.fan_outs(network.build_model(config), (784,))
    assert network.architecture(config, fans) == (
        784, 400, 10, 1.0, 0.9, 784 * 400, 400 * 10, 400, 10)


def test_fan_outs_of_a_cnn_are_those_of_every_place_in_the_map():
    fans = network.fan_outs(CNN((2, 3)), (4, 8, 1))
    along = np.array([1, 1, 2, 1, 2, 1, 2, 1])  # windows of 3 at 0, 2, 4, 6 that hold each place
    assert list(fans) == ["conv0/kernel", "conv1/kernel", "dense/kernel"]
    np.testing.assert_array_equal(fans["conv0/kernel"][..., 0], 2 * np.outer(along[:4], along))
    for channel in range(2):
        np.testing.assert_array_equal(
            fans["conv1/kernel"][..., channel], 3 * np.outer(along[:2], along[:4]))
    np.testing.assert_array_equal(fans["dense/kernel"], np.full(1 * 2 * 3, 10))


# Optimisers


def notebook_adam(params, gradients, rate):
    """torch: clip_grad_norm_(1.0), then Adam(weight_decay=1e-5), in float64."""
    mean = {name: 0.0 for name in params}
    square = {name: 0.0 for name in params}
    for step, gradient in enumerate(gradients, start=1):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        for name, leaf in gradient.items():
            leaf = leaf * min(1.0, 1.0 / norm) + 1e-5 * params[name]
            mean[name] = 0.9 * mean[name] + 0.1 * leaf
            square[name] = 0.999 * square[name] + 0.001 * leaf**2
            root = np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
            params = params | {name: params[name] - rate * mean[name] / (1 - 0.9**step) / root}
    return params


def test_the_notebook_clips_then_adds_l2_on_all_parameters_then_takes_adams_step():
    random = np.random.default_rng(0)
    # Large parameters, and gradients so small that the decay shows in Adam's direction.
    params = {"kernel": 50 * random.normal(size=(3, 2)), "bias": 50 * random.normal(size=2)}
    gradients = [
        {name: scale * random.normal(size=leaf.shape) for name, leaf in params.items()}
        for scale in (3.0, 1e-4, 1e-3)
    ]
    optimiser = network.build_optimiser(preset("notebook"), 7)
    moved = jax.tree.map(jnp.float32, params)
    state = optimiser.tx.init(moved)
    for gradient in gradients:
        updates, state = optimiser.tx.update(jax.tree.map(jnp.float32, gradient), state, moved)
        moved = optax.apply_updates(moved, updates)
    expected = notebook_adam(params, gradients, 3e-3)
    for name, start in params.items():
        np.testing.assert_allclose(moved[name] - start, expected[name] - start, atol=2e-5)
        assert np.abs(expected[name] - start).max() > 2e-3
    assert optimiser[1:] == ("adam", 1e-5, 1.0)


def test_our_protocols_take_adam_with_cosine_decay_to_zero():
    optimiser = network.build_optimiser(preset(learning_rate=0.5), 4)
    params = jnp.zeros(1)
    state, sizes = optimiser.tx.init(params), []
    for _ in range(5):
        updates, state = optimiser.tx.update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))
    expected = [0.5 * (1 + np.cos(np.pi * i / 4)) / 2 for i in range(5)]
    np.testing.assert_allclose(sizes, expected, atol=1e-5)
    assert optimiser[1:] == ("adam, cosine decay", 0.0, None)


@pytest.mark.parametrize("encoder", [
    "poisson", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latency", "direct")),
])
def test_a_long_run_in_windows_equals_the_run_at_once(encoder):
    config = preset(encoder=encoder, num_steps=windows.AT_ONCE + 32, latency_window=60)
    images = np.random.default_rng(0).random((2, 4, 3, 1)).astype(np.float32)
    model = network.build_model(config)
    params = jax.jit(lambda key: network.init_params(config, model, (4, 3, 1), key))(
        jax.random.key(0))
    plan = InputPlan("dense", 1, 0.0)
    metrics = network.make_metrics(model, config, plan, per_neuron=True)
    labels = np.zeros(2, np.int32)
    pixels = np.uint8(255 * images)

    @jax.jit
    def both(params, pixels, key):
        counted = metrics(params, (pixels, labels), np.ones(2, bool), key)
        signal = encode(config, plan, key, jnp.float32(pixels) / 255)
        return counted, model.apply({"params": params}, signal)[1]

    counted, activity = both(params, pixels, jax.random.key(1))
    for name in ("dense1/kernel", "output"):
        np.testing.assert_array_equal(
            counted["activity"][name]["per_neuron"], activity[name].events.sum(0)
        )
    assert activity["dense1/kernel"].nonzero.sum() > 0
