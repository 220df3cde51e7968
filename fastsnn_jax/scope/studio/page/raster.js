// Spikes of one example, and below them how many of the neurons spike at each step.

const ORDERS = {
  given: ["as given", "neuron"], rate: ["by rate", "neurons, the busiest on top"],
  first: ["by first spike", "neurons, the first to spike on top"],
};

function ordered(spikes, packed, order) { // neuron numbers, top to bottom
  const first = (neuron) => {
    const step = spikes.findIndex((row) => row[neuron] > 0);
    return step < 0 ? spikes.length : step;
  };
  const key = packed.total.map((total, neuron) =>
    ({ given: neuron, rate: -total, first: first(neuron) })[order]);
  return packed.total.map((_, neuron) => neuron).sort((a, b) => key[a] - key[b] || a - b);
}

panels.raster = () => {
  const layers = Object.keys(data.raster);
  const orders = Object.keys(ORDERS);
  const opened = new Map();
  const layer = () => {
    const name = chosen("layer", layers);
    if (!opened.has(name)) opened.set(name, spikesOf(data.raster[name]));
    return [name, data.raster[name], opened.get(name)];
  };
  const draw = (width) => {
    const [name, packed, spikes] = layer();
    const { steps, neurons, most } = packed;
    const order = chosen("order", orders);
    const tall = Math.max(2.5, Math.min(11, 330 / neurons));
    const box = { left: 46, top: 26, right: width - 8, bottom: 26 + tall * neurons };
    const foot = { top: box.bottom + 14, bottom: box.bottom + 62 };
    const label = `Raster of ${neurons} neurons of ${layerName(name)} over ${steps} ${data.axis}s`;
    const paper = sheet(width, foot.bottom + 44, label);
    const x = linear(0, steps, box.left, box.right);
    const wide = x(1) - x(0);
    const ink = wide > 4 ? wide - 0.8 : wide;
    const levels = [[], [], []];
    ordered(spikes, packed, order).forEach((neuron, row) => spikes.forEach((at, step) => {
      const place = [x(step), box.top + row * tall + 0.4, ink, tall - 0.8];
      if (at[neuron]) levels[at[neuron] - 1].push(place);
    }));
    const kinds = most > 1 ? ["m3", "m5", "m7"] : ["f1", "f1", "f1"];
    levels.forEach((places, level) => paper.append(cells(places, kinds[level])));
    for (const row of new Set([0, Math.floor(neurons / 2), neurons - 1])) {
      const words = order === "given" ? row : row + 1;
      paper.append(text(box.left - 6, box.top + (row + 0.5) * tall + 4, words, "end", "soft"));
    }
    paper.append(text(0, 12, ORDERS[order][1], "start", "strong"));
    const together = spikes.map((at) => at.reduce((sum, one) => sum + (one > 0), 0));
    const peak = Math.max(...together);
    const y = linear(0, peak || 1, foot.bottom, foot.top);
    paper.append(cells(together.map((n, step) => [x(step), y(n), ink, foot.bottom - y(n)]), "f0"));
    paper.append(text(box.left - 6, foot.top + 8, peak, "end", "soft"));
    paper.append(...axes({ ...box, bottom: foot.bottom }, {
      x: (tick) => x(tick + 0.5), xLabel: data.axis,
      xTicks: ticks(0, steps - 1, width < 420 ? 4 : 8, true),
    }));
    const keys = ["1 spike", "2", "3 or more"]
      .map((words, level) => ({ name: words, style: kinds[level], filled: true }));
    return most > 1 ? [paper, legend(keys)] : [paper];
  };
  return {
    controls: (redraw) => [
      choice("layer", "Layer", layers, redraw, layers.map(layerName)),
      choice("order", "Order", orders, redraw, orders.map((order) => ORDERS[order][0])),
    ],
    draw,
    table: () => {
      const [, packed, spikes] = layer();
      const steps = (neuron) => spikes.flatMap((at, step) => (at[neuron] ? [step] : [])).join(" ");
      return [["neuron", "spikes", `spikes per ${data.axis}`, `${data.axis}s with a spike`],
        ...packed.total.map((total, neuron) =>
          [neuron, total, total / packed.steps, steps(neuron) || "none"])];
    },
  };
};
