// What every panel uses: the data, elements, numbers as text, and the state kept in the address.

const data = JSON.parse(document.getElementById("data").textContent);
const panels = {}; // key of a section -> () => view, see start.js

// Elements

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Numbers as text

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-5) return value.toExponential(digits - 1);
  const rounded = Number(value.toPrecision(digits));
  return rounded.toLocaleString("en-US", { maximumFractionDigits: 12 });
}

function scaled(value, units, digits) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const [factor, unit] = units.find(([limit]) => size >= limit * 0.9995) || units.at(-1);
  return `${number(value / factor, digits)} ${unit}`;
}

const ENERGY_UNITS = [[1e12, "J"], [1e9, "mJ"], [1e6, "µJ"], [1e3, "nJ"], [1, "pJ"]];
const COUNT_UNITS = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

function energy(picojoules, digits = 3) {
  return scaled(picojoules, ENERGY_UNITS, digits);
}

function count(value, digits = 3) {
  return scaled(value, COUNT_UNITS, digits).trim();
}

function percent(share) {
  return share === null || share === undefined ? "–" : `${number(100 * share)} %`;
}

// "blocks_3/attention/query/kernel" is as clear without its end.
function layerName(name) {
  return name.replace(/\/kernel$/, "");
}

// The first and the last part of a name say most; what is still too long loses its middle.
function shortened(name, letters) {
  if (name.length <= letters) return name;
  const parts = name.split("/");
  const ends = parts.length > 2 ? `${parts[0]}…${parts.at(-1)}` : name;
  if (ends.length <= letters) return ends;
  const head = Math.ceil((letters - 1) / 2);
  return `${ends.slice(0, head)}…${ends.slice(ends.length - (letters - 1 - head))}`;
}

// State: what is chosen stands behind the # of the address, so that a view can be shared.

const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

function chosen(key, options) {
  const value = state.get(key);
  return options.includes(value) ? value : options[0];
}

function choose(key, value) {
  if (value === null) state.delete(key);
  else state.set(key, value);
  history.replaceState(null, "", `#${state}`);
}

// A choice of one: buttons while they are few, a list where they are many.
function choice(key, label, options, redraw, names = options) {
  const value = chosen(key, options);
  const change = (event) => { choose(key, event.target.value); redraw(); };
  if (options.length > 5) {
    const select = html("select", { name: key }, options.map((option, index) =>
      html("option", { value: option, selected: option === value ? "" : null }, names[index])));
    select.addEventListener("change", change);
    return html("label", {}, html("b", {}, label), select);
  }
  const buttons = options.map((option, index) => html("label", {},
    html("input", {
      type: "radio", name: key, value: option, checked: option === value ? "" : null,
    }),
    html("span", {}, names[index])));
  const set = html("fieldset", {}, html("legend", {}, label),
    html("div", { class: "choice" }, buttons));
  set.addEventListener("change", change);
  return set;
}

// A table: the first row heads it.
function table([head, ...rows]) {
  const words = (cell) => {
    if (typeof cell === "string") return cell;
    return Number.isInteger(cell) ? cell.toLocaleString("en-US") : number(cell, 6);
  };
  const line = (cells, tag) => html("tr", {}, cells.map((cell) =>
    html(tag, tag === "th" ? { scope: "col" } : {}, words(cell))));
  return html("table", {}, html("thead", {}, line(head, "th")),
    html("tbody", {}, rows.map((row) => line(row, "td"))));
}

// Packed traces

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function spikesOf(packed) { // [steps][neurons], 0 to 3
  const planes = packed.planes.map(bytes);
  const at = (plane, i) => (plane[i >> 3] >> (7 - (i & 7))) & 1;
  return Array.from({ length: packed.steps }, (_, step) =>
    Array.from({ length: packed.neurons }, (_, neuron) => {
      const i = step * packed.neurons + neuron;
      return planes.reduce((level, plane, bit) => level + (at(plane, i) << bit), 0);
    }));
}

function valuesOf(packed) { // [steps][neurons]
  const codes = bytes(packed.values);
  const view = new DataView(codes.buffer);
  const unit = (packed.high - packed.low) / 65535;
  return Array.from({ length: packed.steps }, (_, step) =>
    Array.from({ length: packed.neurons }, (_, neuron) =>
      packed.low + unit * view.getUint16(2 * (step * packed.neurons + neuron), true)));
}
