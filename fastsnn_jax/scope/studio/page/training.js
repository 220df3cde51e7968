// Losses, accuracies, spikes by layer and the drift of thresholds and decays while training.

panels.training = () => {
  const history = data.record.training_history;
  const images = data.record.kind !== "lm";
  const xLabel = images ? "epoch" : "step";
  const at = images ? history.losses.map((_, index) => index + 1) : history.steps;
  const series = (named) => Object.entries(named)
    .map(([name, values], index) => ({ name, style: styleOf(index),
      points: (values || []).map((value, i) => [at[i], value]).filter((p) => p[1] !== null) }))
    .filter((one) => one.points.length);
  const twin = data.record.twin ? [
    { y: data.record.twin.val_loss, name: "validation without spikes", style: "rule" },
  ] : [];
  const charts = images ? [
    { title: "loss", series: series({ training: history.losses }) },
    { title: "accuracy (%)",
      series: series({ training: history.train_acc, validation: history.val_acc }) },
  ] : [
    { title: "loss", rules: twin,
      series: series({ training: history.train_loss, validation: history.val_loss }) },
    { title: "spikes per channel", series: series(history.spikes_per_channel || {}) },
  ];
  if (data.drift) {
    const drifting = Object.entries(data.drift).map(([name, values], index) => ({
      name, style: styleOf(index),
      points: values.map((value, i) => [values.length === at.length ? at[i] : i + 1, value]),
    }));
    charts.push({ title: "thresholds and decays", series: drifting });
  }
  const drawn = charts.filter((chart) => chart.series.length);
  return {
    draw: (width) => {
      const columns = Math.min(drawn.length, width < 620 ? 1 : width < 900 ? 2 : 3);
      const each = Math.floor((width - 16 * (columns - 1)) / columns);
      return [html("div", { class: "charts" }, drawn.map((chart) => html("div", {},
        lineChart(each, { ...chart, xLabel }),
        legend([...chart.series, ...(chart.rules || [])]))))];
    },
    note: data.drift ? "" : "This run recorded no thresholds or decays during training.",
    table: () => {
      const columns = drawn.flatMap((chart) => chart.series.map((one) =>
        [`${chart.title}, ${one.name}`, new Map(one.points)]));
      const places = [...new Set(columns.flatMap(([, values]) => [...values.keys()]))];
      return [[xLabel, ...columns.map(([name]) => name)],
        ...places.sort((a, b) => a - b).map((place) =>
          [place, ...columns.map(([, values]) => values.get(place) ?? null)])];
    },
  };
};
