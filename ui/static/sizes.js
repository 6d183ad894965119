// The size: the shapes that the base model paints well, and any other in numbers.

import { el, icon, ICONS } from "./dom.js";
import { frame } from "./field.js";
import { library } from "./library.js";

const SMALLEST = 64;
const SHAPE = 22;

export function mount({ element, props, watch, facts }) {
  const panelId = `${facts.scope ? `${facts.scope}_` : ""}size_panel`;
  const face = el("button", { type: "button", class: "size_face", "aria-expanded": "false", "aria-controls": panelId });
  const grid = el("div", { class: "size_grid", role: "group", "aria-label": "Sizes of the base model" });
  const width = side("Width");
  const height = side("Height");
  const swap = el("button", { type: "button", class: "small_button", title: "Swap width and height", "aria-label": "Swap width and height", onclick: () => set(`${height.value}x${width.value}`) }, icon(ICONS.swap));
  const panel = el("div", { class: "size_panel", id: panelId, hidden: true }, grid, el("div", { class: "size_typed" }, width, el("span", {}, "×"), height, swap));
  element.replaceChildren(...frame({ label: facts.label }, face, panel));

  const open = (isOpen) => {
    panel.hidden = !isOpen;
    face.setAttribute("aria-expanded", String(isOpen));
  };
  const set = (size) => {
    props.value = size;
    draw();
  };
  const draw = () => {
    const [across, down] = sides(props.value);
    face.replaceChildren(shape(across, down), el("b", {}, `${across}×${down}`), el("span", { class: "quiet" }, ratio(across, down)));
    if (document.activeElement !== width) width.value = across;
    if (document.activeElement !== height) height.value = down;
    const sizes = library.model(library.baseOf(facts.scope))?.sizes ?? [];
    grid.replaceChildren(...sizes.map((size) => {
      const [w, h] = sides(size);
      return el("button", { type: "button", "data-size": size, "aria-pressed": String(size === props.value), title: `${w}×${h}, ${ratio(w, h)}`, onclick: () => (set(size), open(false), face.focus()) },
        shape(w, h), el("span", {}, `${w}×${h}`));
    }));
  };
  // A size that only other models offer gives way to the new model's own.
  const follow = ({ detail }) => {
    if (detail.scope !== (facts.scope ?? "text")) return;
    const base = library.model(library.baseOf(facts.scope));
    const isForeign = library.lists.models.some(({ sizes }) => sizes.includes(props.value));
    if (detail.picked && base && isForeign && !base.sizes.includes(props.value)) props.value = base.size;
    draw();
  };
  const typed = () => {
    const fit = (box) => Math.min(facts.most, Math.max(SMALLEST, Math.round(Number(box.value) / facts.grid) * facts.grid || SMALLEST));
    [width.value, height.value] = [fit(width), fit(height)];
    set(`${width.value}x${height.value}`);
  };
  function side(name) {
    return el("input", { type: "number", "aria-label": name, min: SMALLEST, max: facts.most, step: facts.grid, inputmode: "numeric", onchange: () => typed() });
  }

  face.addEventListener("click", () => open(panel.hidden));
  watch("value", draw);
  library.addEventListener("change", draw);
  library.addEventListener("base", follow);
  library.open();
  draw();
}

const sides = (size) => (String(size).match(/\d+/g) ?? [1, 1]).map(Number);

function shape(width, height) {
  const scale = SHAPE / Math.max(width, height);
  const rectangle = el("i", { class: "shape" });
  rectangle.style.width = `${Math.max(4, Math.round(width * scale))}px`;
  rectangle.style.height = `${Math.max(4, Math.round(height * scale))}px`;
  return el("span", { class: "shape_frame", "aria-hidden": "true" }, rectangle);
}

function ratio(width, height) {
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  const common = divisor(width, height) || 1;
  return `${width / common}:${height / common}`;
}
