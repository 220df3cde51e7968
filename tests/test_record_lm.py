"""Laws of a language model's record: exact, consistent, null where undefined, whole on disk."""

import copy
import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from fastsnn_jax._files import write_text
from fastsnn_jax.record import (
    FILE_NAME,
    Evaluation,
    LossHistory,
    RecordError,
    SynapseCounts,
    build_lm_record,
    format_record,
    load_record,
    validate_record,
    write_record,
)

KEYS = {
    "timestamp": None, "model_class": None, "model": None, "parameters": None, "sample": None,
    "tokenizer": {"kind", "vocab_size"},
    "text": {"context", "bytes_per_token", "train_tokens", "validation_tokens"},
    "training_config": {"steps", "batch_size", "context", "learning_rate", "warmup_steps",
                        "weight_decay", "clip_norm", "optimizer", "accumulate", "dtype"},
    "training_results": {"steps_trained", "tokens_seen", "training_time_seconds", "tokens_per_s",
                         "best_val_loss", "final_train_loss"},
    "training_history": {"steps", "train_loss", "val_loss", "spikes_per_channel"},
    "evaluation": {"val_loss", "perplexity", "bits_per_byte", "accuracy", "tokens"},
    "twin": {"val_loss", "perplexity", "relative_difference"},
    "spikes": {"tokens", "bits", "spikes_per_channel", "unary_per_channel", "active_fraction",
               "sparsity", "saturated_fraction", "synaptic_events_per_token",
               "dense_macs_per_token"},
}
ENVELOPE_KEYS = {"schema", "kind", "config", "dataset", "versions", "device", "git_hash", "seed",
                 "metrics", "activity"}
COUNTS_KEYS = {"tokens", "channels", "fan_out", "active", "unary", "bit_plane", "saturated",
               "input"}

# q and k read one input of 4 channels, up another of 12, over 8 tokens, with 7 bits.
SHARED = SynapseCounts(tokens=8, channels=4, fan_out=6, active=16, unary=60, bit_plane=24,
                       saturated=2)
ACTIVITY = {
    "block_0/q": SHARED,
    "block_0/k": SHARED._replace(fan_out=3),
    "block_0/up": SynapseCounts(8, 12, 5, active=32, unary=100, bit_plane=40, saturated=1),
}
GROUPS = (("head",), ("block_0/q", "block_0/k"), ("block_0/up",))
TWINLESS = {"activity": {}, "input_groups": (), "bits": None, "twin_val_loss": None}


@dataclasses.dataclass(frozen=True)
class Config:
    corpus: str = "auto"
    steps: int = 40


def arguments(**changes) -> dict[str, Any]:
    return {
        "config": Config(),
        "dataset": {"name": "stdlib", "source": "by hand", "sha256": "0" * 64,
                    "sizes": {"train": 900, "validation": 100}},
        "environment": {"versions": {"jax": "0.7.2"}, "device": {"kind": "cpu"}, "git_hash": None},
        "seed": 3,
        "model_class": "LanguageModel",
        "model": {"d_model": 4, "spiking": True, "rope_scaling": None},
        "parameters": np.int64(1_234),
        "tokenizer": {"kind": "char", "vocab_size": 65},
        "text": {"context": 16, "bytes_per_token": 2.0, "train_tokens": 450,
                 "validation_tokens": 50},
        "training_config": {"steps": 40, "batch_size": 2, "context": 16, "learning_rate": 1e-3,
                            "warmup_steps": 4, "weight_decay": 0.1, "clip_norm": None,
                            "optimizer": "adamw", "accumulate": 1, "dtype": "float32"},
        "history": LossHistory([0, 20, 40], [None, 2.5, 2.25], [4.0, 1.5, 1.75],
                               {"block_0": [None, 1.5, np.float32(0.5)]}),
        "steps_trained": 40,
        "tokens_seen": 1_280,
        "training_time_seconds": 2.5,
        "tokens_per_s": 640.5,
        "evaluation": Evaluation(val_loss=1.5, accuracy=55.5, tokens=48),
        "twin_val_loss": 1.25,
        "activity": ACTIVITY,
        "input_groups": GROUPS,
        "bits": 7,
        "sample": "First line\nsecond line",
        "metrics": {"preset": "smoke"},
        "timestamp": "2020-02-02T02:02:02+00:00",
    } | changes


def build(**changes):
    return build_lm_record(**arguments(**changes))


# Entries and figures


