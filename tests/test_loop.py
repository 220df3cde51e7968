"""The training loop: what it computes, keeps, reports, and when it stops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import train_toy

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.train import (
    LoopConfig,
    Plateau,
    Source,
    TrainingError,
    epoch_order,
    init_state,
    loop,
    make_train_step,
    rows_of,
    train,
)
from fastsnn_jax.train.chunk import Chunk, Pace, run_chunks
from fastsnn_jax.train.journal import Journal


def scripted(accuracies, losses=(1.0,) * 9):
    """An evaluation that says what the test wants and keeps the parameters it was given."""
    seen = []

    def evaluate(params):
        seen.append(jax.device_get(params))
        return {"accuracy": accuracies[len(seen) - 1], "loss": losses[len(seen) - 1]}

    return evaluate, seen


def test_the_toy_is_learned():
    result = train_toy.run(epochs=8)
    history = result.journal.history
    assert history["val_acc"][-1] > 90 and history["losses"][-1] < history["losses"][0] / 2


def test_the_result_does_not_depend_on_the_length_of_the_dispatches():
    whole = train_toy.outcome(train_toy.run(epochs=2, chunk_s=10.0))
    assert train_toy.outcome(train_toy.run(epochs=2, chunk_s=1e-9)) == whole


def test_totals_and_history_are_sums_and_means_over_the_batches():
    def loss_fn(params, batch, key):
        index = batch[0].sum(dtype=jnp.int32)
        return params * 0.0 + index.astype(jnp.float32), {
            "samples": jnp.int32(2), "correct": jnp.int32(1), "index": index}

    tx = optax.sgd(0.1)
    result = train(make_train_step(loss_fn, tx), rows_of((jnp.arange(7),)),
                   init_state(jnp.float32(0.0), tx, jax.random.key(0)),
                   LoopConfig(epochs=2, batch_size=2, seed=4))
    orders = [epoch_order(4, epoch, 7, 2) for epoch in range(2)]
    journal = result.journal
    assert journal.totals == {
        "samples": 12, "correct": 6, "index": int(orders[0].sum() + orders[1].sum())}
    assert journal.history["losses"] == [order.sum(1).mean() for order in orders]
    assert journal.history["train_acc"] == [50.0, 50.0] and journal.history["val_acc"] == []
    assert journal.stopped == "epochs" and journal.steady_samples == 10
    assert int(result.state.step) == 6


def test_the_source_decides_what_a_batch_is():
    text = jnp.arange(20)
    source = Source(
        lambda epoch: text, 17, lambda text, index: text[index[:, None] + jnp.arange(4)]
    )
    windows = []

    def step(state, batch):
        return state, batch

    chunk = Chunk(step, source.fetch)
    for _, rows in run_chunks(chunk, (), text, jnp.array([[0, 16], [5, 2]]), 0, 2, Pace(1.0)):
        windows += rows.tolist()
    assert windows == [[[0, 1, 2, 3], [16, 17, 18, 19]], [[5, 6, 7, 8], [2, 3, 4, 5]]]


def epochs_of(start):
    """Data of one shape that change with the epoch."""
    return lambda epoch: np.full((6, 2), start + 10.0 * epoch, np.float32)


def train_means(data, **config):
    """Runs steps whose loss is the mean of their batch."""

    def loss_fn(params, batch, key):
        return params * 0.0 + batch.mean(), {"samples": jnp.int32(14), "correct": jnp.int32(7)}

    tx = optax.sgd(0.1)
    return train(make_train_step(loss_fn, tx), rows_of(np.zeros((6, 2)))._replace(data=data),
                 init_state(jnp.float32(0.0), tx, jax.random.key(0)), LoopConfig(3, 2), **config)


def test_every_epoch_draws_from_its_own_data():
    journal = train_means(epochs_of(1.0)).journal
    assert journal.history["losses"] == [1.0, 11.0, 21.0]


def test_data_are_placed_again_only_when_they_are_another_object(monkeypatch):
    placed = []

    def replicate(mesh, tree, place=loop.replicate):
        placed.append(tree)
        return place(mesh, tree)

    monkeypatch.setattr(loop, "replicate", replicate)
    first, second = epochs_of(0.0)(0), epochs_of(0.0)(1)
    train_means([first, first, second].__getitem__)
    assert [tree is first for tree in placed[1:]] == [True, False] and placed[2] is second


def test_data_that_change_their_shape_are_refused():
    with pytest.raises(ValueError, match=r"stay float32\[6, 2\], got float32\[7, 2\]"):
        train_means(lambda epoch: np.zeros((6 + epoch, 2), np.float32))


def test_the_time_left_counts_steps_whatever_a_sample_is():
    events = []
    train_means(epochs_of(0.0), progress=events.append)
    known = [event for event in events if event.eta_s is not None]
    assert known and known[-1].eta_s == 0.0
    for event in known:
        done = 3 * (event.epoch - (event.kind != "epoch")) + event.step * (event.kind != "epoch")
        np.testing.assert_allclose(event.eta_s * event.samples_per_s, 14 * (9 - done), rtol=1e-9)


def test_a_run_that_monitors_the_loss_keeps_the_lowest_and_stops_by_it():
    accuracies, losses = [50.0, 60.0, 70.0, 80.0, 90.0], [3.0, 2.0, float("nan"), 2.5, 2.0]
    evaluate, seen = scripted(accuracies, losses)
    result = train_toy.run(epochs=5, evaluate=evaluate, monitor="loss", patience=2,
                           plateau=Plateau(patience=0))
    journal = result.journal
    assert (journal.best_score, journal.best_epoch, journal.epoch) == (2.0, 2, 4)
    assert journal.stopped == "patience" and float(result.state.rate_scale) == 0.25
    assert train_toy.digest(result.params) == train_toy.digest(seen[1])
    evaluate, _ = scripted(accuracies, losses)
    stopped = train_toy.run(epochs=5, evaluate=evaluate, monitor="loss", target=60.0).journal
    assert (stopped.epoch, stopped.stopped) == (2, "target")


def test_figures_of_an_evaluation_are_kept_epoch_by_epoch():
    def evaluate(params):
        return {"accuracy": 50.0, "loss": 1.0, "figures": {"rate": float(params)}}

    plain = train_means(epochs_of(1.0), evaluate=scripted([50.0] * 3)[0])
    assert "figures" not in plain.journal.history
    kept = train_means(epochs_of(1.0), evaluate=evaluate).journal.history
    assert kept["figures"] == [{"rate": 0.0}] * 3


def test_the_best_parameters_are_returned_and_saved_beside_the_latest(tmp_path):
    evaluate, seen = scripted([50.0, 70.0, 70.0, 60.0])
    result = train_toy.run(Checkpoints(tmp_path), evaluate=evaluate)
    assert result.journal.best_epoch == 2 and result.journal.bad_epochs == 2
    assert train_toy.digest(result.params) == train_toy.digest(seen[1])
    items = Checkpoints(tmp_path).restore().items
    assert train_toy.digest(items["best"]) == train_toy.digest(seen[1])
    assert train_toy.digest(items["state"]["average"]) == train_toy.digest(seen[3])
    assert train_toy.digest(items["state"]["params"]) != train_toy.digest(seen[3])


@pytest.mark.parametrize(("rules", "accuracies", "epochs", "reason"), [
    ({"patience": 2}, [50.0, 49.0, 51.0, 51.0, 50.0, 99.0], 5, "patience"),
    ({"target": 60.0}, [50.0, 60.0, 70.0, 80.0, 90.0, 99.0], 2, "target"),
    ({"target": 60.0, "patience": 3}, [50.0] * 6, 4, "patience"),
    ({}, [50.0] * 6, 6, "epochs"),
])
def test_a_run_stops_by_the_rule_that_comes_first(rules, accuracies, epochs, reason):
    evaluate, _ = scripted(accuracies)
    journal = train_toy.run(epochs=6, evaluate=evaluate, **rules).journal
    assert (journal.epoch, journal.stopped) == (epochs, reason)


def test_a_plateau_lowers_the_rate_of_the_next_epochs():
    rule, tx = Plateau(factor=0.5, patience=0), optax.sgd(0.125)
    before, after, twice = (
        train_toy.run(epochs=n, evaluate=scripted([50.0] * 3)[0], ema=False, tx=tx, plateau=rule)
        .state for n in (1, 2, 3)
    )
    assert [float(state.rate_scale) for state in (before, after, twice)] == [1.0, 0.5, 0.25]
    kept = train_toy.run(epochs=3, evaluate=scripted([50.0] * 3)[0], ema=False, tx=tx).state
    assert train_toy.digest(kept.params) != train_toy.digest(twice.params)


def spoiled(spoil, at):
    """The toy's loss plus ``spoil(count >= at)``; a parameter counts the steps."""
    def loss_fn(params, batch, key):
        loss, metrics = train_toy.loss_fn(params["toy"], batch, key)
        count = jax.lax.stop_gradient(params["count"])
        return loss + spoil(count >= at, params["toy"]["output"]) - params["count"], metrics

    return loss_fn


