"""The work of a recorded run, layer by layer: what an energy report is made of."""

from collections.abc import Mapping
from typing import Any

from fastsnn_jax.energy.layer_counts import LayerCounts, Operations
from fastsnn_jax.energy.profiles import Profile
from fastsnn_jax.energy.report import Report, report
from fastsnn_jax.record.kinds import RecordError

LM_HEAD, DECODING = "lm_head", "decoding"
_ADAPTIVE = "adaptive_threshold"
_MODEL_KEYS = ("neuron", "spiking_lm_head", "d_model", "vocab_size")
# Of records that do not say what their neurons do.
_LIF = {"update_ops": {"add": 1, "compare": 1, "mul": 1, "reset": 1}, "state_words": 1}
_UNIT = {"mnist": "inference", "lm": "token", "convert": "inference"}
_NOT_COUNTED = "norms, attention products and caches are not in the record and not counted"


def energy_report(record: Mapping[str, Any], profile: Profile | str = "horowitz45") -> Report:
    """What a recorded run costs on a device, per inference or token; see ``energy.report``.

    Raises RecordError as `layer_counts`, ValueError for an unknown device.
    """
    kind = record["kind"]
    return report(layer_counts(record), profile, unit=_UNIT[kind], health=health(record),
                  warnings=_not_counted(record))


def layer_counts(record: Mapping[str, Any]) -> dict[str, LayerCounts]:
    """Counts of every synapse of a valid record, in the order of the network.

    Of a run on images per inference, of a language model per token, as it decodes. What that does
    without a synapse (norms, codings, attention products, caches) is the layer "decoding"; early
    records lack it, and have of the codings only the divisions.

    Raises RecordError when the record lacks what is needed: the connections of its synapses, which
    early records have of one hidden layer only, or spikes of a model without any.
    """
    return {"mnist": _mnist, "lm": _lm, "convert": _convert}[record["kind"]](record)