def test_the_record_has_every_entry_and_no_other():
    record = build()
    assert (record["schema"], record["kind"]) == ("fastsnn-run/1", "lm")
    assert set(record) == set(KEYS) | ENVELOPE_KEYS
    for key, inner in KEYS.items():
        assert inner is None or set(record[key]) == inner, key
    assert all(set(counts) == COUNTS_KEYS for counts in record["activity"].values())


def test_perplexity_and_bits_per_byte_follow_from_the_loss():
    evaluation = build()["evaluation"]
    assert evaluation["perplexity"] == pytest.approx(4.4816890703, rel=1e-9)  # e^1.5
    # 1.5 nats are 1.5 * log2(e) = 2.1640425613 bits, over two bytes.
    assert evaluation["bits_per_byte"] == pytest.approx(2.1640425613 / 2, rel=1e-9)
    assert (evaluation["accuracy"], evaluation["tokens"]) == (55.5, 48)


def test_the_twin_is_compared_by_its_own_loss():
    twin = build()["twin"]
    assert twin["perplexity"] == pytest.approx(3.4903429575, rel=1e-9)  # e^1.25
    assert twin["relative_difference"] == 0.2  # (1.5 - 1.25) / 1.25


def test_an_input_that_several_projections_read_is_counted_once():
    # Over 8 tokens and 4 + 12 distinct channels: 128 places.
    spikes = build()["spikes"]
    assert spikes["spikes_per_channel"] == (24 + 40) / 128
    assert spikes["unary_per_channel"] == (60 + 100) / 128
    assert spikes["active_fraction"] == (16 + 32) / 128
    assert spikes["saturated_fraction"] == 3 / 128
    assert spikes["sparsity"] == 1 - 0.5 / 7
    assert (spikes["tokens"], spikes["bits"]) == (8, 7)


def test_synaptic_events_and_macs_count_every_projection():
    spikes = build()["spikes"]
    assert spikes["synaptic_events_per_token"] == (24 * 6 + 24 * 3 + 40 * 5) / 8
    assert spikes["dense_macs_per_token"] == 4 * 6 + 4 * 3 + 12 * 5


def test_projections_of_a_group_name_its_first_as_their_input():
    activity = build()["activity"]
    assert {key: counts["input"] for key, counts in activity.items()} == {
        "block_0/q": "block_0/q", "block_0/k": "block_0/q", "block_0/up": "block_0/up",
    }


def test_best_and_last_losses_follow_from_the_history():
    results = build()["training_results"]
    assert (results["best_val_loss"], results["final_train_loss"]) == (1.5, 2.25)
    gaps = LossHistory([10, 20], [2.0, None], [None, 3.0])
    results = build(history=gaps)["training_results"]
    assert (results["best_val_loss"], results["final_train_loss"]) == (3.0, 2.0)


def test_metrics_carry_the_headline_figures_and_cannot_overrule_them():
    record = build(metrics={"preset": "smoke", "val_loss": 0.0})
    metrics, spikes = record["metrics"], record["spikes"]
    assert metrics["preset"] == "smoke"
    assert metrics["val_loss"] == 1.5 and metrics["ann_val_loss"] == 1.25
    assert metrics["tokens_per_s"] == 640.5
    assert metrics["perplexity"] == record["evaluation"]["perplexity"]
    for name in ("spikes_per_channel", "sparsity", "saturated_fraction",
                 "synaptic_events_per_token", "dense_macs_per_token"):
        assert metrics[name] == spikes[name], name


def test_counts_beyond_float_precision_stay_exact(tmp_path):
    unary = 2**53 + 1  # the first integer that a double cannot hold
    activity = {"up": ACTIVITY["block_0/up"]._replace(unary=unary)}
    record = build(activity=activity, input_groups=[["up"]])
    assert load_record(write_record(tmp_path, record))["activity"]["up"]["unary"] == 2**53 + 1


# Null


def test_a_model_without_spikes_has_null_spikes():
    record = build(**TWINLESS, model={"spiking": False}, history=LossHistory([40], [2.0], [1.5]))
    assert record["spikes"] is record["twin"] is None and record["activity"] == {}
    assert record["training_history"]["spikes_per_channel"] is None
    metrics = record["metrics"]
    assert metrics["spikes_per_channel"] is metrics["sparsity"] is metrics["ann_val_loss"] is None


def test_a_run_of_no_steps_is_a_valid_record():
    record = build(history=LossHistory([], [], []), steps_trained=0, tokens_seen=0,
                   tokens_per_s=None)
    results = record["training_results"]
    assert results["best_val_loss"] is results["final_train_loss"] is None


