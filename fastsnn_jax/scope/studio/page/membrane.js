// Membranes of a few neurons, each on a strip of one common scale, with the threshold.

const STRIPS = 6;

panels.membrane = () => {
  const layers = Object.keys(data.membrane);
  const opened = new Map();
  const layer = () => {
    const name = chosen("membrane", layers);
    if (!opened.has(name)) opened.set(name, valuesOf(data.membrane[name]));
    return [name, data.membrane[name], opened.get(name)];
  };
  const pages = ({ neurons }) => Array.from({ length: Math.ceil(neurons / STRIPS) }, (_, page) =>
    `${page * STRIPS}–${Math.min(neurons, (page + 1) * STRIPS) - 1}`);
  const draw = (width) => {
    const [name, packed, values] = layer();
    const threshold = data.threshold?.[name] ?? null;
    const first = STRIPS * pages(packed).indexOf(chosen("strip", pages(packed)));
    const strips = Math.min(STRIPS, packed.neurons - first);
    const low = Math.min(packed.low, threshold ?? packed.low);
    const high = Math.max(packed.high, threshold ?? packed.high);
    const tall = 62;
    const box = { left: 46, top: 26, right: width - 8, bottom: 26 + strips * tall };
    const label = `Membranes of ${strips} neurons of ${layerName(name)}`;
    const paper = sheet(width, box.bottom + 42, label);
    const x = linear(0, Math.max(packed.steps - 1, 1), box.left, box.right);
    for (let row = 0; row < strips; row += 1) {
      const neuron = first + row;
      const y = linear(low, high, box.top + (row + 1) * tall - 8, box.top + row * tall + 4);
      const level = (value, kind) => line(box.left, y(value), box.right, y(value), kind);
      if (low < 0 && high > 0) paper.append(level(0, "grid"));
      if (threshold !== null) paper.append(level(threshold, "rule"));
      const path = polyline(values.map((at, step) => [x(step), y(at[neuron])]), "line s1");
      paper.append(marked(path, `neuron ${neuron}`));
      paper.append(text(box.left - 6, y((low + high) / 2) + 4, neuron, "end", "soft"));
    }
    paper.append(...axes(box, {
      x, xTicks: ticks(0, packed.steps - 1, width < 420 ? 4 : 8, true), xLabel: data.axis,
      yLabel: "neuron",
    }));
    const limit = threshold === null ? "threshold not recorded" : `threshold ${number(threshold)}`;
    const note = `Every strip spans ${number(low)} to ${number(high)}; ${limit}.`;
    return [paper, html("p", { class: "note" }, note)];
  };
  return {
    controls: (redraw) => {
      const strips = pages(layer()[1]);
      const names = layers.map(layerName);
      return [
        ...(layers.length > 1 ? [choice("membrane", "Layer", layers, redraw, names)] : []),
        ...(strips.length > 1 ? [choice("strip", "Neurons", strips, redraw)] : []),
      ];
    },
    draw,
    table: () => {
      const [, packed, values] = layer();
      const heads = Array.from({ length: packed.neurons }, (_, neuron) => `neuron ${neuron}`);
      return [[data.axis, ...heads],
        ...values.map((at, step) => [step, ...at.map((value) => number(value, 4))])];
    },
  };
};
