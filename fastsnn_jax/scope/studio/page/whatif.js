// The report again on another device, at other widths, steps, reuse or batch.

function whatIf(report, profiles, settings) {
  const profile = profiles[settings.device];
  const own = settings.device === report.profile.name; // of its levels the mapping may name one
  const mapping = { ...report.mapping, ...(own ? {} : { weights: "smallest", state: "smallest" }),
    weight_bits: settings.bits, reuse: settings.reuse, batch: settings.batch };
  const counts = Object.fromEntries(Object.entries(report.counts).map(([name, layer]) => {
    const one = numbers(layer);
    return [name, one.num_steps > 1 ? withSteps(one, settings.steps) : one];
  }));
  return priceAll(counts, profile, mapping);
}

panels.whatif = () => {
  const { report, profiles } = data;
  const steps = Math.max(...Object.values(report.counts).map((layer) => Number(layer.num_steps)));
  const given = { device: report.profile.name, bits: report.mapping.weight_bits, steps,
    reuse: report.mapping.reuse, batch: report.mapping.batch };
  const limits = { bits: [1, 64], steps: [1, 4096], reuse: [1, 1e6], batch: [1, 65536] };
  const read = () => {
    const settings = { ...given };
    if (profiles[state.get("device")]) settings.device = state.get("device");
    for (const [key, [low, high]] of Object.entries(limits)) {
      const value = Number(state.get(key));
      const whole = key === "reuse" || Number.isInteger(value);
      if (state.get(key) && whole && value >= low && value <= high) settings[key] = value;
    }
    return settings;
  };
  const fields = {};
  const labelled = (key, words, control) => {
    fields[key] = control;
    return html("label", {}, html("b", {}, words), control);
  };
  const controls = (redraw) => {
    const note = html("span", { class: "note", role: "status" });
    const set = (key, value) => {
      choose(key, value === given[key] ? null : value);
      redraw();
    };
    const device = html("select", {}, Object.keys(profiles).map((name) =>
      html("option", { value: name }, profiles[name].obsolete ? `${name} (obsolete)` : name)));
    device.addEventListener("change", () => set("device", device.value));
    const entry = (key, words, step) => {
      const [min, max] = limits[key];
      const input = html("input", { type: "number", min, max, step });
      input.addEventListener("change", () => {
        const valid = input.value !== "" && input.checkValidity();
        const kind = step === "any" ? "a number" : "a whole number";
        note.textContent = valid ? "" : `${words}: expected ${kind} from ${min} to ${max}.`;
        if (valid) set(key, Number(input.value));
      });
      return labelled(key, words, input);
    };
    const show = () => {
      const settings = read();
      for (const [key, field] of Object.entries(fields)) field.value = settings[key];
      note.textContent = "";
    };
    const reset = html("button", { type: "button" }, "As in the report");
    reset.addEventListener("click", () => {
      for (const key of Object.keys(given)) choose(key, null);
      show();
      redraw();
    });
    const all = [labelled("device", "Device", device), entry("bits", "Weight bits", 1),
      steps > 1 ? entry("steps", "Time steps T", 1) : null,
      entry("reuse", "Weight reuse, dense", "any"), entry("batch", "Batch", 1), reset, note];
    show();
    return all.filter(Boolean);
  };
  const priced = () => {
    try {
      return [whatIf(report, profiles, read()), ""];
    } catch (error) {
      if (error instanceof RangeError) return [null, error.message];
      throw error;
    }
  };
  const outcome = ({ total }, settings) => {
    const baseline = BASELINES[report.mapping.baseline];
    const against = total.baselines_pj[report.mapping.baseline];
    const nominal = total.energy_pj.total[1];
    const ratio = against
      ? ` ${number(nominal / against[1])} of the energy of the ${baseline}.` : "";
    const change = nominal / report.total.energy_pj.total[1];
    const moved = Object.keys(given).some((key) => settings[key] !== given[key]);
    const output = html("p", { id: "whatif-result" },
      html("b", { class: total.verdict.split(" ")[0] }, `SNN: ${total.verdict}`),
      `, ${energy(nominal)} per ${report.unit}.${ratio}`,
      moved ? ` ${number(change)} times the report's own.` : " The settings are the report's own.");
    output.dataset.total = total.energy_pj.total.join(" ");
    return output;
  };
  return {
    controls,
    keepsControls: true, // a number that is being typed stays where it is
    draw: (width) => {
      const [result, problem] = priced();
      if (!result) return [html("p", { class: "verdict", role: "status" }, problem)];
      const unpriced = result.total.priced ? [] : [html("p", { class: "note" },
        "This device has no price for some of the operations: the sum leaves them out.")];
      return [html("div", { "aria-live": "polite" }, outcome(result, read())),
        waterfall(width, result.total, "Energy under the chosen settings, against the ANN"),
        ...withoutPrice(result.total), ...unpriced];
    },
    note: (steps > 1 ? "Another T keeps the rates of spikes per step. " : "")
      + "On another device every number lies in the smallest memory that holds it.",
    table: () => {
      const [result, problem] = priced();
      if (!result) return [["problem"], [problem]];
      const { total } = result;
      const row = (name, bound) => [name, ...(bound || [null, null, null])];
      return [["pJ", "low", "nominal", "high"],
        ...PARTS.map((part) => row(part, total.energy_pj[part])),
        row("SNN in sum", total.energy_pj.total),
        ...Object.entries(BASELINES).map(([key, name]) => row(name, total.baselines_pj[key])),
        ["verdict", total.verdict, null, null]];
    },
  };
};
