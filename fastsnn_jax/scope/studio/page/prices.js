// The energy of counts on a device: energy/pricing.py again, so that a page can ask "what if".
// Only numbers go in and out here, and no element is touched; a test runs it beside the Python.

const ZERO = [0, 0, 0]; // low, nominal, high
const plus = (a, b) => a.map((value, i) => value + b[i]);
const times = (a, factor) => a.map((value) => value * factor);
const bounds = (constant) => [constant.low, constant.nominal, constant.high];
const bitLength = (value) => (value < 1 ? 0 : Math.floor(Math.log2(value)) + 1);

// Counts as a report holds them: integers above 2^53 are text there.
function numbers(counts) {
  const read = (value) => (typeof value === "string" && /^\d+$/.test(value) ? Number(value)
    : value !== null && typeof value === "object"
      ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, read(one)])) : value);
  return read(counts);
}

const TOTALS = ["active", "events", "saturated", "ac", "mac", "product", "bias_add", "updates",
  "emitted", "activation_words", "kv_words"];

// The same layer over T' steps instead of T, at the same rates.
function withSteps(counts, steps) {
  const factor = steps / counts.num_steps;
  const scaledOnes = Object.fromEntries(TOTALS.map((name) => [name, counts[name] * factor]));
  const elementwise = Object.fromEntries(
    Object.entries(counts.elementwise).map(([name, value]) => [name, value * factor]));
  return { ...counts, ...scaledOnes, elementwise, num_steps: steps };
}

// The same layer with `share` of its spikes.
function withSpikes(counts, share) {
  if (counts.drive !== "spikes") return counts;
  const { events, active, ac } = counts;
  return { ...counts, events: events * share, active: active * share, ac: ac * share };
}

// Operations

const PRICED_AS = { compare: "add", reduce: "add" };

function operation(profile, name, bits, arithmetic) {
  const operations = profile.operations || {};
  if (!operations[name] && name === "reset") {
    const add = operation(profile, "add", bits, arithmetic);
    return add && [0, 0, add[2]];
  }
  const formats = operations[name] || operations[PRICED_AS[name]] || {};
  const kind = arithmetic === "integer" ? "int" : "float";
  const widths = Object.keys(formats).filter((format) => format.replace(/\d+$/, "") === kind)
    .map((format) => Number(format.slice(kind.length))).sort((a, b) => a - b);
  const width = widths.find((one) => one >= bits);
  const found = width === undefined ? formats.any : formats[`${kind}${width}`];
  return found ? bounds(found) : null;
}

function multiplyAccumulate(profile, bits, sumBits, arithmetic) {
  const fused = operation(profile, "mac", bits, arithmetic);
  if (fused) return fused;
  const product = operation(profile, "mul", bits, arithmetic);
  const addition = operation(profile, "add", sumBits, arithmetic);
  return product && addition && plus(product, addition);
}

// Memory

function level(profile, choice, holds, bits) {
  const memories = Object.entries(profile.memories || {});
  if (choice === "none" || !memories.length) return null;
  const capacity = (memory) => memory.capacity_bits ?? Infinity;
  const allowed = (name, memory) => (choice === "smallest"
    ? (memory.holds || ["weights", "state"]).includes(holds) : name === choice);
  const fitting = memories.filter(([name, memory]) =>
    allowed(name, memory) && bits <= capacity(memory));
  if (!fitting.length) {
    throw new RangeError(`No memory of ${profile.name} holds ${bits} bits of ${holds}.`);
  }
  return fitting.reduce((least, one) => (capacity(one[1]) < capacity(least[1]) ? one : least))[1];
}

function roomy(profile, choice, bits) { // a memory that is too small gives way to one that is not
  const memory = profile.memories?.[choice];
  return memory && bits > (memory.capacity_bits ?? Infinity) ? "smallest" : choice;
}

function bitPrice(memory, storedBits) {
  if (!memory) return ZERO;
  const growth = memory.access_per_bit ? bounds(memory.access_per_bit) : ZERO;
  const access = plus(bounds(memory.access), times(growth, memory.capacity_bits ?? storedBits));
  return times(access, 1 / memory.word_bits);
}

// Bills: [part, amount, price or null, whether it grows with the spikes, item]

const MAC = "multiply-accumulate";

