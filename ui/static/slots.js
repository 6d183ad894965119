// The pictures to follow: four slots side by side, each with its type, its weight and how long it counts.

import { el } from "./dom.js";
import { address } from "./server.js";
import { well } from "./well.js";

export function mount({ element, props, watch, facts }) {
  const rows = () => facts.empty.map((empty, index) => ({ ...empty, ...props.value?.[index] }));
  const change = (index, what) => {
    props.value = rows().map((row, at) => (at === index ? { ...row, ...what } : row));
  };
  const slots = facts.empty.map((_, index) => slot(index, facts, (what) => change(index, what)));
  const extra = el("p", { class: "field_help", id: "slots_help" }, facts.help);
  element.replaceChildren(el("div", { id: "slots" }, ...slots.map(({ node }) => node)), extra);
  const draw = () => rows().forEach((row, index) => slots[index].show(row));
  watch("value", draw);
  window.pochadeSlots = {
    load: (url) => {
      const free = rows().findIndex((row) => !row.image);
      return slots[free < 0 ? facts.empty.length - 1 : free].open(url);
    },
  };
  draw();
}

function slot(index, { types, most, weight, stop }, change) {
  const label = `Image ${index + 1}`;
  const row = {};
  const set = (what) => {
    Object.assign(row, what);
    change(what);
    draw();
  };
  const picture = well({ label, most, change: (image) => set({ image }) });
  const kind = el("select", { "aria-label": `${label}: type`, title: "What is taken from the picture" }, ...types.map(({ name }) => el("option", { value: name }, name)));
  kind.addEventListener("change", () => {
    const { stop_at, weight: usual } = types.find(({ name }) => name === kind.value);
    set({ type: kind.value, stop_at, weight: usual });
  });
  const weigh = slide(`${label}: weight`, "Weight", weight, (value) => set({ weight: value }));
  const last = slide(`${label}: stop at`, "Stop at", stop, (value) => set({ stop_at: value }));
  const drawing = el("img", { class: "drawing", alt: "What the model is shown", hidden: true });
  const look = el("button", { type: "button", class: "quiet_button", title: "Show what the model is shown of this picture", onclick: () => peek() }, "Show drawing");
  const node = el("div", { class: "slot", "data-index": index }, picture.node, kind, weigh.node, last.node, look, drawing);
  const peek = () => {
    drawing.hidden = !drawing.hidden;
    draw();
  };
  const draw = () => {
    kind.value = row.type;
    weigh.show(row.weight);
    last.show(row.stop_at);
    node.toggleAttribute("data-empty", !row.image);
    const hasDrawing = Boolean(row.image) && types.find(({ name }) => name === row.type)?.draws;
    look.hidden = !hasDrawing;
    if (!hasDrawing) drawing.hidden = true;
    look.textContent = drawing.hidden ? "Show drawing" : "Hide drawing";
    const source = address(`inputs/${row.image}/drawing?type=${row.type}`);
    if (!drawing.hidden && drawing.src !== source) drawing.src = source;
    kind.title = types.find(({ name }) => name === row.type)?.help ?? "";
  };
  const show = (given) => {
    Object.assign(row, given);
    picture.show(row.image);
    draw();
  };
  return { node, show, open: picture.open };
}

function slide(label, name, { low, high, step }, change) {
  const range = el("input", { type: "range", "aria-label": label, min: low, max: high, step });
  const number = el("output", {});
  const show = (value) => {
    range.value = value;
    number.textContent = Number(value).toFixed(2);
    range.style.setProperty("--from", "0%");
    range.style.setProperty("--to", `${((value - low) / (high - low)) * 100}%`);
  };
  range.addEventListener("input", () => {
    show(Number(range.value));
    change(Number(range.value));
  });
  return { node: el("label", { class: "slide" }, el("span", {}, name), range, number), show };
}
