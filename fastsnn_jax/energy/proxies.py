"""What published models say of the same counts, each by its own formula and constants.

They differ by orders of magnitude, because each leaves something else out; a report puts them
beside its own estimate. None of them knows work that is no synapse's.
"""

from collections.abc import Mapping, Sequence

from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import Mapping as Placement
from fastsnn_jax.energy.pricing import matched_bits

# 45 nm, Horowitz 2014, ISSCC, doi:10.1109/ISSCC.2014.6757323
ADD_FP32_PJ, MUL_FP32_PJ = 0.9, 3.7
ADD_INT32_PJ, MUL_INT8_PJ, MUL_INT32_PJ = 0.1, 0.2, 3.1
# SpikingBrain technical report, equation 24 and the text after it
ADD_INT8_PJ, MAC_INT8_PJ, MAC_FP16_PJ = 0.03, 0.23, 1.5
SPIKINGBRAIN_SPIKES_PER_CHANNEL = 1.13
# arXiv:2210.13107: pJ of an access to a memory of so many bits
RAM_PJ, RAM_PJ_PER_BIT, RAM_WORD_BITS = 13.2, 1.09e-5, 32
# arXiv:2409.08290, as coded in spyx, research/new/honest_energy_accounting
OP_22NM_PJ, DRAM_BIT_PJ, ON_CHIP_BIT_PJ, YAN_BITS = 0.05448, 20.0, 0.25, 8
# KerasSpiking, keras_spiking/model_energy.py: pJ of a synaptic operation and a neuron update
KERAS_SPIKING_PJ = {
    "loihi": (23.6 + 3.5, 81.0), "spinnaker2": (450.0, 2190.0), "spinnaker": (13300.0, 26000.0),
}
KERAS_DENSE_PJ = {"cpu": 8600.0, "gpu": 300.0}  # of either, in one dense pass


def proxies(counts: Mapping[str, LayerCounts]) -> dict[str, float | None]:
    """Every proxy per inference or token, by name; None where there is nothing to divide by.

    Raises ValueError when there are no counts.
    """
    layers = [layer for layer in counts.values() if layer.kind == "synapse"]
    samples = max((layer.samples for layer in counts.values()), default=1)
    totals = {
        **horowitz(layers), **spikingbrain(layers), **lemaire(layers), **yan(layers),
        **keras_spiking(layers), "notebook_event_syn": _synaptic_events(layers),
    }
    figures: dict[str, float | None] = {name: pj / samples for name, pj in totals.items()}
    dense = sum(layer.connections * layer.num_steps for layer in layers)
    ac, synapses = sum(layer.ac for layer in layers), sum(layer.connections for layer in layers)
    spsi = ac / (samples * synapses) if synapses else None
    return figures | {
        "notebook_dense": dense,
        "notebook_ratio": _synaptic_events(layers) / samples / dense if dense else None,
        "spikingbrain_pj_per_mac": None if spsi is None else spsi * ADD_INT8_PJ,
        **_published(),
    }


def equation_24(spikes_per_channel: float) -> float:
    """SpikingBrain's pJ per multiply-accumulate that spikes replace: spikes times an int8 addition.

    >>> round(equation_24(1.13), 4)
    0.0339
    """
    return spikes_per_channel * ADD_INT8_PJ