def health(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of its neurons, for a report.

    How many of each layer were "dead" and "saturated", and the "peak_events_per_step".
    """
    activity = list(record["activity"].items())
    following = list(zip(activity, activity[1:], strict=False))  # its neurons are the next's input

    def by_layer(key: str) -> dict[str, int]:
        return {name: signal[key] for (name, _), (_, signal) in following if key in signal}

    return {"dead": by_layer("silent"), "saturated": by_layer("saturated_neurons"),
            "peak_events_per_step": record["metrics"].get("peak_events_per_step")}


def _not_counted(record: Mapping[str, Any]) -> list[str]:
    if record["kind"] == "lm":
        return [] if "decoding" in record else [_NOT_COUNTED]
    if record["kind"] != "mnist" or record["encoding"]["type"] == "direct":
        return []
    code = record["encoding"]["type"]
    return [f"the {code} encoder's own work is not counted: the conventional networks have none"]


def _mnist(record: Mapping[str, Any]) -> dict[str, LayerCounts]:
    activity, sizes = record["activity"], _synapse_sizes(record)
    signals = [*sizes, "output"]
    neurons = _neurons(record, signals)
    samples = _some("record.inference_spikes.n_samples", record["inference_spikes"]["n_samples"])
    neuron = record["metrics"].get("neuron", _LIF)
    steps, direct = record["encoding"]["time_window"], record["encoding"]["type"] == "direct"
    layers = {}
    for index, (name, (weights, connections)) in enumerate(sizes.items()):
        counts, inputs, outputs = activity[name], neurons[index], neurons[index + 1]
        if "synaptic_events" not in counts:
            raise RecordError(f"record.activity.{name}: expected a key 'synaptic_events', got "
                              f"{sorted(counts)}")
        analog, operations = direct and index == 0, counts["synaptic_events"]
        layers[name] = _layer(
            coding="none" if analog else "binary",
            samples=samples,
            num_steps=steps,
            inputs=inputs,
            outputs=outputs,
            weights=weights,
            connections=connections,
            active=counts["nonzero"],
            events=0 if analog else counts["events"],
            saturated=counts["saturated"],
            ac=0 if analog else operations,
            mac=operations if analog else 0,
            bias_add=samples * steps * outputs,
            updates=samples * steps * outputs,
            update_ops=tuple(neuron["update_ops"].items()),
            state_words=neuron["state_words"],
            emitted=activity[signals[index + 1]]["events"],
            activation_words=samples * steps * inputs if analog else 0,
        )
    return layers


def _synapse_sizes(record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Stored weights and connections of every synapse, by name."""
    shape, activity = record["architecture"], record["activity"]
    if "output" not in activity:
        raise RecordError(f"record.activity: expected a key 'output', got {sorted(activity)}")
    names = [name for name in activity if name != "output"]
    if all({"weights", "connections"} <= activity[name].keys() for name in names):
        return {name: (activity[name]["weights"], activity[name]["connections"])
                for name in names}
    dense = [shape["n_syn_input_hidden"], shape["n_syn_hidden_output"]]
    if None in dense or len(names) != len(dense):
        raise RecordError(
            "record.architecture: expected the connections of one hidden layer, got none for "
            f"{record['model_class']}; count its checkpoint with energy.count_layers"
        )
    return {name: (count, count) for name, count in zip(names, dense, strict=True)}


def _neurons(record: Mapping[str, Any], signals: list[str]) -> list[int]:
    """Neurons that send each signal."""
    if all("neurons" in record["activity"][name] for name in signals):
        return [record["activity"][name]["neurons"] for name in signals]
    return [record["architecture"][name] for name in ("n_input", "n_hidden", "n_output")]


def _convert(record: Mapping[str, Any]) -> dict[str, LayerCounts]:
    return {name: LayerCounts.from_json(fields) for name, fields in record["activity"].items()}


def _lm(record: Mapping[str, Any]) -> dict[str, LayerCounts]:
    config, activity = record["model"], record["activity"]
    if not activity:
        raise RecordError("record.activity: expected spikes, got a model without any")
    missing = [key for key in _MODEL_KEYS if key not in config]
    if missing:
        raise RecordError(f"record.model: expected a key {missing[0]!r}, got {sorted(config)}")
    decoding = record.get("decoding")
    layers = {
        name: _projection(name, entry, config["neuron"], with_coding=decoding is None)
        for name, entry in activity.items()
    }
    tokens = next(iter(layers.values())).samples
    if not config["spiking_lm_head"]:
        width, vocabulary = config["d_model"], config["vocab_size"]
        layers[LM_HEAD] = _layer(
            coding="none", samples=tokens, inputs=width, outputs=vocabulary,
            weights=width * vocabulary, connections=width * vocabulary, active=tokens * width,
            mac=tokens * width * vocabulary,
            activation_words=tokens * (width + vocabulary),
        )
    if decoding is not None:
        layers[DECODING] = _layer(
            kind="other", coding="none", samples=tokens, inputs=0, outputs=decoding["held_words"],
            weights=0, connections=0, active=0, product=tokens * decoding["products"],
            elementwise=tuple((name, tokens * number)
                              for name, number in decoding["operations"].items()),
            kv_words=tokens * decoding["cache_words"],
        )
    return layers


def _projection(
    name: str, entry: Mapping[str, Any], neuron: str, with_coding: bool
) -> LayerCounts:
    """A projection that reads spike counts as bit planes, with what it takes to make them.

    A count is x / V, where the adaptive threshold is a mean over the channels; the projection that
    an input is recorded under makes it for all that share it. The sums are scaled by V.
    """
    tokens = _some(f"record.activity.{name}.tokens", entry["tokens"])
    channels, fan_out, spikes = (entry[key] for key in ("channels", "fan_out", "bit_plane"))
    operations = {"mul": tokens * fan_out} if with_coding else {}
    if with_coding and entry["input"] == name:
        operations["div"] = tokens * channels
        if neuron == _ADAPTIVE:
            operations["reduce"] = tokens * channels
    return _layer(
        coding="bitwise", samples=tokens, inputs=channels, outputs=fan_out,
        weights=channels * fan_out, connections=channels * fan_out, active=entry["active"],
        events=spikes, saturated=entry["saturated"], ac=spikes * fan_out,
        elementwise=tuple(operations.items()),
    )


def _layer(
    *, coding: str, samples: int, inputs: int, outputs: int, weights: int, connections: int,
    active: int, kind: str = "synapse", num_steps: int = 1, events: int = 0, saturated: int = 0,
    ac: int = 0, mac: int = 0, product: int = 0, bias_add: int = 0, updates: int = 0,
    update_ops: Operations = (), elementwise: Operations = (), state_words: int = 0,
    emitted: int = 0, activation_words: int = 0, kv_words: int = 0,
) -> LayerCounts:
    """Counts of a layer; what is not given did not happen."""
    return LayerCounts(
        kind=kind, drive="analog" if coding == "none" else "spikes", coding=coding,
        samples=samples, num_steps=num_steps, inputs=inputs, outputs=outputs,
        weights=weights, connections=connections, active=active, events=events,
        saturated=saturated, ac=ac, mac=mac, product=product, bias_add=bias_add, updates=updates,
        update_ops=update_ops, elementwise=elementwise, state_words=state_words, emitted=emitted,
        activation_words=activation_words, kv_words=kv_words,
    )


def _some(where: str, samples: int) -> int:
    if samples < 1:
        raise RecordError(f"{where}: expected at least one, to divide by, got {samples}")
    return samples