def run_spoiled(spoil, at, checkpoints):
    tx = optax.sgd(1.0)
    params = {"toy": train_toy.params(), "count": jnp.float32(0.0)}
    return train(make_train_step(spoiled(spoil, at), tx), rows_of(train_toy.samples()),
                 init_state(params, tx, jax.random.key(0)), LoopConfig(epochs=3, batch_size=8),
                 checkpoints=checkpoints)


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_last_checkpoint(tmp_path):
    def spoil(now, weights):
        return jnp.where(now, jnp.nan, 0.0)

    with pytest.raises(TrainingError, match=f"loss is nan at step 33; .* is {tmp_path}/00000000"):
        run_spoiled(spoil, 32, Checkpoints(tmp_path))
    assert Checkpoints(tmp_path).restore().journal["epoch"] == 1


def test_a_gradient_that_is_not_finite_stops_at_its_step_and_is_never_saved(tmp_path):
    def spoil(now, weights):  # the root's slope at zero is infinite, its value is fine
        return jnp.sqrt(jnp.where(now, 0.0, 1.0) * weights**2).sum()

    with pytest.raises(TrainingError, match="loss is nan at step 50; .*00000000"):
        run_spoiled(spoil, 49, Checkpoints(tmp_path))
    assert Checkpoints(tmp_path).labels() == [0]
    saved = Checkpoints(tmp_path).restore().items["state"]["params"]
    assert np.isfinite(saved["toy"]["output"]).all()


