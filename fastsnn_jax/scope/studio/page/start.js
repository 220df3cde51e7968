// Puts every panel into its section, and draws it again when its width or a choice changes.

function show(section, view) {
  const [controls, figure, details] = [".controls", ".figure", "details"]
    .map((one) => section.querySelector(one));
  const place = details.querySelector(".scroll");
  let width = 0;
  const draw = () => {
    const note = view.note ? [html("p", { class: "note" }, view.note)] : [];
    figure.replaceChildren(...view.draw(width), ...note);
    if (details.open) place.replaceChildren(table(view.table()));
    else place.replaceChildren();
  };
  const redraw = () => {
    const focused = document.activeElement;
    if (!view.keepsControls) controls.replaceChildren(...view.controls(redraw));
    if (!focused.isConnected) { // the control that was used keeps the focus
      [...controls.querySelectorAll("input, select")]
        .find((one) => one.name === focused.name && one.value === focused.value)?.focus();
    }
    draw();
  };
  if (view.controls) controls.replaceChildren(...view.controls(redraw));
  details.addEventListener("toggle", draw);
  const fit = () => {
    const now = Math.floor(figure.clientWidth);
    if (now !== width && now > 0) { width = now; draw(); }
  };
  fit();
  window.addEventListener("resize", fit);
  if (chosen("tables", ["closed", "open"]) === "open") details.open = true;
}

for (const section of document.querySelectorAll("section.card")) {
  if (section.querySelector(".figure")) show(section, panels[section.id]());
}

// One tip for all marks, beside the pointer and inside the window.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const words = event.target.dataset?.tip;
  tip.hidden = !words;
  if (!words) return;
  tip.textContent = words;
  const { clientWidth, clientHeight } = document.documentElement;
  const left = Math.min(event.clientX + 14, clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, clientHeight - tip.offsetHeight - 8)}px`;
});
window.addEventListener("hashchange", () => { // another view typed or pasted into the address
  if (location.hash.includes("=")) location.reload();
});
