// How many neurons fire how often, in bars that double; the dead stand apart at the left.

panels.rates = () => {
  const { layers, first, source, saturated_rate: limit } = data.rates;
  const names = Object.keys(layers);
  const layer = () => layers[chosen("rates", names)];
  const edge = (index) => number(2 ** (first + index), 2);
  const bars = () => {
    const one = layer();
    return [["dead", "dead", one.dead], ...one.bars.map((neurons, index) =>
      [index ? `${edge(index - 1)} to ${edge(index)}` : `up to ${edge(0)}`, edge(index), neurons])];
  };
  const note = () => {
    const one = layer();
    const saturated = one.saturated === null ? ""
      : ` · ${count(one.saturated)} saturated (${limit} and more)`;
    const dead = `${count(one.dead)} of ${count(one.neurons)} dead`;
    return `${dead}${saturated} · mean ${number(one.mean)} · from ${source}`;
  };
  const draw = (width) => {
    const rows = bars();
    const height = 270;
    const most = Math.max(...rows.map(([, , neurons]) => neurons)) || 1;
    const left = 20 + 7 * count(most).length;
    const box = { left, top: 26, right: width - 8, bottom: height - 44 };
    const y = linear(0, most * 1.12, box.bottom, box.top);
    const slot = (box.right - box.left) / rows.length;
    const x = (index) => box.left + slot * index;
    const every = slot < 30 ? 3 : 2;
    const labelled = rows.map((_, index) => index)
      .filter((index) => index >= every && (rows.length - 1 - index) % every === 0);
    const paper = sheet(width, height, "Histogram of firing rates");
    paper.append(...axes(box, {
      x: (index) => x(index + 1), y, yTicks: ticks(0, most, 4, true), yText: count,
      xTicks: labelled, xText: (index) => rows[index][1],
      xLabel: `spikes per neuron and ${data.axis}, up to`, yLabel: "neurons",
    }));
    paper.append(text(x(0.5), box.bottom + 17, "dead", "middle"));
    rows.forEach(([name, , neurons], index) => {
      if (!neurons) return;
      const rect = svg("rect", { x: x(index) + 1.5, y: y(neurons), width: slot - 3,
        height: box.bottom - y(neurons), class: index ? "f1" : "f2" });
      paper.append(marked(rect, `${name}: ${count(neurons)} neurons`));
      paper.append(text(x(index + 0.5), y(neurons) - 4, count(neurons), "middle"));
    });
    return [paper, html("p", { class: "note" }, note())];
  };
  return {
    controls: (redraw) => (names.length > 1
      ? [choice("rates", "Layer", names, redraw, names.map(layerName))] : []),
    draw,
    table: () => [["spikes per neuron", "neurons"],
      ...bars().map(([name, , neurons]) => [name, neurons]), ["saturated", layer().saturated]],
  };
};
