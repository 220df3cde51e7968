"""The counts of a layer as a value: sums, JSON, and what is no count."""

import json

import numpy as np
import pytest

from fastsnn_jax.energy.layer_counts import LayerCounts

EXAMPLE = LayerCounts(
    kind="synapse", drive="spikes", coding="ternary", samples=2, num_steps=5, inputs=3, outputs=4,
    weights=11, connections=12, active=7, events=8, saturated=1, ac=2**53 + 1, mac=0, product=9,
    bias_add=40, updates=41, update_ops=(("mul", 1), ("add", 2)), elementwise=(("exp", 2**70),),
    state_words=2, emitted=13, activation_words=14, kv_words=15,
)


def test_json_brings_every_count_back_and_writes_large_ones_as_text():
    plain = EXAMPLE.to_json()
    assert plain["ac"] == "9007199254740993" and plain["events"] == 8
    assert plain["elementwise"] == {"exp": str(2**70)}
    for sort in (False, True):
        assert LayerCounts.from_json(json.loads(json.dumps(plain, sort_keys=sort))) == EXAMPLE


def test_a_sum_adds_what_is_counted_and_keeps_what_the_layer_is():
    total = EXAMPLE + LayerCounts.from_json(
        EXAMPLE.to_json() | {"samples": 3, "elementwise": {"add": 1, "exp": 2}}
    )
    assert (total.samples, total.ac, total.kv_words) == (5, 2**54 + 2, 30)
    assert total.elementwise == (("add", 1), ("exp", 2**70 + 2))
    assert (total.connections, total.update_ops) == (12, (("add", 2), ("mul", 1)))


@pytest.mark.parametrize("field, value", [
    ("kind", "other"), ("coding", "unary"), ("num_steps", 6), ("inputs", 4), ("outputs", 5),
    ("weights", 10), ("connections", 11), ("update_ops", {"mul": 1}), ("state_words", 1),
])
def test_counts_of_another_layer_do_not_add(field, value):
    other = LayerCounts.from_json(EXAMPLE.to_json() | {field: value})
    with pytest.raises(ValueError, match=f"LayerCounts: {field} must be the same to add counts"):
        EXAMPLE + other


@pytest.mark.parametrize("field, value", [
    ("ac", -1), ("ac", 1.0), ("ac", True), ("ac", "-3"), ("ac", "1e3"), ("ac", None),
    ("ac", float("nan")), ("ac", float("inf")), ("samples", 0), ("num_steps", 0),
    ("kind", "layer"), ("drive", "digital"), ("coding", "gray"), ("coding", "none"),
    ("update_ops", {"mul": -1}), ("update_ops", [["mul", 1]]), ("elementwise", {"exp": 0.5}),
])
def test_a_field_of_a_wrong_value_is_named_with_its_layer(field, value):
    with pytest.raises(ValueError, match=f"^dense0: {field} "):
        LayerCounts.from_json(EXAMPLE.to_json() | {field: value}, where="dense0")


@pytest.mark.parametrize("fields, message", [
    ({k: v for k, v in EXAMPLE.to_json().items() if k != "mac"}, "dense0: there must be .* mac"),
    (EXAMPLE.to_json() | {"joules": 1}, "dense0: there must be no further field, got joules"),
    (["ac"], "dense0: counts must be an object"),
])
def test_fields_must_be_there_and_known(fields, message):
    with pytest.raises(ValueError, match=message):
        LayerCounts.from_json(fields, where="dense0")


def test_counts_made_by_hand_are_checked_too():
    fields = vars(EXAMPLE) | {"ac": np.int64(3)}
    with pytest.raises(ValueError, match="LayerCounts: ac must be an integer >= 0"):
        LayerCounts(**fields)