def horowitz(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """Arithmetic alone, 32-bit floats: 0.9 pJ an addition, 4.6 a product; updates apart.

    ``horowitz_updates_pj`` is the leak, input and threshold of every neuron at every step.
    """
    mac, update = MUL_FP32_PJ + ADD_FP32_PJ, MUL_FP32_PJ + 2 * ADD_FP32_PJ
    return {
        "horowitz_compute_only_pj": sum(ADD_FP32_PJ * x.ac + mac * x.mac for x in layers),
        "horowitz_updates_pj": sum(update * x.updates for x in layers),
        "horowitz_ann_pj": mac * _dense(layers),
    }


def spikingbrain(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """Equation 24: int8 additions; and the same sums with accumulators of 32 bits on both sides."""
    ac, dense = sum(x.ac for x in layers), _dense(layers)
    return {
        "spikingbrain_pj": ADD_INT8_PJ * ac,
        "spikingbrain_ann_int8_pj": MAC_INT8_PJ * dense,
        "spikingbrain_ann_fp16_pj": MAC_FP16_PJ * dense,
        "spikingbrain_int32_pj": ADD_INT32_PJ * ac,
        "spikingbrain_int32_ann_pj": (MUL_INT8_PJ + ADD_INT32_PJ) * dense,
    }


def lemaire(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """Lemaire 2022: 32-bit integers, one access per weight and potential, SRAM of the right size.

    A spike reads a weight and reads and writes a potential for each of its synapses, and computes
    an address; neurons leak at every step. A conventional layer reads every weight once.
    """
    return {
        "lemaire_pj": sum(map(_lemaire_snn, layers)),
        "lemaire_ann_pj": sum(map(_lemaire_ann, layers)),
    }


def yan(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """Yan, Bai and Wong 2024: 22 nm, 8-bit weights fetched from DRAM for every addition.

    Against a quantised network of ceil(log2(T + 1)) bits that fetches each weight once.
    """
    snn = sum(
        (x.ac + x.updates + x.emitted) * OP_22NM_PJ + x.ac * YAN_BITS * DRAM_BIT_PJ
        + 2 * x.updates * x.state_words * YAN_BITS * ON_CHIP_BIT_PJ
        for x in layers
    )
    return {"yan_pj": snn, "yan_ann_pj": sum(map(_yan_ann, layers))}


def keras_spiking(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """KerasSpiking: a price per synaptic operation and update; one dense pass on cpu and gpu."""
    ac, updates = sum(x.ac for x in layers), sum(x.updates for x in layers)
    operations = _dense(layers) + sum(x.samples * x.outputs for x in layers)
    spiking = {
        f"keras_spiking_{device}_pj": synapse * ac + neuron * updates
        for device, (synapse, neuron) in KERAS_SPIKING_PJ.items()
    }
    return spiking | {
        f"keras_spiking_{device}_pj": pj * operations for device, pj in KERAS_DENSE_PJ.items()
    }


def _published() -> dict[str, float]:
    """The figures of equation 24 as its authors give them."""
    pj = equation_24(SPIKINGBRAIN_SPIKES_PER_CHANNEL)
    return {
        "spikingbrain_published_pj_per_mac": pj,
        "spikingbrain_published_saving_fp16": 1 - pj / MAC_FP16_PJ,
        "spikingbrain_published_saving_int8": 1 - pj / MAC_INT8_PJ,
    }


def _synaptic_events(layers: Sequence[LayerCounts]) -> int:
    """Additions, and products where a layer reads values: there every connection is an event."""
    return sum(layer.ac + layer.mac for layer in layers)


def _dense(layers: Sequence[LayerCounts]) -> int:
    return sum(layer.samples * layer.connections for layer in layers)


def _ram(words: int) -> float:
    return RAM_PJ + RAM_PJ_PER_BIT * words * RAM_WORD_BITS


def _lemaire_snn(layer: LayerCounts) -> float:
    weights, potentials = _ram(layer.weights), _ram(layer.outputs)
    neurons = layer.samples * layer.outputs
    additions = 2 * layer.ac + layer.updates + layer.emitted  # once the sum, once the address
    leaks = layer.updates * (MUL_INT32_PJ + ADD_INT32_PJ)
    memory = layer.ac * (weights + 2 * potentials) + 2 * neurons * potentials  # reset and bias
    return additions * ADD_INT32_PJ + leaks + memory


def _lemaire_ann(layer: LayerCounts) -> float:
    products = layer.connections * (MUL_INT32_PJ + 2 * ADD_INT32_PJ)  # sum and address
    memory = layer.connections * _ram(layer.weights) + layer.inputs * _ram(layer.inputs)
    return layer.samples * (products + memory + 2 * layer.outputs * _ram(layer.outputs))


def _yan_ann(layer: LayerCounts) -> float:
    bits = matched_bits(layer, Placement())
    share = bits / 32  # products grow with the square of the width, sums with the width
    mac = MUL_FP32_PJ * share**2 + ADD_FP32_PJ * share
    values = (layer.inputs + layer.outputs) * bits * ON_CHIP_BIT_PJ
    compute = layer.connections * mac + 2 * layer.outputs * OP_22NM_PJ
    return layer.samples * (compute + layer.connections * bits * DRAM_BIT_PJ + values)
