"""`Trainer` learns a language model from any iterable of token batches; its loss and its config."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastsnn_jax.activity import TokenSpikes
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.train import (
    Interrupted,
    TrainConfig,
    Trainer,
    TrainingError,
    init_state,
    make_train_step,
    next_token_loss,
    token_run,
)

VOCABULARY, BATCH, LENGTH = 7, 4, 5


class Bigram:
    """Logits read from a row per token, with dropout; "table" counts id spikes a token."""

    def init(self, key, tokens):
        assert tokens.shape == (BATCH, LENGTH) and tokens.dtype == jnp.int32
        return {"params": {"table": jax.random.normal(key, (VOCABULARY, VOCABULARY)),
                           "bias": jnp.zeros(VOCABULARY)}}

    def apply(self, variables, tokens, train=False, rngs=None):
        logits = variables["params"]["table"][tokens] + variables["params"]["bias"]
        if train:
            logits = logits * jax.random.bernoulli(rngs["dropout"], 0.9, logits.shape)
        counts = TokenSpikes(tokens, 2 * tokens, tokens + 1, 0 * tokens, 1.0 * tokens)
        return logits, {"table": counts, "analog": tokens.sum()}


def batches(count, start=0):
    """Random tokens, but each is mostly followed by the next id."""
    for number in range(start, start + count):
        random = np.random.default_rng(number)
        first = random.integers(0, VOCABULARY, (BATCH, 1))
        yield (first + np.arange(LENGTH + 1) * random.integers(1, 3)) % VOCABULARY


def fit(config=None, count=9, progress=None, source=None, model=None, **options):
    config = config or TrainConfig(max_steps=9, log_every=4, lr=0.05)
    run = Trainer(model or Bigram(), config, progress)
    return run, run.fit(batches(count) if source is None else source, **options)


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@functools.cache
def whole():
    """History and final state of the run that nothing cuts short."""
    run, state = fit()
    return run.history, bits(state)


def press_ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)


# The trainer


def test_ten_steps_on_one_batch_lower_the_loss():
    run, state = fit(TrainConfig(max_steps=10, lr=0.1), source=list(batches(1)) * 20)
    assert len(run.history) == 10 and run.history[-1] < 0.8 * run.history[0]
    assert int(state.step) == 10 and run.stopped == "max_steps"


def test_the_trainer_does_the_steps_of_its_parts():
    config = TrainConfig(max_steps=5, log_every=2, lr=0.05, seed=3)
    init_key, run_key = jax.random.split(jax.random.key(3))
    step = jax.jit(make_train_step(next_token_loss(Bigram()), config.optimizer()))
    variables = Bigram().init(init_key, jnp.zeros((BATCH, LENGTH), jnp.int32))
    state, losses = init_state(variables, config.optimizer(), run_key), []
    for tokens in batches(5):
        state, (loss, _) = step(state, jnp.asarray(tokens, jnp.int32))
        losses.append(float(loss))
    run, trained = fit(config)
    np.testing.assert_allclose(run.history, losses, rtol=1e-6)
    for found, expected in zip(*map(jax.tree.leaves, (trained, state)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_it_takes_as_many_batches_as_steps_and_says_why_it_stopped():
    source = batches(9)
    run, _ = fit(TrainConfig(max_steps=4), source=source)
    assert len(list(source)) == 5 and run.stopped == "max_steps"
    run, state = fit(TrainConfig(max_steps=40), count=3)
    assert (len(run.history), int(state.step), run.stopped) == (3, 3, "batches")


def test_variables_may_be_given_and_are_not_consumed():
    variables = {"params": {"table": jnp.eye(VOCABULARY), "bias": jnp.ones(VOCABULARY)}}
    states = [fit(TrainConfig(max_steps=2), variables=variables)[1] for _ in range(2)]
    assert bits(states[0]) == bits(states[1]) and variables["params"]["bias"].tolist() == [1.0] * 7


def test_every_integer_array_is_a_batch():
    config = TrainConfig(max_steps=3)
    kinds = [np.int64, np.uint8, jnp.asarray, np.ndarray.tolist]
    states = [bits(fit(config, source=map(kind, batches(3)))[1]) for kind in kinds]
    assert states == [states[0]] * len(states)


def test_events_come_every_so_many_steps_with_the_time_left():
    events = []
    run, _ = fit(progress=events.append)
    assert [(event.kind, event.step, event.steps) for event in events] == [
        ("batch", 4, 9), ("batch", 8, 9), ("batch", 9, 9)]
    assert [event.loss for event in events] == [run.history[i - 1] for i in (4, 8, 9)]
    for event, left in zip(events, (5, 1, 0), strict=True):
        np.testing.assert_allclose(
            event.eta_s * event.samples_per_s, left * BATCH * LENGTH, rtol=1e-9)


def test_the_accuracy_of_an_event_is_that_of_the_steps_since_the_last():
    class Three(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            logits, activity = super().apply(variables, tokens, train, rngs)
            return 0.0 * logits + jax.nn.one_hot(3, VOCABULARY), activity

    events = []
    fit(model=Three(), progress=events.append)
    targets = [tokens[:, 1:] for tokens in batches(9)]
    for event, steps in zip(events, (targets[:4], targets[4:8], targets[8:]), strict=True):
        np.testing.assert_allclose(event.accuracy, 100 * np.mean(np.array(steps) == 3))


# Checkpoints


def test_a_run_stopped_by_ctrl_c_resumes_bit_identical(tmp_path):
    config = TrainConfig(max_steps=7, log_every=1, lr=0.05, schedule="cosine", warmup_steps=2)
    whole, expected = fit(config)
    for at in (1, 5):
        out = tmp_path / str(at)

        def stop(event, at=at):
            if event.step == at:
                press_ctrl_c()

        stopped = Trainer(Bigram(), config, stop)
        with pytest.raises(Interrupted, match=f"after step {at}; resume from {out}/00000000"):
            stopped.fit(batches(9), out=out)
        assert stopped.history == whole.history[:at]
        for _ in ("continued", "finished"):
            resumed, state = fit(config, out=out, resume=True)
            assert bits(state) == bits(expected) and resumed.history == whole.history


def test_ctrl_c_while_waiting_for_a_batch_keeps_every_step(tmp_path):
    def waiting():
        yield from batches(3)
        press_ctrl_c()
        yield from batches(6, start=3)

    with pytest.raises(Interrupted, match="after step 3; resume from"):
        fit(source=waiting(), out=tmp_path)
    assert len(Checkpoints(tmp_path).restore().journal["history"]) == 3
    with pytest.raises(Interrupted, match="after step 3; nothing was kept"):
        fit(source=waiting())
    run, state = fit(out=tmp_path, resume=True)
    assert (run.history, bits(state)) == whole()


def test_a_run_goes_on_to_more_steps(tmp_path):
    fit(TrainConfig(max_steps=4, lr=0.05), out=tmp_path)
    run, state = fit(out=tmp_path, resume=True)
    assert (run.history, bits(state)) == whole()


def test_checkpoints_are_written_in_between_when_the_time_has_come(tmp_path, monkeypatch):
    monkeypatch.setattr(token_run, "SAVE_EVERY_S", 0.0)
    fit(out=tmp_path)  # now it has come after every step, and the newest two are kept
    assert Checkpoints(tmp_path).labels() == [7, 8]
    assert int(Checkpoints(tmp_path).restore().items["state"]["step"]) == 9


def test_a_resume_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        fit(out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="resume needs out"):
        fit(resume=True)
    config = TrainConfig(max_steps=2)
    fit(config, out=tmp_path)
    with pytest.raises(CheckpointError, match="already holds a run"):
        fit(config, out=tmp_path)
    with pytest.raises(CheckpointError, match="'seed': 0.*got.*'seed': 1"):
        fit(TrainConfig(seed=1), out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="'lr': 0.0003.*got.*'lr': 0.1"):
        fit(TrainConfig(lr=0.1), out=tmp_path, resume=True)
    falling = tmp_path / "falling"
    fit(TrainConfig(max_steps=2, schedule="cosine"), out=falling)
    with pytest.raises(CheckpointError, match="'max_steps': 2.*got.*'max_steps': 3"):
        fit(TrainConfig(max_steps=3, schedule="cosine"), out=falling, resume=True)
    with pytest.raises(CheckpointError, match="'model': 'Bigram'.*got.*'model': 'Trigram'"):
        fit(config, model=type("Trigram", (Bigram,), {})(), out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="batches must hold the 2 already seen, got 1"):
        fit(TrainConfig(max_steps=3), count=1, out=tmp_path, resume=True)
    Checkpoints(tmp_path / "other").save({"state": {"w": np.zeros(2)}}, {"epoch": 1})
    with pytest.raises(CheckpointError, match="another model or optimiser"):
        fit(out=tmp_path / "other", resume=True)


# What is refused


def spoiled(number, make):
    return [make(tokens) if i == number else tokens for i, tokens in enumerate(batches(9))]


@pytest.mark.parametrize(("source", "error", "message"), [
    ([], ValueError, "at least one batch"),
    (spoiled(0, lambda t: 0 * t + 7), ValueError, r"lie in 0..6, .* got 7..7 in .* step 1$"),
    (spoiled(6, lambda t: 0 * t - 1), ValueError, r"got -1..-1 in the batch of step 7"),
    (spoiled(6, lambda t: t + 2**32), ValueError, "in the batch of step 7"),
    (spoiled(0, lambda t: jnp.asarray(0 * t - 1)), ValueError, "got -1..-1 in .* step 1$"),
    (spoiled(6, lambda t: jnp.asarray(0 * t + 7)), ValueError, "got 7..7 in the batch of step 7"),
    (spoiled(2, lambda t: t[0]), ValueError, r"batch 3: tokens must be \[B, L \+ 1\].*got \(6,\)"),
    (spoiled(0, lambda t: t[:, :1]), ValueError, r"L at least 1, got \(4, 1\)"),
    (spoiled(0, lambda t: t[:0]), ValueError, r"got \(0, 6\)"),
    (spoiled(3, lambda t: t[:-1]), ValueError, r"shape \(4, 6\) .* got \(3, 6\); drop or fill"),
    (spoiled(1, lambda t: t * 1.0), TypeError, "batch 2: tokens must be integers, got .*float64"),
])
def test_batches_that_cannot_be_meant_are_refused(source, error, message):
    with pytest.raises(error, match=message):
        fit(source=source)


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    class Spoiled(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            logits, activity = super().apply(variables, tokens, train, rngs)
            return jnp.where((tokens == 6).all(), jnp.nan, logits), activity

    monkeypatch.setattr(token_run, "SAVE_EVERY_S", 0.0)
    source = spoiled(6, lambda t: 0 * t + 6)
    with pytest.raises(TrainingError, match=f"loss is nan at step 7; .* {tmp_path}/00000005;"):
        fit(model=Spoiled(), source=source, out=tmp_path)
    assert int(Checkpoints(tmp_path).restore().items["state"]["step"]) == 6


def test_a_model_that_does_not_keep_the_protocol_is_refused():
    class NoActivity(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            return super().apply(variables, tokens, train, rngs)[0], None

    class Last(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            logits, activity = super().apply(variables, tokens, train, rngs)
            return logits[:, -1], activity

    class Stateful(Bigram):
        def init(self, key, tokens):
            return super().init(key, tokens) | {"batch_stats": jnp.zeros(3)}

    for model, message in ((NoActivity(), r"\[4, 5, V\], activity dict\), .* NoneType"),
                           (Last(), r"got logits \(4, 7\)"),
                           (Stateful(), "only collection must be params, got .'batch_stats'.")):
        with pytest.raises(ValueError, match=message):
            fit(model=model)


# The loss


class Fixed:
    """Gives the logits it is handed, whatever the tokens."""

    def __init__(self, logits):
        self.logits = logits

    def apply(self, variables, tokens, train, rngs):
        assert train and list(rngs) == ["dropout"]
        big = jnp.full(tokens.shape, 2**24 + 1)
        counts = TokenSpikes(tokens, big, tokens * 0, tokens, 1.0 * tokens)
        return self.logits, {"a/kernel": counts, "b": tokens}


def test_the_loss_is_the_mean_cross_entropy_of_the_next_tokens():
    random = np.random.default_rng(0)
    logits, tokens = random.normal(size=(2, 3, 5)), random.integers(0, 5, (2, 4))
    log_share = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected, correct = 0.0, 0
    for b in range(2):
        for t in range(3):
            expected -= log_share[b, t, tokens[b, t + 1]] / 6
            correct += int(logits[b, t].argmax() == tokens[b, t + 1])
    loss_fn = next_token_loss(Fixed(jnp.asarray(logits, jnp.float32)))
    loss, metrics = loss_fn({}, jnp.asarray(tokens), jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    inputs = int(tokens[:, :-1].sum())
    assert jax.tree.map(int, metrics) == {"samples": 6, "correct": correct, "spikes": {"a/kernel": {
        "active": inputs, "unary": 6 * (2**24 + 1), "bit_plane": 0, "saturated": inputs}}}
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {jnp.dtype("int32")}


# The config


def test_the_rate_rises_to_its_peak_and_falls_to_a_tenth_at_the_last_step():
    config = TrainConfig(max_steps=14, lr=0.5, warmup_steps=3, schedule="cosine")
    rates = [float(config.learning_rate(step)) for step in range(16)]
    np.testing.assert_allclose(rates[:4], [0.125, 0.25, 0.375, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rates[8], 0.5 * 0.55, rtol=1e-6)  # half-way between 3 and 13
    np.testing.assert_allclose(rates[13:], [0.05] * 3, rtol=1e-6)
    constant = TrainConfig(max_steps=14, lr=0.5, warmup_steps=1)
    assert [float(constant.learning_rate(step)) for step in (0, 1, 13)] == [0.25, 0.5, 0.5]


def test_the_optimiser_clips_and_decays_kernels_alone():
    params = {"kernel": jnp.full((1, 2), 2.0), "bias": jnp.full(2, 2.0)}
    zero = jax.tree.map(jnp.zeros_like, params)
    tx = TrainConfig(lr=0.25, weight_decay=0.5).optimizer()
    updates, _ = tx.update(zero, tx.init(params), params)
    assert updates["kernel"].tolist() == [[-0.25, -0.25]] and updates["bias"].tolist() == [0, 0]
    gradient = {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([0.0, 4.0])}  # of norm 5
    for clip_norm, scale in ((0.5, 0.1), (None, 1.0), (10.0, 1.0)):
        tx = TrainConfig(clip_norm=clip_norm).optimizer()
        _, state = tx.update(gradient, tx.init(params), params)
        mean = optax.tree.get(state, "mu")
        np.testing.assert_allclose(mean["bias"][1], 0.1 * 4.0 * scale, rtol=1e-6)


def test_parts_of_a_batch_train_as_the_whole():
    class Still(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            return super().apply(variables, tokens)

    states = [fit(TrainConfig(max_steps=2, accumulate=n), model=Still())[1] for n in (1, 2)]
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="accumulate=3 must divide"):
        fit(TrainConfig(accumulate=3), model=Still())


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"max_steps": 0}, ValueError, "max_steps must be >= 1"),
    ({"log_every": 0}, ValueError, "log_every must be >= 1"),
    ({"accumulate": 1.5}, TypeError, "accumulate must be an int"),
    ({"lr": 0.0}, ValueError, "lr must be > 0"),
    ({"lr": float("inf")}, ValueError, "lr must be finite"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be >= 0"),
    ({"warmup_steps": 200}, ValueError, "warmup_steps must be < 200"),
    ({"warmup_steps": -1}, ValueError, "warmup_steps must be >= 0"),
    ({"schedule": "linear"}, ValueError, "schedule must be one of constant, cosine"),
    ({"clip_norm": 0.0}, ValueError, "clip_norm must be > 0"),
    ({"seed": -1}, ValueError, "seed must be >= 0"),
])
def test_a_config_out_of_range_is_refused(values, error, message):
    with pytest.raises(error, match=f"TrainConfig: {message}"):
        TrainConfig(**values)