def test_training_does_not_consume_the_state_it_is_given():
    tx = optax.sgd(0.1)
    state = init_state(train_toy.params(), tx, jax.random.key(0))
    source = rows_of(train_toy.samples())
    results = [
        train(make_train_step(train_toy.loss_fn, tx), source, state, LoopConfig(1, 8))
        for _ in range(2)
    ]
    assert train_toy.outcome(results[0]) == train_toy.outcome(results[1])


def test_checkpoints_inside_an_epoch_hold_the_position_and_the_partial_sums(tmp_path):
    checkpoints, found = Checkpoints(tmp_path), []

    def progress(event):
        if event.kind == "chunk" and checkpoints.labels():
            found.append(Journal(**checkpoints.restore().journal))

    train_toy.run(checkpoints, epochs=1, chunk_s=1e-9, save_every_s=0.0, progress=progress)
    assert [journal.position for journal in found] == list(range(1, 25))
    assert found[9].sums["samples"] == found[9].totals["samples"] == 80


def test_events_come_after_every_dispatch_every_so_many_steps_and_every_epoch():
    events = []
    result = train_toy.run(epochs=2, log_every=10, chunk_s=1e-9, progress=events.append)
    kinds = [(event.kind, event.epoch, event.step) for event in events]
    expected = []
    for epoch in (1, 2):
        for step in range(1, 26):
            expected += [("batch", epoch, step)] * (step % 10 == 0) + [("chunk", epoch, step)]
        expected.append(("epoch", epoch, 25))
    assert kinds == expected
    ends = [event for event in events if event.kind == "epoch"]
    history = result.journal.history
    assert [event.val_accuracy for event in ends] == history["val_acc"]
    assert [event.val_loss for event in ends] == history["val_losses"]
    assert [event.accuracy for event in ends] == history["train_acc"]
    assert events[-2].accuracy == history["train_acc"][-1] and events[-1].eta_s == 0.0


def test_batch_events_do_not_depend_on_the_length_of_the_dispatches():
    lines = []
    for chunk_s in (1e-9, 10.0):
        events = []
        train_toy.run(epochs=1, log_every=5, chunk_s=chunk_s, progress=events.append)
        lines.append([(e.step, e.loss, e.accuracy) for e in events if e.kind == "batch"])
    assert lines[0] == lines[1] and len(lines[0]) == 5
