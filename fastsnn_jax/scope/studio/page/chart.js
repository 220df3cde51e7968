// Scales, axes and the marks that panels share: lines, lying bars, cells.

function linear(from, to, low, high) {
  const factor = to > from ? (high - low) / (to - from) : 0;
  return (value) => low + (value - from) * factor;
}

function logarithmic(from, to, low, high) {
  const at = linear(Math.log(from), Math.log(to), low, high);
  return (value) => at(Math.log(value));
}

// At most `most` + 1 round numbers from `from` to `to`.
function ticks(from, to, most = 5, whole = false) {
  if (!(to > from)) return [from];
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999999);
  if (whole) step = Math.max(1, Math.round(step));
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  const round = (value) => Number(value.toPrecision(12));
  return Array.from({ length: last - first + 1 }, (_, i) => round((first + i) * step));
}

function logTicks(from, to) {
  const powers = [];
  for (let p = Math.floor(Math.log10(from)); p <= Math.ceil(Math.log10(to)); p += 1) powers.push(p);
  const decades = powers.map((p) => 10 ** p);
  const inside = (values) => values.filter((v) => v >= from * 0.999 && v <= to * 1.001);
  const found = inside(decades);
  return found.length > 1 ? found : inside(decades.flatMap((d) => [d, 2 * d, 5 * d]));
}

// Ticks as text, with as many digits as it takes to tell them apart.
function tickTexts(values, words) {
  for (let digits = 3; ; digits += 1) {
    const texts = values.map((value) => (value ? words(value, digits) : "0"));
    if (digits === 9 || new Set(texts).size === texts.length) return texts;
  }
}

// The paper of a chart; `label` is what a screen reader says, the table holds the numbers.
function sheet(width, height, label) {
  const viewBox = `0 0 ${width} ${height}`;
  return svg("svg", { width, height, viewBox, role: "img", "aria-label": label });
}

function text(x, y, words, anchor = "start", kind = "") {
  return svg("text", { x, y, "text-anchor": anchor, class: kind }, words);
}

function line(x1, y1, x2, y2, kind) {
  return svg("line", { x1, y1, x2, y2, class: kind });
}

function polyline(places, kind) {
  const steps = places.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`);
  return svg("path", { d: steps.join(""), class: kind });
}

function marked(element, words) { // shows `words` beside the pointer
  element.dataset.tip = words;
  return element;
}

// Axis labels and ticks around the box {left, top, right, bottom}.
function axes(box, options) {
  const { x, y, xTicks = [], yTicks = [], xLabel, yLabel } = options;
  const { xText = number, yText = number } = options;
  const [across, along] = [tickTexts(yTicks, yText), tickTexts(xTicks, xText)];
  const parts = [];
  yTicks.forEach((tick, i) => {
    parts.push(line(box.left, y(tick), box.right, y(tick), "grid"));
    parts.push(text(box.left - 6, y(tick) + 4, across[i], "end", "soft"));
  });
  xTicks.forEach((tick, i) => {
    parts.push(line(x(tick), box.bottom, x(tick), box.bottom + 4, "axis"));
    parts.push(text(x(tick), box.bottom + 17, along[i], "middle", "soft"));
  });
  parts.push(line(box.left, box.bottom, box.right, box.bottom, "axis"));
  if (xLabel) parts.push(text((box.left + box.right) / 2, box.bottom + 34, xLabel, "middle"));
  if (yLabel) parts.push(text(0, 12, yLabel, "start", "strong"));
  return parts;
}

// A span with room at both ends, and some where all values are one.
function spread(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = high > low ? share * (high - low) : 0.1 * (Math.abs(high) || 1);
  return [low - room, high + room];
}

// Several series [{name, points: [[x, y]], style}] over one x axis, and level lines
// [{y, style, words}]. With `xTicks` these alone stand below the axis, which doubles from one to
// the next; with `log` the other axis is logarithmic too. `words` makes text of a value.
function lineChart(width, options) {
  const { title, series, xLabel, rules = [], xTicks = null, words = number, log = false } = options;
  const height = 210;
  const places = series.flatMap((one) => one.points);
  const xs = places.map((place) => place[0]);
  const values = [...places.map((p) => p[1]), ...rules.map((rule) => rule.y)];
  const [low, high] = log ? [Math.min(...values) / 1.3, Math.max(...values) * 1.3]
    : spread(values, 0.06);
  const yTicks = log ? logTicks(low, high) : ticks(low, high, 4);
  const letters = Math.max(...tickTexts(yTicks, words).map((label) => label.length));
  const box = { left: 14 + 7 * letters, top: 26, right: width - 10, bottom: height - 44 };
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const x = (xTicks ? logarithmic : linear)(first, last, box.left + 6, box.right - 6);
  const y = (log ? logarithmic : linear)(low, high, box.bottom, box.top);
  const paper = sheet(width, height, `${title}: ${series.map((one) => one.name).join(", ")}`);
  paper.append(...axes(box, {
    x, y, yTicks, xTicks: xTicks || ticks(first, last, width < 420 ? 4 : 7, true), xText: count,
    yText: words, xLabel, yLabel: title,
  }));
  for (const rule of rules) {
    paper.append(line(box.left, y(rule.y), box.right, y(rule.y), rule.style));
    if (rule.words) paper.append(text(box.right, y(rule.y) - 4, rule.words, "end", "soft"));
  }
  for (const { points, style, name } of series) {
    paper.append(polyline(points.map((p) => [x(p[0]), y(p[1])]), `line ${style}`));
    if (points.length > 60) continue;
    const colour = style.split(" ")[0].replace("s", "f");
    paper.append(...points.map(([at, value]) => marked(
      svg("circle", { cx: x(at), cy: y(value), r: 3, class: colour }),
      `${name}: ${words(value, 4)} at ${xLabel} ${at}`)));
  }
  return paper;
}

// The names of series, each with the line or the square that draws it.
function legend(series) {
  return html("div", {}, series.map(({ name, style, filled }) => {
    const sample = svg("svg", { width: 26, height: 10, "aria-hidden": "true" });
    sample.append(filled ? svg("rect", { width: 14, x: 6, height: 10, class: style })
      : line(0, 5, 26, 5, `line ${style}`));
    return html("span", { class: "key" }, sample, name);
  }));
}

function styleOf(index) {
  return `s${index % 4 + 1} dash${Math.floor(index / 4) % 4}`;
}

// One path for all cells of a kind: [[x, y, width, height]].
function cells(places, kind) {
  const box = (place) => {
    const [x, y, w, h] = place.map((value) => value.toFixed(2));
    return `M${x} ${y}h${w}v${h}h-${w}z`;
  };
  return svg("path", { d: places.map(box).join(""), class: kind });
}

// A lying bar, its low-to-high whisker, and its number behind them.
function bar({ x, row, height, from, to, kind, low, high, words, tip }) {
  const [start, end] = [x(from), x(to)];
  const middle = row + height / 2;
  const width = Math.max(end - start, 1);
  const parts = [marked(svg("rect", { x: start, y: row, width, height, class: kind }), tip)];
  if (high > low) {
    parts.push(line(x(low), middle, x(high), middle, "whisker"));
    parts.push(...[low, high].map((limit) =>
      line(x(limit), middle - 4, x(limit), middle + 4, "whisker")));
  }
  parts.push(text(Math.max(end, x(high)) + 7, middle + 4, words));
  return parts;
}

// Room for the longest of some names, no more than `letters` of it.
function gutter(names, letters) {
  return 15 + 6.8 * Math.min(letters, Math.max(...names.map((name) => name.length)));
}
