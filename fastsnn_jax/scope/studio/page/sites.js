// What became of every site of a conversion: a bar for each by one measure, and all in a table.

const MEASURES = {
  relative_error: { name: "relative error", words: percent },
  rate: { name: "rate", words: (value) => `${number(value)} per step` },
  spikes_per_synapse: { name: "spikes per synapse", words: (value) => number(value) },
  saturation: { name: "saturation", words: percent },
  additions: { name: "multiply-adds to additions", words: (value) => count(value) },
};
const MOST_SITES = 40;

panels.sites = () => {
  const { sites } = data.conversion;
  const names = siteNames(sites);
  const known = Object.keys(MEASURES).filter((key) => sites.some((site) => site[key] !== null));
  const note = (site) => site.reason
    || (site.folded?.length ? `folded: ${site.folded.join(", ")}` : "");

  const bars = (width) => {
    const key = chosen("site-measure", known);
    const { name, words } = MEASURES[key];
    const twin = key === "additions" ? "macs" : null; // what the additions stand for
    const shown = sites.slice(0, MOST_SITES);
    const most = Math.max(...shown.flatMap((site) => [site[key] || 0, site[twin] || 0])) || 1;
    const letters = width < 500 ? 14 : 40;
    const left = gutter(shown.map((site) => names.get(site)), letters);
    const x = linear(0, most, left, width - (twin ? 120 : 96));
    const step = 25;
    const paper = sheet(width, shown.length * step + 6, `${name} of each site`);
    shown.forEach((site, index) => {
      const top = index * step + 4;
      const value = site[key];
      const label = text(left - 8, top + 14, shortened(names.get(site), letters), "end");
      paper.append(marked(label, `${site.name}: ${site.kind}, ${shape(site)}`));
      if (value === null) {
        const missing = site.converted ? "–" : "not converted";
        paper.append(marked(text(left + 4, top + 14, missing, "start", "soft"), note(site)));
        return;
      }
      const full = `${site.name}: ${name} ${words(value)}`;
      if (twin === null) {
        paper.append(...bar({ x, row: top, height: 17, from: 0, to: value, kind: "f1",
          low: 0, high: 0, words: words(value), tip: full }));
        return;
      }
      const before = site[twin];
      const tip = `${site.name}: ${count(before)} multiply-adds, ${count(value)} additions`;
      for (const [size, row, kind] of [[before, top, "f0"], [value, top + 9, "f1"]]) {
        const attributes = { x: left, y: row, width: Math.max(x(size) - left, 1), height: 8 };
        paper.append(marked(svg("rect", { ...attributes, class: kind }), tip));
      }
      paper.append(text(x(Math.max(before, value)) + 7, top + 13,
        `${count(before)} → ${count(value)}`));
    });
    const keys = twin ? [legend([{ name: "multiply-adds before", style: "f0", filled: true },
      { name: "additions after", style: "f1", filled: true }])] : [];
    return [paper, ...keys];
  };

  return {
    controls: (redraw) => (known.length > 1
      ? [choice("site-measure", "Measure", known, redraw, known.map((key) => MEASURES[key].name))]
      : []),
    draw: (width) => (known.length ? bars(width) : []),
    note: sites.length > MOST_SITES
      ? `${sites.length - MOST_SITES} more sites are in the table.` : "",
    table: () => filled([
      ["site", "kind", "shape", "threshold", "error", "rate", "saturated", "spikes per synapse",
        "time steps", "multiply-adds", "additions", "note"],
      ...sites.map((site) => [site.name, site.kind, shape(site), number(site.threshold),
        percent(site.relative_error), number(site.rate), percent(site.saturation),
        number(site.spikes_per_synapse), number(site.time_steps), count(site.macs),
        count(site.additions), note(site)]),
    ]),
  };
};

// What tells the sites apart: without the scopes that all stand in, and the kind at the end.
function siteNames(sites) {
  const parts = sites.map((site) => site.name.split("/"));
  const fewest = Math.min(...parts.map((each) => each.length));
  let shared = 0;
  while (shared < fewest - 1 && new Set(parts.map((each) => each[shared])).size === 1) shared += 1;
  const short = sites.map((site, index) => {
    const rest = parts[index].slice(shared);
    return (rest.length > 1 && rest.at(-1) === site.kind ? rest.slice(0, -1) : rest).join("/");
  });
  const unique = new Set(short).size === short.length;
  return new Map(sites.map((site, index) => [site, unique ? short[index] : site.name]));
}

// A table without the columns that hold nothing.
function filled([head, ...rows]) {
  const kept = head.map((_, column) => rows.some((row) => !["", "–"].includes(row[column])));
  return [head, ...rows].map((row) => row.filter((_, column) => kept[column]));
}

function shape(site) { // the turns of loops first
  return [...site.loops, ...site.shape].join(" × ") || "one number";
}
