"""The loop and its parts: what a step computes, what an epoch sees, when a run stops."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import train_toy

from fastsnn_jax.train import (
    Event,
    LoopConfig,
    Plateau,
    epoch_order,
    eval_params,
    hold_out,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    stream_progress,
)
from fastsnn_jax.train.chunk import LIMIT, Chunk, Pace, run_chunks
from fastsnn_jax.train.journal import Journal, add_sums
from fastsnn_jax.train.plateau import PlateauState


def counted(**metrics):
    return {"samples": jnp.int32(2), "correct": jnp.int32(1)} | metrics


def square(params, batch, key):
    """Gradient params - batch mean, so that one SGD step can be done by hand."""
    return 0.5 * (params - batch.mean()) ** 2, counted()


def sgd_state(value=1.0, **options):
    return init_state(jnp.float32(value), optax.sgd(0.5), jax.random.key(0), **options)


# The step


def test_a_step_is_one_update_of_the_optimiser_times_the_rate_scale():
    step = make_train_step(square, optax.sgd(0.5))
    batch = jnp.array([4.0, 6.0])
    state, (loss, _) = step(sgd_state(), batch)
    assert (float(state.params), float(loss), int(state.step)) == (3.0, 8.0, 1)
    halved, _ = step(sgd_state()._replace(rate_scale=jnp.float32(0.5)), batch)
    assert float(halved.params) == 2.0


def test_a_step_draws_from_the_key_of_its_number_alone():
    def loss_fn(params, batch, key):
        return params * 0.0, counted(draw=jax.random.uniform(key))

    step = make_train_step(loss_fn, optax.sgd(0.5))
    key = jax.random.key(3)
    state = init_state(jnp.float32(1.0), optax.sgd(0.5), key)
    for number in range(3):
        state, (_, metrics) = step(state, None)
        assert metrics["draw"] == jax.random.uniform(jax.random.fold_in(key, number))


def test_the_average_forgets_the_first_parameters_at_a_growing_decay():
    step = make_train_step(square, optax.sgd(0.5), ema_decay=0.15)
    state = sgd_state(ema=True)
    assert eval_params(state) == 1.0
    state, _ = step(state, jnp.array([4.0, 6.0]))  # parameters 3, decay 1/10
    np.testing.assert_allclose(state.average, 0.1 * 1.0 + 0.9 * 3.0, rtol=1e-6)
    state, _ = step(state, jnp.array([4.0, 6.0]))  # parameters 4, decay min(0.15, 2/11)
    np.testing.assert_allclose(state.average, 0.15 * 2.8 + 0.85 * 4.0, rtol=1e-6)
    assert eval_params(state) is state.average


@pytest.mark.parametrize(("metrics", "message"), [
    ({"samples": jnp.int32(1)}, "keys samples and correct"),
    (counted(rate=jnp.bfloat16(0.5)), "rate.* must be an int32 or float32 sum, got bfloat16"),
    (counted(fired=jnp.array(True)), "fired.* must be an int32 or float32 sum, got bool"),
])
def test_a_step_refuses_metrics_that_are_not_sums(metrics, message):
    step = make_train_step(lambda params, batch, key: (params, metrics), optax.sgd(0.5))
    with pytest.raises(ValueError, match=message):
        step(sgd_state(), None)


def test_a_step_refuses_a_loss_per_sample_and_an_average_that_is_not_kept():
    with pytest.raises((ValueError, TypeError), match="scalar"):
        make_train_step(lambda p, b, k: (p * b, counted()), optax.sgd(0.5))(
            sgd_state(), jnp.zeros(2))
    for ema_decay, ema in ((0.5, False), (None, True)):
        with pytest.raises(ValueError, match="go together"):
            make_train_step(square, optax.sgd(0.5), ema_decay=ema_decay)(
                sgd_state(ema=ema), jnp.zeros(2))
    with pytest.raises(ValueError, match="ema_decay must be"):
        make_train_step(square, optax.sgd(0.5), ema_decay=1.0)


def test_parameters_that_are_not_finite_are_refused_at_the_start():
    with pytest.raises(ValueError, match="init_state: parameters must be finite"):
        sgd_state(float("nan"))


def noisy_squares(params, batch, key):
    """Mean loss and its sums over the rows of ``batch``; the key is reported, not used."""
    error = params["w"] * batch["x"] - batch["y"]
    return (error**2).mean(), {
        "samples": jnp.int32(error.size), "correct": (error > 0).sum(dtype=jnp.int32),
        "draw": jax.random.uniform(key), "rows": jnp.zeros(12).at[batch["row"]].add(1.0),
    }


def squares_batch():
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(12, 5)).astype(np.float32),
            "y": random.normal(size=(12, 5)).astype(np.float32), "row": np.arange(12)}


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_gives_the_update_of_the_whole_batch(parts):
    tx, params = optax.sgd(0.5), {"w": jnp.linspace(-1.0, 1.0, 5)}
    state = init_state(params, tx, jax.random.key(3))
    whole, in_parts = (
        make_train_step(noisy_squares, tx, accumulate=count)(state, squares_batch())
        for count in (1, parts)
    )
    np.testing.assert_allclose(in_parts[0].params["w"], whole[0].params["w"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(in_parts[1][0], whole[1][0], rtol=1e-6)
    metrics = in_parts[1][1]
    assert metrics["samples"] == 60 and metrics["correct"] == whole[1][1]["correct"]
    assert metrics["rows"].tolist() == [1.0] * 12  # every row is in one part
    key = jax.random.fold_in(jax.random.key(3), 0)
    draws = [jax.random.uniform(jax.random.fold_in(key, part)) for part in range(parts)]
    assert len(set(map(float, draws))) == parts
    np.testing.assert_allclose(metrics["draw"], sum(draws), rtol=1e-6)


def test_one_bad_part_spoils_the_loss_of_the_batch():
    def loss_fn(params, batch, key):  # the root's slope at zero is infinite, its value is fine
        return jnp.sqrt(params * batch).sum(), counted()

    step = make_train_step(loss_fn, optax.sgd(0.5), accumulate=2)
    _, (loss, _) = step(sgd_state(), jnp.array([1.0, 0.0]))
    assert jnp.isnan(loss)
    _, (loss, _) = step(sgd_state(), jnp.array([1.0, 4.0]))
    assert loss == 1.5


def test_a_batch_that_cannot_be_split_is_refused():
    step = make_train_step(square, optax.sgd(0.5), accumulate=3)
    for batch in (jnp.zeros(4), jnp.float32(1.0)):
        with pytest.raises(ValueError, match="accumulate=3 must divide the leading axis"):
            step(sgd_state(), batch)
    with pytest.raises(ValueError, match="accumulate must be >= 1"):
        make_train_step(square, optax.sgd(0.5), accumulate=0)


# Chunks


def counting_chunk():
    def step(state, batch):
        return 0.9 * state + jnp.sin(batch), (state, batch)

    return Chunk(step, lambda data, index: data[index])


def collect(lengths):
    chunk, data, order = counting_chunk(), jnp.arange(10.0), jnp.array([3, 1, 4, 1, 5, 9, 2])
    state, start, rows = jnp.float32(0.1), 0, []
    for length in lengths:
        state, outputs = chunk(state, data, order, start, length)
        rows += zip(*(np.asarray(buffer[:length]) for buffer in outputs), strict=True)
        start += length
    return float(state), rows


def test_every_cut_into_chunks_gives_the_same_bits():
    state, rows = collect([7])
    assert [batch for _, batch in rows] == [3, 1, 4, 1, 5, 9, 2]
    by_hand = 0.1
    for batch in (3, 1, 4, 1, 5, 9, 2):
        by_hand = 0.9 * by_hand + np.sin(batch)
    np.testing.assert_allclose(state, by_hand, rtol=1e-5)
    for cut in ([1] * 7, [3, 4], [2, 2, 3], [6, 0, 1]):
        assert collect(cut) == (state, rows)


def test_run_chunks_covers_the_asked_steps_once():
    data, order = jnp.arange(10.0), jnp.arange(10)
    seen = [
        batch for _, (_, rows) in
        run_chunks(counting_chunk(), jnp.float32(0.0), data, order, 2, 9, Pace(1e-9))
        for batch in rows
    ]
    assert seen == [2, 3, 4, 5, 6, 7, 8]


def test_the_pace_starts_at_one_ignores_the_first_time_and_grows_fourfold_to_the_target():
    pace = Pace(1.0)
    lengths = []
    for seconds_per_step in (60.0, 0.01, 0.01, 0.01, 0.01, 0.5, 5.0):
        lengths.append(pace.length(10_000))
        pace.update(lengths[-1], lengths[-1] * seconds_per_step)
    assert lengths == [1, 1, 4, 16, 64, 100, 2] and pace.length(10_000) == 1
    pace.update(500, 1e-4)
    assert pace.length(10_000) == LIMIT and pace.length(3) == 3


# What an epoch sees


def test_an_epoch_sees_no_sample_twice_and_drops_less_than_a_batch():
    order = epoch_order(seed=1, epoch=2, size=23, batch_size=5)
    assert order.shape == (4, 5) and order.dtype == np.int32
    assert len(set(order.ravel())) == 20 and set(order.ravel()) <= set(range(23))


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(s, e): tuple(epoch_order(s, e, 50, 50)[0]) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(epoch_order(1, 2, 50, 50)[0])


def test_every_sample_comes_first_equally_often():
    firsts = np.bincount([epoch_order(0, epoch, 4, 4)[0, 0] for epoch in range(400)], minlength=4)
    assert (abs(firsts - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)).all()


def test_holding_out_splits_the_samples():
    kept, held = hold_out(seed=0, size=11, count=4)
    assert (len(kept), len(held)) == (7, 4) and set(kept) | set(held) == set(range(11))
    assert not np.array_equal(held, hold_out(seed=1, size=11, count=4)[1])


@pytest.mark.parametrize("call", [
    lambda: epoch_order(0, 0, 4, 5), lambda: epoch_order(-1, 0, 4, 2), lambda: hold_out(0, 4, 4),
    lambda: epoch_order(0, 0, 4, 0), lambda: rows_of((np.zeros(3), np.zeros(4))),
    lambda: LoopConfig(epochs=0, batch_size=1), lambda: LoopConfig(epochs=1, batch_size=0),
    lambda: LoopConfig(epochs=1, batch_size=1, monitor="f1"),
    lambda: LoopConfig(epochs=1, batch_size=1, target=101.0), lambda: Plateau(factor=0.0),
])
def test_numbers_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="got"):
        call()


# Host arithmetic and rules


def test_integer_sums_stay_exact_beyond_32_bits_and_float_sums_do_not_depend_on_the_cut():
    rows = {"spikes": np.full((3, 2), 2**31 - 1, np.int32),
            "loss": np.array([1.0, 2.0**-24, 2.0**-24], np.float32)}
    whole = add_sums(rows, {})
    parts = {}
    for i in range(3):
        parts = add_sums(jax.tree.map(lambda leaf, i=i: leaf[i:i + 1], rows), parts)
    assert whole == parts
    assert whole == {"spikes": [3 * (2**31 - 1)] * 2, "loss": 1.0 + 2.0**-23}


def test_the_plateau_rule_halves_on_the_third_bad_epoch_and_counts_anew():
    rule, state = Plateau(), PlateauState()
    scores = [50.0, 50.004, 50.0, 40.0, 50.0, 60.0, 60.0, 60.0, 60.0]
    scales = []
    for score in scores:  # 50.004 is within the threshold of 50 * 1e-4
        state = rule.update(state, score)
        scales.append(state.scale)
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_the_plateau_rule_of_a_loss_waits_for_lower_ones():
    rule, state = Plateau(patience=1, threshold=0.25), PlateauState()
    scales = []
    for loss in (4.0, 3.5, 2.5, 2.0, 2.0):  # good is below 3, then below 1.875
        state = rule.update(state, loss, lowest=True)
        scales.append(state.scale)
    assert scales == [1, 1, 1, 1, 0.5] and state.best == 2.5


def test_a_journal_survives_json_and_refuses_the_fields_of_another_version():
    journal = Journal({"seed": 3}, epoch=2, best_score=0.1)
    values = json.loads(json.dumps(journal.to_json()))
    assert Journal.from_json(values) == journal
    with pytest.raises(ValueError, match="unknown colour"):
        Journal.from_json(values | {"colour": 1})
    del values["steady_steps"], values["epoch"]
    with pytest.raises(ValueError, match="lacks epoch, steady_steps"):
        Journal.from_json(values)


# Evaluation


def test_an_evaluation_counts_every_sample_once_whatever_the_batch_size():
    x = np.arange(7, dtype=np.float32)

    def metrics_fn(params, batch, mask, key):
        return {
            "loss": jnp.where(mask, params * batch, 0.0).sum(),
            "correct": ((batch > 2) & mask).sum(), "samples": mask.sum(),
            "histogram": jnp.zeros(7, jnp.int32).at[batch.astype(int)].add(mask.astype(int)),
        }

    for batch_size in (1, 3, 7, 100):
        evaluate = make_evaluate(metrics_fn, rows_of(x), batch_size, jax.random.key(0))
        found = evaluate(jnp.float32(2.0))
        assert found == {"loss": 6.0, "correct": 4, "samples": 7, "accuracy": 100 * 4 / 7,
                         "histogram": [1] * 7}
        assert evaluate(jnp.float32(4.0))["loss"] == 12.0


def test_an_evaluation_gives_the_same_sums_again_and_other_noise_to_every_batch():
    def metrics_fn(params, batch, mask, key):
        return {"loss": jax.random.uniform(key), "correct": mask.sum(), "samples": mask.sum()}

    evaluate = make_evaluate(metrics_fn, rows_of(np.zeros(4)), 2, jax.random.key(5))
    draws = [jax.random.uniform(jax.random.fold_in(jax.random.key(5), i)) for i in range(2)]
    expected = (float(draws[0]) + float(draws[1])) / 4
    assert draws[0] != draws[1] and evaluate(())["loss"] == evaluate(())["loss"] == expected


def test_an_evaluation_sees_the_first_epoch_of_a_source_that_changes():
    def metrics_fn(params, batch, mask, key):
        return {"loss": batch.sum(), "correct": mask.sum(), "samples": mask.sum()}

    source = rows_of(np.zeros(3))._replace(data=lambda epoch: np.full(3, 5.0 + epoch))
    assert make_evaluate(metrics_fn, source, 3, jax.random.key(0))(())["loss"] == 5.0


def test_an_evaluation_refuses_missing_sums_and_no_samples():
    with pytest.raises(ValueError, match="must count loss, correct and samples"):
        make_evaluate(lambda p, b, m, k: {"loss": m.sum()}, rows_of(np.zeros(4)), 2,
                      jax.random.key(0))(())
    with pytest.raises(ValueError, match="must have samples"):
        make_evaluate(train_toy.sums, rows_of(np.zeros(0)), 2, jax.random.key(0))


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_writes_whole_lines_to_a_file_and_a_status_line_to_a_terminal():
    events = [Event("chunk", 1, 2, 5, 9, 0.25, 50.0, 1234.0, 3600.0),
              Event("epoch", 1, 2, 9, 9, 0.25, 50.0, None, None, 97.5, True, 0.125)]
    line = ("epoch 1/2  loss 0.2500  accuracy 50.00 %  validation loss 0.1250  "
            "validation 97.50 % (best)\n")
    status = "epoch 1/2  step 5/9  loss 0.2500  accuracy 50.00 %  1,234 samples/s  60:00 left"
    for stream, expected in ((io.StringIO(), line),
                             (Terminal(), f"\r{status}\033[K\r\033[K{line}")):
        progress = stream_progress(stream)
        for event in events:
            progress(event)
        assert stream.getvalue() == expected


def test_a_gradient_that_is_not_finite_makes_the_loss_nan():
    """Spikes hide NaN: the loss of a network with NaN parameters can look healthy."""

    def loss_fn(params, batch, key):
        del batch, key
        hidden = (params >= 0).astype(jnp.float32)  # False for NaN
        loss = jnp.sum(hidden) + 0.0 * jnp.sum(jnp.where(jnp.isnan(params), 0.0, params))
        return loss + jnp.sum(params - jax.lax.stop_gradient(params)), {
            "samples": jnp.int32(1), "correct": jnp.int32(0)
        }

    def poisoned(params, batch, key):
        loss, metrics = loss_fn(jnp.zeros(2), batch, key)
        # Finite value, NaN gradient.
        return loss + jnp.sum(jnp.where(False, jnp.sqrt(params), 0.0)), metrics

    tx = optax.sgd(0.1)
    state = init_state(jnp.zeros(2), tx, jax.random.key(0))
    assert jnp.isfinite(poisoned(jnp.zeros(2), None, None)[0])
    _, (loss, _) = make_train_step(poisoned, tx)(state, None)
    assert jnp.isnan(loss)
