// The pictures to follow: four slots side by side, each with its type, its weight and how long it counts.

import { el } from "./dom.js";
import { follow, missing, needed } from "./needed.js";
import { address, read } from "./server.js";
import { toast } from "./toast.js";
import { well } from "./well.js";

const WORDS = {
  ImagePrompt: "follow the look of a picture",
  FaceSwap: "take the face of a picture",
  PyraCanny: "follow outlines",
  CPDS: "follow light and depth",
  Depth: "follow near and far",
  Normal: "follow surfaces",
  Pose: "follow a pose",
  SoftEdge: "follow soft outlines",
  Scribble: "follow a scribble",
  Lineart: "follow fine lines",
  StraightLines: "follow straight lines",
};
const THRESHOLDS = { low: "canny_low_threshold", high: "canny_high_threshold" };

export function mount({ element, props, watch, facts }) {
  const rows = () => facts.empty.map((empty, index) => ({ ...empty, ...props.value?.[index] }));
  const change = (index, what) => {
    props.value = rows().map((row, at) => (at === index ? { ...row, ...what } : row));
    tell();
  };
  const slots = facts.empty.map((_, index) => slot(index, facts, (what) => change(index, what)));
  const notes = facts.types.map(({ name }) => ({ name, note: needed(name, WORDS[name]) }));
  element.replaceChildren(el("div", { id: "slots" }, ...slots.map(({ node }) => node)), ...notes.map(({ note }) => note.node));
  const draw = () => {
    rows().forEach((row, index) => slots[index].show(row));
    tell();
  };
  const tell = () => {
    const given = rows();
    for (const { name, note } of notes) {
      note.show();
      note.node.hidden ||= !given.some((row) => row.image && row.type === name);
    }
  };
  watch("value", draw);
  follow(draw);
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
  const facts = () => types.find(({ name }) => name === row.type);
  const node = el("div", { class: "slot", "data-index": index, role: "group", "aria-label": label });
  const picture = well({ label, most, change: (image) => set({ image }), around: node });
  const options = types.map(({ name, help }) => el("option", { value: name, title: help }, name));
  const kind = el("select", { "aria-label": `${label}: type` }, ...options);
  kind.addEventListener("change", () => {
    const { stop_at, weight: usual } = types.find(({ name }) => name === kind.value);
    set({ type: kind.value, stop_at, weight: usual });
  });
  const weigh = slide(label, weight, (value) => set({ weight: value }));
  const end = slide(label, stop, (value) => set({ stop_at: value }));
  const drawing = el("img", { class: "drawing", alt: `${label}: what the model is shown`, hidden: true });
  const look = el("button", { type: "button", class: "quiet_button", title: "What the model is shown of this picture", onclick: () => peek() });
  const more = el("div", { class: "slot_more" }, el("div", { class: "kind" }, kind), weigh.node, end.node, look);
  node.append(picture.node, more, drawing);
  const peek = () => {
    drawing.hidden = !drawing.hidden;
    draw();
  };
  drawing.addEventListener("error", () => {
    read(drawing.getAttribute("src")).catch(({ told }) => toast(told ?? "The picture could not be drawn"));
    drawing.removeAttribute("src");
    if (!drawing.hidden) peek();
  });
  const draw = () => {
    kind.value = row.type;
    kind.title = facts()?.help ?? "";
    options.forEach((option) => (option.disabled = Boolean(missing(option.value)?.none) && option.value !== row.type));
    weigh.show(row.weight);
    end.show(row.stop_at);
    node.toggleAttribute("data-empty", !row.image);
    look.hidden = !row.image || !facts()?.draws;
    if (look.hidden) drawing.hidden = true;
    look.textContent = drawing.hidden ? "Show drawing" : "Hide drawing";
    look.setAttribute("aria-expanded", String(!drawing.hidden));
    const source = address(`inputs/${row.image}/drawing?${new URLSearchParams({ type: row.type, ...thresholds() })}`);
    if (!drawing.hidden && drawing.src !== source) drawing.src = source;
  };
  const show = (given) => {
    Object.assign(row, given);
    picture.show(row.image);
    draw();
  };
  return { node, show, open: picture.open };
}

// Those of the settings column, once its part was open.
function thresholds() {
  const given = Object.entries(THRESHOLDS).map(([name, id]) => [name, document.querySelector(`#${id} input[type=number]`)?.value]);
  return Object.fromEntries(given.filter(([, value]) => value));
}

function slide(label, { name, help, low, high, step }, change) {
  const range = el("input", { type: "range", "aria-label": `${label}: ${name.toLowerCase()}`, min: low, max: high, step });
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
  return { node: el("label", { class: "slide", title: help }, el("span", {}, name), range, number), show };
}
