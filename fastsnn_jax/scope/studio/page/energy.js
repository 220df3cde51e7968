// Where the energy goes: a waterfall of the whole network beside its twins without spikes, and a
// bar for each layer.

const PARTS = ["compute", "weights", "state", "communication"];
const BASELINES = {
  ann_matched: "ANN, bits matched", ann_int8: "ANN, int8", ann_float32: "ANN, float32",
};
const MOST_LAYERS = 14;
const CLIP = 1.6; // a twin above so many times the rest is cut off, or the rest would not be seen

// total: {energy_pj: {part: [low, nominal, high]}, baselines_pj: {name: [low, nominal, high]}}
function waterfallRows(total) {
  let reached = 0;
  const steps = PARTS.map((name, index) => {
    const [low, nominal, high] = total.energy_pj[name];
    const from = reached;
    reached += nominal;
    return { name, from, to: reached, low: from + low, high: from + high, kind: `f${index + 1}` };
  });
  const whole = (name, [low, to, high], kind) => ({ name, from: 0, to, low, high, kind });
  const twins = Object.entries(BASELINES).filter(([key]) => total.baselines_pj[key])
    .map(([key, name]) => whole(name, total.baselines_pj[key], "f0"));
  return [[...steps, whole("SNN in sum", total.energy_pj.total, "ink")], twins];
}

function waterfall(width, total, label) {
  const [own, twins] = waterfallRows(total);
  const rows = [...own, ...twins];
  const tops = (some) => some.map((row) => row.high);
  const limit = CLIP * Math.max(...tops(own), twins.length ? Math.min(...tops(twins)) : 0);
  const most = Math.min(limit, Math.max(...tops(rows))) || 1;
  const box = { left: 124, right: width - 84, top: 6 };
  const x = linear(0, most, box.left, box.right);
  const step = 27;
  const bottom = box.top + rows.length * step;
  const paper = sheet(width, bottom + 24, label);
  const marks = ticks(0, most, width < 500 ? 3 : 6);
  const words = tickTexts(marks, energy);
  marks.forEach((tick, i) => {
    paper.append(line(x(tick), box.top, x(tick), bottom, "grid"));
    paper.append(text(x(tick), bottom + 16, words[i], "middle", "soft"));
  });
  rows.forEach((row, index) => {
    const top = box.top + index * step + 4;
    const [low, nominal, high] = [row.low, row.to, row.high].map((end) => energy(end - row.from));
    const cut = row.high > most * 1.000001;
    const shown = cut ? { ...row, to: Math.min(row.to, most), low: 0, high: 0 } : row;
    paper.append(text(box.left - 8, top + 14, row.name, "end", row.kind === "ink" ? "strong" : ""));
    paper.append(...bar({ ...shown, x, row: top, height: 19, words: nominal,
      tip: `${row.name}: ${nominal} (${low} to ${high})` }));
    if (cut) {
      const gap = `M${box.right - 12} ${top + 21}l8 -23m4 0l-8 23`;
      paper.append(svg("path", { class: "cut", d: gap }));
    }
  });
  return paper;
}

// Says which twins the waterfall lacks.
function withoutPrice(total) {
  const names = Object.entries(BASELINES).filter(([key]) => !total.baselines_pj[key])
    .map(([, name]) => name);
  return names.length ? [html("p", { class: "note" },
    `Without a bar: ${names.join("; ")}. This device has no price for their products.`)] : [];
}

function layerRows(layers) { // the dearest, and all others as one
  const parts = (layer) => PARTS.map((part) => layer.energy_pj[part][1]);
  const total = ([, layer]) => layer.energy_pj.total[1];
  const sorted = Object.entries(layers).sort((a, b) => total(b) - total(a));
  const rows = sorted.slice(0, MOST_LAYERS)
    .map(([name, layer]) => ({ name: layerName(name), parts: parts(layer) }));
  const rest = sorted.slice(MOST_LAYERS).map(([, layer]) => parts(layer));
  if (rest.length) {
    const sums = PARTS.map((_, place) => rest.reduce((sum, one) => sum + one[place], 0));
    rows.push({ name: `${rest.length} other layers`, parts: sums });
  }
  return rows.map((row) => ({ ...row, total: row.parts.reduce((a, b) => a + b, 0) }));
}

function layerBars(width, layers) {
  const rows = layerRows(layers);
  const whole = rows.reduce((sum, row) => sum + row.total, 0) || 1;
  const letters = width < 500 ? 16 : 34;
  const left = gutter(rows.map((row) => row.name), letters);
  const x = linear(0, Math.max(...rows.map((row) => row.total)) || 1, left, width - 128);
  const paper = sheet(width, rows.length * 25 + 6, "Energy of each layer by what it is spent on");
  rows.forEach((row, index) => {
    const top = index * 25 + 4;
    const name = text(left - 8, top + 14, shortened(row.name, letters), "end");
    paper.append(marked(name, row.name));
    let from = 0;
    row.parts.forEach((part, place) => {
      const rect = svg("rect", {
        x: x(from), y: top, height: 18, width: Math.max(0, x(from + part) - x(from)),
        class: `f${place + 1}`,
      });
      paper.append(marked(rect, `${row.name}, ${PARTS[place]}: ${energy(part)}`));
      from += part;
    });
    const words = `${energy(row.total)} · ${percent(row.total / whole)}`;
    paper.append(text(x(row.total) + 6, top + 14, words));
  });
  const keys = PARTS.map((name, index) => ({ name, style: `f${index + 1}`, filled: true }));
  return [legend(keys), paper];
}

function energyTable(report) {
  const row = (name, part) => [
    layerName(name), part.rate, part.spsi, part.ac, part.mac, part.updates,
    ...PARTS.map((key) => energy(part.energy_pj[key][1])),
    ...part.energy_pj.total.map((value) => energy(value)), percent(part.share),
    ...Object.keys(BASELINES).map((key) => energy(part.baselines_pj[key]?.[1])),
    part.break_even_rate, part.margin, part.verdict,
  ];
  return [
    ["layer", "rate", "spikes per synapse", "AC", "MAC", "updates", ...PARTS, "low", "nominal",
      "high", "share", ...Object.values(BASELINES), "break-even rate", "margin", "verdict"],
    ...Object.entries(report.layers).map(([name, layer]) => row(name, layer)),
    row("total", { rate: null, ...report.total }),
  ];
}

panels.energy = () => {
  const views = ["total", "layers"];
  const label = "Energy by what it is spent on, against the ANN";
  return {
    controls: (redraw) => [choice("energy", "Show", views, redraw, ["in sum", "by layer"])],
    draw: (width) => (chosen("energy", views) === "total"
      ? [waterfall(width, data.report.total, label), ...withoutPrice(data.report.total)]
      : layerBars(width, data.report.layers)),
    table: () => energyTable(data.report),
  };
};
