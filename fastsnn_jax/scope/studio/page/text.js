// The text that was read, each token tinted by the spikes or the energy that it took.

// Picojoules of each token: the fixed work of a layer, and its spike-driven work times this
// token's spikes over the mean. null where a layer's spikes were not recorded.
function tokenEnergy(report, spikes) {
  const layers = Object.keys(report.counts);
  if (!layers.every((name) => report.counts[name].drive !== "spikes" || spikes[name])) return null;
  const length = Object.values(spikes)[0].length;
  const sums = new Array(length).fill(0);
  for (const name of layers) {
    const counts = numbers(report.counts[name]);
    const mean = counts.events / counts.samples;
    const energyOf = (share) => summed(
      snnBill(withSpikes(counts, share), report.profile, report.mapping), counts.samples).total[1];
    const fixed = energyOf(0);
    const driven = mean > 0 ? (energyOf(1) - fixed) / mean : 0;
    for (let i = 0; i < length; i += 1) sums[i] += fixed + driven * (spikes[name]?.[i] ?? 0);
  }
  return sums;
}

panels.text = () => {
  const { tokens, spikes } = data.text;
  const all = tokens.map((_, i) => Object.values(spikes).reduce((sum, row) => sum + row[i], 0));
  const priced = data.report ? tokenEnergy(data.report, spikes) : null;
  const measures = priced ? ["spikes", "energy"] : ["spikes"];
  const shown = (token) => token.replace(/\n/g, "↵\n") || "∅";
  return {
    controls: (redraw) => (priced ? [choice("tint", "Tint by", measures, redraw)] : []),
    draw: () => {
      const byEnergy = chosen("tint", measures) === "energy";
      const values = byEnergy ? priced : all;
      const words = byEnergy ? energy : (value) => `${count(value)} spikes`;
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const level = (value) => Math.min(4, Math.floor(5 * (value - low) / (high - low || 1)));
      const tinted = (i, letters) => html("span", { class: `t${i}` }, letters);
      const body = tokens.map((token, i) =>
        marked(tinted(level(values[i]), shown(token)), `token ${i}: ${words(values[i])}`));
      const ramp = [0, 1, 2, 3, 4].map((i) => tinted(i, i === 2 ? "to" : "\u2003"));
      return [html("p", { class: "text" }, body), html("p", { class: "note ramp" },
        `${words(low)} `, ramp, ` ${words(high)} per token`)];
    },
    note: priced ? "" : data.report
      ? "No energy by token: spikes were not recorded of every layer that the report counts."
      : "No energy by token without an energy report.",
    table: () => [["token", "text", "spikes", "energy (pJ)"],
      ...tokens.map((token, i) => [i, JSON.stringify(token), all[i], priced ? priced[i] : null])],
  };
};