function snnBill(counts, profile, mapping) {
  const included = profile.neuron_update && counts.updates; // an update's price has its bias in it
  const words = counts.activation_words + handedOn(counts);
  const bill = [...synapses(counts, profile, mapping), ...neurons(counts, profile, mapping),
    ...routing(counts, profile, mapping),
    bias(included ? 0 : counts.bias_add, profile, mapping.accumulator_bits, mapping.arithmetic),
    ...shared(counts, profile, mapping),
    activations(counts, words, profile, mapping, mapping.activation_bits)];
  return bill.filter(([, amount]) => amount);
}

function annBill(counts, profile, mapping, baseline) {
  if (counts.kind !== "synapse") return snnBill(counts, profile, mapping);
  const ownSums = mapping.accumulator_bits;
  const [arithmetic, weightBits, activationBits, sumBits] = {
    ann_float32: ["float", 32, 32, 32], ann_int8: ["integer", 8, 8, ownSums],
    ann_matched: ["integer", mapping.weight_bits, matchedBits(counts, mapping), ownSums],
  }[baseline];
  const macs = counts.samples * counts.connections;
  const words = counts.samples * (counts.inputs + counts.outputs);
  const values = (counts.inputs + counts.outputs) * activationBits * mapping.batch;
  const wider = { ...mapping, accumulator_bits: sumBits,
    weights: roomy(profile, mapping.weights, counts.weights * weightBits),
    state: roomy(profile, mapping.state, values) };
  return [...dense(counts, macs, profile, wider, weightBits, activationBits, arithmetic),
    bias(counts.bias_add ? counts.samples * counts.outputs : 0, profile, sumBits, arithmetic),
    activations(counts, words, profile, wider, activationBits)].filter(([, amount]) => amount);
}

// Without neurons behind it a synapse hands its sums on as values, as a conventional layer does.
function handedOn(counts) {
  const values = counts.kind === "synapse" && counts.drive === "spikes" && !counts.updates;
  return values ? counts.samples * (counts.inputs + counts.outputs) : 0;
}

function matchedBits(counts, mapping) {
  if (counts.coding !== "binary" && counts.coding !== "ternary") return mapping.activation_bits;
  return bitLength(counts.num_steps * (counts.coding === "ternary" ? 2 : 1));
}

function synapses(counts, profile, mapping) {
  const widths = [mapping.weight_bits, mapping.activation_bits, mapping.arithmetic];
  if (counts.drive === "analog") return dense(counts, counts.mac, profile, mapping, ...widths);
  if (!profile.skips_zeros) {
    const macs = counts.samples * counts.num_steps * counts.connections;
    return dense(counts, macs, profile, mapping, ...widths);
  }
  const stored = counts.weights * mapping.weight_bits;
  const memory = level(profile, mapping.weights, "weights", stored);
  let rowBits = mapping.weight_bits; // a spike reads its row in whole words of the memory
  if (memory && counts.connections) {
    const row = counts.connections * mapping.weight_bits / counts.inputs;
    rowBits *= Math.ceil(row / memory.word_bits) * memory.word_bits / row;
  }
  const price = profile.synaptic_operation ? bounds(profile.synaptic_operation)
    : operation(profile, "add", mapping.accumulator_bits, mapping.arithmetic);
  return [["compute", counts.ac, price, true],
    ["weights", counts.ac * rowBits, bitPrice(memory, stored), true]];
}

function dense(counts, macs, profile, mapping, weightBits, activationBits, arithmetic) {
  const stored = counts.weights * weightBits;
  const passes = counts.connections ? macs / counts.connections : 0;
  const memory = level(profile, mapping.weights, "weights", stored);
  const width = Math.max(weightBits, activationBits);
  const price = multiplyAccumulate(profile, width, mapping.accumulator_bits, arithmetic);
  const bits = passes * stored / (mapping.reuse * mapping.batch);
  return [["compute", macs, price, false, MAC], ["weights", bits, bitPrice(memory, stored)]];
}

function neurons(counts, profile, mapping) {
  const bySpike = mapping.update === "event" && counts.drive === "spikes" && counts.updates > 0;
  const updates = bySpike ? counts.ac : counts.updates;
  const stored = counts.outputs * counts.state_words * mapping.state_bits * mapping.batch;
  const memory = level(profile, mapping.state, "state", stored);
  const moved = 2 * updates * counts.state_words * mapping.state_bits;
  const work = profile.neuron_update
    ? [["compute", updates, bounds(profile.neuron_update), bySpike]]
    : Object.entries(counts.update_ops).map(([name, each]) => ["compute", updates * each,
      operation(profile, name, mapping.accumulator_bits, mapping.arithmetic), bySpike]);
  return [["state", moved, bitPrice(memory, stored), bySpike], ...work];
}

