// Every layer at every step, or at every token: the busier, the further from the paper's colour.

const LEVELS = 9;

panels.map = () => {
  const { rows, axis, measure } = data.map;
  const names = Object.keys(rows);
  const all = Object.values(rows).flat();
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const level = linear(least, most, 0, LEVELS - 1);
  const columns = rows[names[0]].length;
  const draw = (width) => {
    const letters = width < 500 ? 16 : 30;
    const tall = names.length > 12 ? 15 : 24;
    const left = gutter(names.map(layerName), letters);
    const box = { left, top: 4, right: width - 8, bottom: 4 + tall * names.length };
    const label = `${measure} of ${names.length} layers over ${columns} ${axis}s`;
    const paper = sheet(width, box.bottom + 42, label);
    const x = linear(0, columns, box.left, box.right);
    const wide = x(1) - x(0);
    const places = Array.from({ length: LEVELS }, () => []);
    names.forEach((name, row) => {
      const top = box.top + row * tall;
      rows[name].forEach((value, column) => {
        places[Math.round(level(value))].push([x(column), top + 0.5, wide + 0.05, tall - 1]);
      });
      const words = text(left - 6, top + tall / 2 + 4, shortened(layerName(name), letters), "end");
      paper.append(marked(words, layerName(name)));
    });
    paper.append(...places.map((some, index) => cells(some, `m${index}`)));
    names.forEach((name, row) => { // one clear strip a row says what is under the pointer
      const strip = svg("rect", { x: box.left, y: box.top + row * tall, height: tall,
        width: box.right - box.left, fill: "transparent" });
      strip.addEventListener("pointermove", (event) => {
        const place = (event.clientX - strip.getBoundingClientRect().left) / wide;
        const column = Math.max(0, Math.min(columns - 1, Math.floor(place)));
        marked(strip, `${layerName(name)}, ${axis} ${column}: ${number(rows[name][column])}`);
      });
      paper.append(strip);
    });
    paper.append(...axes(box, {
      x: (tick) => x(tick + 0.5), xLabel: axis,
      xTicks: ticks(0, columns - 1, width < 420 ? 3 : 8, true),
    }));
    const ramp = svg("svg", { width: 16 * LEVELS, height: 12, "aria-hidden": "true" });
    places.forEach((_, index) => ramp.append(cells([[16 * index, 0, 16, 12]], `m${index}`)));
    const ends = [`${number(least)} `, ramp, ` ${number(most)} ${measure}`];
    return [paper, html("p", { class: "note ramp" }, ends)];
  };
  return {
    draw,
    table: () => [[axis, ...names.map(layerName)],
      ...rows[names[0]].map((_, column) => [column, ...names.map((name) => rows[name][column])])],
  };
};