def test_figures_without_a_denominator_are_null():
    nothing = SynapseCounts(0, 4, 6, 0, 0, 0, 0)
    record = build(activity={"q": nothing}, input_groups=[["q"]], twin_val_loss=0.0)
    spikes = record["spikes"]
    assert spikes["spikes_per_channel"] is spikes["sparsity"] is None
    assert spikes["synaptic_events_per_token"] is None and spikes["dense_macs_per_token"] == 24
    assert record["twin"]["relative_difference"] is None


def test_a_perplexity_that_no_double_holds_is_null():
    assert build(evaluation=Evaluation(1e3, 0.0, 48))["evaluation"]["perplexity"] is None


# Refusals


Q, UP = "block_0/q", "block_0/up"
SETTINGS = arguments()["training_config"]


@pytest.mark.parametrize("changes, message", [
    ({"text": {"context": 16}}, "record.text: expected key 'bytes_per_token'"),
    ({"text": arguments()["text"] | {"bytes_per_token": 0.0}}, "token: expected a number > 0"),
    ({"training_config": SETTINGS | {"momentum": 0.9}}, "expected no key 'momentum'"),
    ({"evaluation": Evaluation(math.nan, 1.0, 48)}, "evaluation.val_loss: expected text, a "),
    ({"evaluation": Evaluation(-1.0, 1.0, 48)}, "evaluation.val_loss: expected a number >= "),
    ({"evaluation": Evaluation(1.5, 101, 48)}, "accuracy: expected a number in 0..100, got 101"),
    ({"twin_val_loss": math.inf}, "record.twin.val_loss"),
    ({"twin_val_loss": "low"}, "record.twin.val_loss: expected a number >= 0, got 'low'"),
    ({"tokens_per_s": math.nan}, "record.training_results.tokens_per_s"),
    ({"tokens_seen": 1.5}, "tokens_seen: expected an integer >= 0, got 1.5"),
    ({"history": LossHistory([0, 20], [None], [4, 2])}, "train_loss: expected 2 entries, got 1"),
    ({"history": LossHistory([1], [2.0], [2.0], {"up": []})}, ".up: expected 1 entries, got 0"),
    ({"history": LossHistory([1], [2.0], [2.0], {"up": [-1.0]})}, "history.spikes_per_channel"),
    ({"history": LossHistory([20, 20], [1, 1], [1, 1])}, "steps: expected ascending steps"),
    ({"history": LossHistory([41], [1.0], [1.0])}, "steps_trained: expected a step from the last"),
    ({"steps_trained": 41}, "steps_trained: expected a step from the last"),
    ({"bits": None}, "record.spikes.bits: expected an integer >= 0, got None"),
    ({"bits": 1}, "record.activity.block_0/q.bit_plane: expected at most bits * active = 16"),
    ({"activity": {Q: SHARED._replace(active=2.0)}}, "q.active: expected an integer >= 0, got 2.0"),
    ({"activity": {Q: SHARED._replace(active=33)}}, "active: expected at most tokens * channels"),
    ({"activity": {Q: SHARED._replace(saturated=33)}}, "saturated: expected at most tokens * chan"),
    ({"activity": {Q: SHARED._replace(bit_plane=15)}}, "active: expected at most bit_plane = 15"),
    ({"activity": {Q: SHARED._replace(unary=23)}}, "bit_plane: expected at most unary = 23"),
    ({"activity": ACTIVITY | {"block_0/k": SHARED._replace(unary=61)}}, "k.unary: expected 60"),
    ({"activity": {Q: SHARED, UP: ACTIVITY[UP]._replace(tokens=9)}}, "as many tokens for every"),
    ({"input_groups": [[Q, "block_0/k"]]}, "up: expected in one of input_groups, got 0"),
    ({"input_groups": [[Q, "block_0/k"], ["block_0/k"], [UP]]}, "one of input_groups, got 2"),
    ({"sample": None}, "record.sample: expected text, got None"),
    ({"metrics": {"speed": math.inf}}, "record.metrics.speed"),
])
def test_wrong_figures_are_refused_in_one_line_with_their_path(changes, message):
    with pytest.raises(RecordError) as error:
        build(**changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def leaves(value, path=()):
    """(path, number or None) of every measured or derived figure below ``value``."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif value is None or isinstance(value, int | float):
        yield path, value


def replaced(record, path, value):
    changed = copy.deepcopy(record)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def test_every_derived_figure_is_recomputed_on_validation():
    record = build()
    derived = {
        "evaluation": {"perplexity", "bits_per_byte"},
        "training_results": {"best_val_loss", "final_train_loss"},
        "twin": {"perplexity", "relative_difference"},
        "spikes": KEYS["spikes"] - {"bits"},
        "metrics": set(record["metrics"]) - {"preset"},
    }
    for section, names in derived.items():
        for name in names:
            value = record[section][name]
            for other in (value * 1.001 if isinstance(value, float) else value + 1, None):
                with pytest.raises(RecordError, match=name):
                    validate_record(replaced(record, (section, name), other))


def test_every_operand_of_a_figure_is_held_to_it():
    record = build()
    paths = [("evaluation", "val_loss"), ("evaluation", "accuracy"), ("text", "bytes_per_token"),
             ("twin", "val_loss"), ("spikes", "bits"), ("training_results", "steps_trained"),
             ("training_results", "tokens_per_s")]
    counts = [path for path, _ in leaves(record["activity"], ("activity",))]
    assert len(counts) == 3 * 7
    for path in paths + counts:
        value = dict(leaves(record))[path]
        with pytest.raises(RecordError):
            validate_record(replaced(record, path, value - 1))


def test_every_missing_key_is_found():
    record = build()
    paths = [(key,) for key in record]
    paths += [(key, inner) for key in KEYS for inner in KEYS[key] or ()]
    paths += [("activity", UP, key) for key in COUNTS_KEYS]
    for *outer, key in paths:
        broken = copy.deepcopy(record)
        inner = broken
        for name in outer:
            inner = inner[name]
        del inner[key]
        with pytest.raises(RecordError, match=key):
            validate_record(broken)


@pytest.mark.parametrize("path, value", [
    (("spikes",), None),
    (("spikes",), {"bits": 7}),
    (("twin",), None),
    (("twin",), {"val_loss": 1.25}),
    (("activity",), {}),
    (("activity", UP, "input"), "nowhere"),
    (("activity", "block_0/k", "input"), UP),
    (("activity", Q, "input"), "block_0/up"),
    (("training_history", "steps"), [0, 40, 20]),
    (("training_history", "val_loss"), [4.0, 1.5]),
    (("training_history", "train_loss"), [None, 2.5, math.nan]),
    (("training_history", "spikes_per_channel"), {"block_0": [1.0]}),
    (("kind",), "mnist"),
    (("schema",), "fastsnn-run/2"),
])
def test_every_contradiction_is_found(path, value):
    with pytest.raises(RecordError):
        validate_record(replaced(build(), path, value))


def test_an_unknown_kind_of_run_is_named():
    message = "record.kind: expected one of convert, lm, mnist, got 'images'"
    with pytest.raises(RecordError, match=message):
        validate_record(build() | {"kind": "images"})


# Files and text


def test_what_was_written_is_read_back_and_written_again_the_same(tmp_path):
    record = build()
    path = write_record(tmp_path, record)
    assert path == tmp_path / FILE_NAME
    assert load_record(tmp_path) == record == json.loads(path.read_text())
    assert write_record(tmp_path / "again.json", load_record(path)).read_bytes() == (
        path.read_bytes()
    )


def test_a_nan_in_a_record_on_disk_is_refused_with_the_file(tmp_path):
    path = write_record(tmp_path, build())
    path.write_text(path.read_text().replace('"accuracy": 55.5', '"accuracy": NaN'))
    with pytest.raises(RecordError, match="accuracy: expected text, a finite number or null"):
        load_record(path)


def test_text_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "höher\n")
    assert path.read_text(encoding="utf-8") == "höher\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udc80")
    assert path.read_text(encoding="utf-8") == "höher\n"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_the_text_shows_every_figure_of_the_run():
    text = format_record(build())
    for shown in ("LanguageModel, 1,234 parameters", "d_model       4", "stdlib (900 train", "char",
                  "1,280 tokens", "640.5 tokens/s", "4.48169", "1.08202", "55.5 %", "+20.000 %",
                  "block_0/up", "second line", "preset", "2020-02-02"):
        assert shown in text, shown
    assert "None" not in text and "nan" not in text
    assert max(map(len, text.splitlines())) <= 100
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "-", "4"] in rows and ["40", "2.25", "1.75"] in rows
    assert ["block_0/k", "4", "3", "0.75", "16", "60", "24", "2"] in rows


def test_the_text_of_a_model_without_spikes_still_prints():
    text = format_record(build(**TWINLESS, sample="\x1b[2Ja\tb\n", model={}, metrics={}, config={},
                               history=LossHistory([], [], []), tokens_per_s=None))
    assert "None" not in text
    assert "\x1b" not in text and "  ?[2Ja?b" in text
