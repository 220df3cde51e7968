// Accuracy against synaptic events or energy, over this run and those to compare with.

const MOST_LABELS = 12; // of more points only the best are named beside their marks

function front(points, cost) { // those that no other beats in both, by rising cost
  let best = -Infinity;
  return [...points].sort((a, b) => a[cost] - b[cost] || b.accuracy - a.accuracy)
    .filter((point) => point.accuracy > best && ((best = point.accuracy), true));
}

// Labels above their points, left or right of them, those of the first points first; a label that
// would cover another is left out: tip and table have it.
function placed(labels, box) {
  const taken = [];
  return labels.flatMap(({ x, y, words, kind }) => {
    const width = 6.8 * words.length;
    const before = x + 10 + width > box.right;
    const left = before ? x - 10 - width : x + 10;
    const covers = (other) => Math.abs(other.y - y) < 14
      && other.left < left + width && left < other.left + other.width;
    if (left < box.left || taken.some(covers)) return [];
    taken.push({ left, y, width });
    return [text(before ? x - 10 : x + 10, y - 8, words, before ? "end" : "start", kind)];
  });
}

panels.pareto = () => {
  const per = data.axis === "token" ? "token" : "inference";
  const names = { energy_pj: "energy", events: "synaptic events" };
  const costs = Object.keys(names).filter((cost) =>
    data.points.some((point) => point[cost] !== null));
  const draw = (width) => {
    const cost = chosen("cost", costs);
    const points = data.points.filter((point) => point[cost] !== null);
    const words = cost === "energy_pj" ? energy : count;
    const values = points.map((point) => point[cost]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const log = least > 0 && most > 8 * least;
    const [from, to] = log ? [least / 1.4, most * 1.4] : spread(values, 0.12);
    const accuracies = points.map((point) => point.accuracy);
    const [low, high] = Math.min(...accuracies) < Math.max(...accuracies)
      ? spread(accuracies, 0.15) : [accuracies[0] - 1, accuracies[0] + 1];
    const height = 300;
    const box = { left: 52, top: 26, right: width - 16, bottom: height - 44 };
    const x = (log ? logarithmic : linear)(from, to, box.left + 4, box.right - 4);
    const y = linear(low, high, box.bottom, box.top);
    const paper = sheet(width, height, `Accuracy against ${names[cost]}, ${points.length} runs`);
    paper.append(...axes(box, {
      x, y, yTicks: ticks(low, high, 4), xText: words,
      xTicks: log ? logTicks(from, to) : ticks(Math.max(from, 0), to, width < 420 ? 2 : 4),
      xLabel: `${names[cost]} per ${per}`, yLabel: "accuracy (%)",
    }));
    const best = front(points, cost);
    const corner = (p, i) => (i ? `H${x(p[cost])}V${y(p.accuracy)}`
      : `M${x(p[cost])} ${y(p.accuracy)}`);
    paper.append(svg("path", { class: "line s1 dash2", d: best.map(corner).join("") }));
    const sorted = [...points].sort((a, b) => best.includes(b) - best.includes(a));
    const named = points.length > MOST_LABELS ? best : points;
    const labels = sorted.flatMap((point) => {
      const [cx, cy] = [x(point[cost]), y(point.accuracy)];
      const own = point === data.points[0] && point.name === "this run";
      const square = { x: cx - 5.5, y: cy - 5.5, width: 11, height: 11, class: "f2" };
      const disc = { cx, cy, r: 5, class: best.includes(point) ? "f1" : "s1 hollow" };
      const mark = own ? svg("rect", square) : svg("circle", disc);
      const tip = `${point.name}: ${number(point.accuracy, 4)} %, ${words(point[cost])}`;
      paper.append(marked(mark, tip));
      const label = { x: cx, y: cy, words: shortened(point.name, 22), kind: own ? "strong" : "" };
      return own || named.includes(point) ? [label] : [];
    });
    paper.append(...placed(labels, box));
    return [paper];
  };
  return {
    controls: (redraw) => (costs.length > 1
      ? [choice("cost", "Cost", costs, redraw, costs.map((cost) => names[cost]))] : []),
    draw,
    note: data.points.length > 1 ? ""
      : "One run: pass runs=[(name, accuracy, events, energy_pj), ...] to compare.",
    table: () => [["run", "accuracy (%)", `events per ${per}`, `energy per ${per} (pJ)`],
      ...data.points.map((p) => [p.name, p.accuracy, p.events, p.energy_pj])],
  };
};
