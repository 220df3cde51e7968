"""What a decoding step costs beside its projections, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
import test_record_lm

import fastsnn_jax as fs
from fastsnn_jax.recipes.lm.work import decoding_work
from fastsnn_jax.record import RecordError, energy_report, validate_record
from fastsnn_jax.record.energy import layer_counts

HEADS, SIZE, WINDOW, CONTEXT = 2, 4, 3, 5
WORK = {"context": 16, "products": 30, "operations": {"add": 7, "exp": 2}, "held_words": 40,
        "cache_words": 50}
MODEL = {"neuron": "adaptive_threshold", "spiking_lm_head": True, "d_model": 4, "vocab_size": 65}


# kind: products, words held, words read and written
BY_HAND = {
    # q S, its normaliser q z, and k^T v, which is no sum of products; the state whole, and z
    "linear": (HEADS * (SIZE * SIZE + SIZE), HEADS * (SIZE * SIZE + SIZE + 1),
               2 * HEADS * (SIZE * SIZE + SIZE)),
    # q k and p v of every place; all keys and values are read, one of each is written
    "sliding": (2 * HEADS * WINDOW * SIZE, 2 * HEADS * WINDOW * SIZE,
                2 * HEADS * (WINDOW + 1) * SIZE),
    "softmax": (2 * HEADS * CONTEXT * SIZE, 2 * HEADS * CONTEXT * SIZE,
                2 * HEADS * (CONTEXT + 1) * SIZE),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_products_and_caches_are_those_of_the_equations(kind):
    model = fs.build_model_from_config(fs.SNNConfig(
        vocab_size=11, d_model=HEADS * SIZE, n_heads=HEADS, n_layers=1, d_ff=6, window=WINDOW,
        attn_kind=kind,
    ))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype), shapes)
    work = decoding_work(model, params, CONTEXT)
    assert (work["products"], work["held_words"], work["cache_words"]) == BY_HAND[kind]
    assert work["operations"]["round"] >= HEADS * SIZE  # a coding of every channel, at least
    assert ("exp" in work["operations"]) and work["context"] == CONTEXT


def test_the_record_carries_it_and_a_report_prices_it_as_a_layer_of_its_own():
    record = test_record_lm.build(model=MODEL, decoding=WORK)
    validate_record(record)
    *projections, decoding = layer_counts(record).values()
    tokens = decoding.samples
    assert (decoding.kind, decoding.product, decoding.kv_words, decoding.outputs) == (
        "other", 30 * tokens, 50 * tokens, 40)
    assert dict(decoding.elementwise) == {"add": 7 * tokens, "exp": 2 * tokens}
    assert not any(each.elementwise for each in projections)  # the codings are in it
    made = energy_report(record)
    assert made["layers"]["decoding"]["energy_pj"]["total"][1] > 0
    assert not any("not in the record" in warning for warning in made["warnings"])


def test_early_records_lack_it_and_say_so():
    record = test_record_lm.build(model=MODEL)
    assert "decoding" not in record and "decoding" not in layer_counts(record)
    assert any("not in the record" in warning for warning in energy_report(record)["warnings"])


@pytest.mark.parametrize("wrong", [
    {"products": -1}, {"operations": {"add": 0.5}}, {"cache_words": None}, {"more": 1},
])
def test_work_that_cannot_be_is_refused(wrong):
    with pytest.raises(RecordError, match=f"decoding.*{next(iter(wrong))}"):
        test_record_lm.build(model=MODEL, decoding=WORK | wrong)
