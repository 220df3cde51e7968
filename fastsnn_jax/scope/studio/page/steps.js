// Accuracy and cost of the conversions of one network over N, a line for each method.

const COSTS = {
  energy: { name: "energy", words: energy, of: (row) => row.energy_pj[1] },
  additions: { name: "additions", words: count, of: (row) => row.synaptic_events_per_inference },
  spikes: { name: "spikes", words: count, of: (row) => row.spikes_per_inference },
};
const TWINS = { ann_float32: "float32", ann_int8: "int8", ann_matched: "same bits" };

panels.steps = () => {
  const { ann, conversions } = data.record;
  const nameOf = (row) => row.method + (row.fine_tune_epochs ? ", fine-tuned" : "");
  const methods = [...new Set(conversions.map(nameOf))];
  const xTicks = [...new Set(conversions.map((row) => row.num_steps))].sort((a, b) => a - b);
  const series = (of) => methods.map((name, index) => ({
    name, style: styleOf(index),
    points: conversions.filter((row) => nameOf(row) === name)
      .map((row) => [row.num_steps, of(row)]).sort((a, b) => a[0] - b[0]),
  }));
  const before = {
    energy: Object.entries(ann.energy_pj).map(([name, [, nominal]]) =>
      ({ y: nominal, style: "rule", words: TWINS[name] || name })),
    additions: [{ y: ann.macs_per_inference, style: "rule", words: "multiply-adds" }],
    spikes: [],
  };
  const charts = () => {
    const key = chosen("cost-of-steps", Object.keys(COSTS));
    const cost = COSTS[key];
    const lines = series(cost.of);
    const values = [...lines.flatMap((one) => one.points.map((point) => point[1])),
      ...before[key].map((rule) => rule.y)];
    return [
      { title: "accuracy (%)", series: series((row) => row.test_accuracy),
        rules: [{ y: ann.test_accuracy, style: "rule" }] },
      { title: `${cost.name} per inference`, series: lines, rules: before[key],
        words: cost.words, log: Math.min(...values) > 0 },
    ];
  };
  return {
    controls: (redraw) => [choice("cost-of-steps", "Cost", Object.keys(COSTS), redraw,
      Object.values(COSTS).map((cost) => cost.name))],
    draw: (width) => {
      const columns = width < 620 ? 1 : 2;
      const each = Math.floor((width - 16 * (columns - 1)) / columns);
      const keys = [...series(() => 0),
        { name: `before conversion, ${number(ann.test_accuracy, 4)} %`, style: "rule" }];
      return [
        html("div", { class: "charts" }, charts().map((chart) =>
          html("div", {}, lineChart(each, { ...chart, xTicks, xLabel: "time steps N" })))),
        legend(keys),
      ];
    },
    table: () => [
      ["method", "N", "accuracy (%)", "points lost", "spikes", "additions", "energy (pJ)", "low",
        "high"],
      ...conversions.map((row) => [nameOf(row), row.num_steps, row.test_accuracy, row.drop,
        row.spikes_per_inference, row.synaptic_events_per_inference, row.energy_pj[1],
        row.energy_pj[0], row.energy_pj[2]]),
    ],
  };
};
