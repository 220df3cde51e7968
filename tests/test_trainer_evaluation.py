"""`Trainer` on text it does not train on: figures, the best variables, a price on spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_trainer import BATCH, LENGTH, VOCABULARY, Bigram, batches, bits, fit

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.train import Evaluation, Interrupted, TrainConfig, Trainer, token_run

HELD_OUT = list(batches(2, start=90))


def in_numpy(table, tokens):
    """Summed cross-entropy and hits of a bigram table ``[V, V]`` on tokens ``[B, L + 1]``."""
    logits = np.asarray(table, np.float64)[tokens[:, :-1]]
    log_share = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_share, tokens[:, 1:, None], -1).sum()
    return loss, (logits.argmax(-1) == tokens[:, 1:]).sum()


def test_an_evaluation_is_that_of_numpy_over_all_batches_and_draws_nothing():
    table = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))
    variables = {"params": {"table": jnp.asarray(table, jnp.float32), "bias": jnp.zeros(7)}}
    text = [HELD_OUT[0], HELD_OUT[1][:3, :4]]  # 4 x 5 and 3 x 3 tokens foretold
    found = Trainer(Bigram(), TrainConfig()).evaluate(variables, text)
    losses, hits = zip(*(in_numpy(table, tokens) for tokens in text), strict=True)
    assert found.samples == BATCH * LENGTH + 9 and found.accuracy == 100 * sum(hits) / 29
    np.testing.assert_allclose(found.loss, sum(losses) / 29, rtol=1e-6)
    np.testing.assert_allclose(found.perplexity, np.exp(found.loss))
    assert Evaluation(800.0, 0.0, 1, {}).perplexity == np.inf
    ids = sum(int(tokens[:, :-1].sum()) for tokens in text)
    assert found.spikes == {"table": {
        "active": ids, "unary": 2 * ids, "bit_plane": ids + 29, "saturated": 0}}


def test_validation_comes_every_so_many_steps_and_at_the_end_and_keeps_the_best(tmp_path):
    config = TrainConfig(max_steps=9, log_every=2, eval_every=4, lr=3.0)  # too fast: it gets worse
    events = []
    run, state = fit(config, progress=events.append, out=tmp_path, validation=HELD_OUT)
    assert [step for step, _ in run.evaluations] == [4, 8, 9]
    assert [event.step for event in events if event.val_loss is not None] == [4, 8, 9]
    losses = [loss for _, loss in run.evaluations]
    assert run.evaluate(run.best, HELD_OUT).loss == min(losses)
    assert run.evaluate(state.params, HELD_OUT).loss == losses[-1]
    kept = Checkpoints(tmp_path).restore()
    assert bits(kept.items["best"]) == bits(run.best)
    assert kept.journal["evaluations"] == [list(pair) for pair in run.evaluations]


def test_validation_leaves_the_training_as_it_is_and_survives_an_interrupt(tmp_path):
    config = TrainConfig(max_steps=7, log_every=1, eval_every=3, lr=0.5)
    plain, expected = fit(config)
    run, state = fit(config, validation=HELD_OUT)
    assert run.history == plain.history and bits(state) == bits(expected)
    assert plain.evaluations == [] and plain.best is None

    def stop(event):
        if event.step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer(Bigram(), config, stop).fit(batches(9), out=tmp_path, validation=HELD_OUT)
    resumed, state = fit(config, out=tmp_path, resume=True, validation=HELD_OUT)
    assert resumed.evaluations == run.evaluations and bits(resumed.best) == bits(run.best)
    assert bits(state) == bits(expected)


@pytest.mark.parametrize("at", [2, 4])
def test_an_evaluation_that_ctrl_c_cuts_off_is_made_up_for(tmp_path, monkeypatch, at):
    config = TrainConfig(max_steps=4, eval_every=2, lr=0.5)
    run, expected = fit(config, validation=HELD_OUT)
    whole = Trainer.evaluate

    def pressed(self, variables, text):
        if len(self.evaluations) == at // 2 - 1:
            raise Interrupted
        return whole(self, variables, text)

    monkeypatch.setattr(Trainer, "evaluate", pressed)
    with pytest.raises(Interrupted, match=f"after step {at}; resume from"):
        fit(config, out=tmp_path, validation=HELD_OUT)
    monkeypatch.setattr(Trainer, "evaluate", whole)
    resumed, state = fit(config, out=tmp_path, resume=True, validation=HELD_OUT)
    assert resumed.evaluations == run.evaluations and bits(resumed.best) == bits(run.best)
    assert bits(state) == bits(expected)
    assert bits(Checkpoints(tmp_path).restore().items["best"]) == bits(run.best)


def test_the_last_evaluation_reaches_the_disk_after_a_save_in_between(tmp_path, monkeypatch):
    monkeypatch.setattr(token_run, "SAVE_EVERY_S", 0.0)
    run, _ = fit(TrainConfig(max_steps=3, eval_every=2, lr=0.5), out=tmp_path, validation=HELD_OUT)
    kept = Checkpoints(tmp_path).restore()
    assert [step for step, _ in kept.journal["evaluations"]] == [2, 3]
    assert bits(kept.items["best"]) == bits(run.best)


def test_a_loss_that_is_no_number_is_never_the_best():
    class Broken(Bigram):
        def apply(self, variables, tokens, train=False, rngs=None):
            logits, activity = super().apply(variables, tokens, train, rngs)
            return (logits if train else logits * jnp.nan), activity

    run, _ = fit(TrainConfig(max_steps=2), model=Broken(), validation=HELD_OUT)
    assert run.best is None and np.isnan(run.evaluations[0][1])


def test_the_penalty_is_added_to_the_loss():
    config = TrainConfig(max_steps=1)
    variables = Bigram().init(jax.random.key(1), jnp.zeros((BATCH, LENGTH), jnp.int32))
    plain, _ = fit(config, variables=variables)
    priced = Trainer(Bigram(), config, penalty=lambda activity: activity["table"].unary.mean())
    priced.fit(batches(1), variables=variables)
    (tokens,) = batches(1)
    np.testing.assert_allclose(
        priced.history[0] - plain.history[0], 2 * tokens[:, :-1].mean(), rtol=1e-5)


@pytest.mark.parametrize(("text", "error", "message"), [
    ([], ValueError, "at least one batch"),
    ([HELD_OUT[0] * 0 + 7], ValueError, "lie in 0..6, .* got 7..7 in a batch to evaluate"),
    ([HELD_OUT[0] * 0.5], TypeError, "batch 1: tokens must be integers"),
    ([HELD_OUT[0][0]], ValueError, "tokens must be"),
])
def test_text_that_cannot_be_meant_is_refused(text, error, message):
    variables = Bigram().init(jax.random.key(0), jnp.zeros((BATCH, LENGTH), jnp.int32))
    with pytest.raises(error, match=message):
        Trainer(Bigram(), TrainConfig()).evaluate(variables, text)
    with pytest.raises(error, match=message):
        fit(TrainConfig(max_steps=1), validation=text)