function routing(counts, profile, mapping) {
  if (!profile.skips_zeros) return [];
  const sign = counts.coding === "binary" || counts.coding === "none" ? 0 : 1;
  const bits = bitLength(Math.max(counts.inputs - 1, 0)) + sign;
  const part = (amount, constant) => ["communication", amount, bounds(constant), true];
  return [
    ...(profile.event ? [part(counts.events, profile.event)] : []),
    ...(profile.event_bit ? [part(counts.events * bits * mapping.hops, profile.event_bit)] : []),
  ];
}

function bias(additions, profile, bits, arithmetic) {
  return ["compute", additions, operation(profile, "add", bits, arithmetic)];
}

function shared(counts, profile, mapping) {
  const { activation_bits: bits, accumulator_bits: sumBits, arithmetic } = mapping;
  const product = multiplyAccumulate(profile, bits, sumBits, arithmetic);
  return [["compute", counts.product, product],
    ...Object.entries(counts.elementwise).map(([name, amount]) =>
      ["compute", amount, operation(profile, name, sumBits, arithmetic)]),
    activations(counts, counts.kv_words, profile, mapping, bits)];
}

function activations(counts, words, profile, mapping, bits) {
  const stored = (counts.inputs + counts.outputs) * bits * mapping.batch;
  return ["state", words * bits, bitPrice(level(profile, mapping.state, "state", stored), stored)];
}

// Sums

function summed(bill, samples) { // pJ of one inference by part, and in "total"
  const parts = { compute: ZERO, weights: ZERO, state: ZERO, communication: ZERO };
  for (const [part, amount, price] of bill) {
    if (price) parts[part] = plus(parts[part], times(price, amount / samples));
  }
  return { ...parts, total: Object.values(parts).reduce(plus) };
}

const VERDICTS = {
  wins: "wins", loses: "loses", open: "undetermined", never: "cannot win at any rate",
};

function verdictOf(snn, ann, floor, complete) {
  if (!ann) return VERDICTS.open;
  if (floor[0] > ann[2]) return VERDICTS.never;
  if (snn[0] > ann[2]) return VERDICTS.loses;
  return complete && snn[2] < ann[0] ? VERDICTS.wins : VERDICTS.open;
}

function priceLayer(counts, profile, mapping) {
  const bill = snnBill(counts, profile, mapping);
  const priced = (one) => one.every(([, , price]) => price);
  const baselines = {};
  for (const name of ["ann_float32", "ann_int8", "ann_matched"]) {
    const twin = annBill(counts, profile, mapping, name);
    const unknown = counts.kind === "synapse"
      && twin.some(([, , price, , item]) => !price && item === MAC);
    baselines[name] = unknown ? null : summed(twin, counts.samples).total;
  }
  return {
    energy_pj: summed(bill, counts.samples), baselines_pj: baselines,
    floor: summed(bill.filter(([, , , perSpike]) => !perSpike), counts.samples).total,
    complete: counts.kind !== "synapse" || priced(bill), priced: priced(bill),
  };
}

// A report's counts, {layer: counts}, on a profile under a mapping: {layers, total}.
function priceAll(counts, profile, mapping) {
  const layers = Object.fromEntries(Object.entries(counts).map(([name, layer]) =>
    [name, priceLayer(numbers(layer), profile, mapping)]));
  const lines = Object.values(layers);
  const sum = (read) => lines.map(read).reduce((a, b) => a && b && plus(a, b));
  const sums = (field) => Object.fromEntries(
    Object.keys(lines[0][field]).map((key) => [key, sum((one) => one[field][key])]));
  const [energyPj, baselinesPj] = [sums("energy_pj"), sums("baselines_pj")];
  const floor = sum((one) => one.floor);
  const ann = baselinesPj[mapping.baseline];
  const spent = energyPj.total[1] - floor[1];
  const wins = ann && spent > 0 && ann[1] > floor[1];
  return { layers, total: {
    energy_pj: energyPj, baselines_pj: baselinesPj, floor,
    margin: wins ? spent / (ann[1] - floor[1]) : null,
    verdict: verdictOf(energyPj.total, ann, floor, lines.every((one) => one.complete)),
    priced: lines.every((one) => one.priced),
  } };
}
