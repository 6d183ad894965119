// The rows of a list: each a file, with pictures, sliders and words about it. What a row has comes from its field.

import { combo } from "./combo.js";
import { el, icon, ICONS } from "./dom.js";
import { frame } from "./field.js";
import { library } from "./library.js";
import { well } from "./well.js";

const NOTES = { false: "to be fetched" };

export function mount({ element, props, watch, facts }) {
  const list = el("div", { class: "rows" });
  const more = el("button", { type: "button", class: "quiet_button", onclick: () => add() });
  element.replaceChildren(...frame(facts, list, more));

  const rows = () => (Array.isArray(props.value) ? props.value : []).map((row) => ({ ...facts.empty, ...row }));
  const change = (index, what) => {
    props.value = rows().map((row, at) => (at === index ? { ...row, ...what } : row));
  };
  const add = () => {
    props.value = [...rows(), facts.empty];
    draw();
    list.lastChild.querySelector(".combo_box").focus();
  };
  const remove = (index) => {
    props.value = rows().filter((_, at) => at !== index);
    draw();
    (list.children[Math.min(index, list.children.length - 1)]?.querySelector(".combo_box") ?? more).focus();
  };
  const draw = () => {
    list.replaceChildren(...rows().map((row, index) => drawn(row, index, facts, change, remove)));
    more.hidden = rows().length >= facts.most;
    const word = /^[A-Z][a-z]+$/.test(facts.word) ? facts.word.toLowerCase() : facts.word;
    more.textContent = `Add ${/^[aeiou]/i.test(word) ? "an" : "a"} ${word}`;
  };
  watch("value", draw);
  library.addEventListener("change", draw);
  library.open();
  draw();
}

function drawn(row, index, facts, change, remove) {
  const label = `${facts.word} ${index + 1}`;
  const node = el("div", { class: "row_item", role: "group", "aria-label": label });
  const set = (what) => {
    Object.assign(row, what);
    change(index, what);
    node.toggleAttribute("data-off", !row.on);
  };
  const on = el("input", { type: "checkbox", class: "switch", "aria-label": `${label} on`, checked: row.on, onchange: () => set({ on: on.checked }) });
  const off = el("button", { type: "button", class: "row_off", "aria-label": `Take ${label} away`, title: `Take ${label} away`, onclick: () => remove(index) }, icon(ICONS.close));
  const made = facts.fields.map((field) => ({ ...field, node: SHAPES[field.shape]({ ...field, label: `${label}: ${field.label.toLowerCase()}`, name: field.label }, row[field.name], (value) => set({ [field.name]: value }), { row, facts }) }));
  const common = made.filter(({ shape, rare }) => shape !== "file" && !rare);
  const pictures = common.filter(({ shape }) => shape === "picture" || shape === "pictures");
  const rare = made.filter((it) => it.rare);
  const isUsed = rare.some(({ name }) => row[name] !== facts.empty[name]);
  node.append(
    el("div", { class: "row_head" }, on, made.find(({ shape }) => shape === "file").node, off),
    ...(pictures.length ? [el("div", { class: "row_pictures" }, ...pictures.map((it) => it.node))] : []),
    ...common.filter((it) => !pictures.includes(it)).map((it) => it.node),
    ...(rare.length ? [el("details", { class: "row_more", open: isUsed }, el("summary", {}, "More"), ...rare.map((it) => it.node))] : []));
  node.toggleAttribute("data-off", !row.on);
  return node;
}

const named = (name, help, node) => el("label", { class: "row_field", title: help }, el("span", {}, name), node);

function words({ name, label, help, hint, shape }, value, set) {
  const box = el("input", { type: shape === "whole" ? "number" : "text", "aria-label": label, spellcheck: "false", autocomplete: "off", placeholder: hint, value, onchange: () => set(box.value.trim()) });
  return named(name, help, box);
}

function picture({ name, label, help }, value, set, { facts }) {
  const place = well({ label, most: facts.limits, change: set });
  place.show(value);
  return el("div", { class: "row_picture", title: help }, place.node, el("span", { class: "row_caption" }, name));
}

// Several pictures, and a place for one more.
function pictures({ name, label, help }, value, set, { facts }) {
  const node = el("div", { class: "row_picture", title: help });
  let names = [...value];
  const draw = () => {
    const places = [...names, ""].map((shown, at) => {
      const place = well({
        label: `${label} ${at + 1}`, most: facts.limits,
        change: (given) => {
          names = [...names.slice(0, at), given, ...names.slice(at + 1)].filter(Boolean);
          set(names);
          draw();
        },
      });
      place.show(shown);
      return place.node;
    });
    node.replaceChildren(...places, el("span", { class: "row_caption" }, name));
  };
  draw();
  return node;
}

const SHAPES = {
  file: ({ label, name, help }, value, set, { facts }) => {
    const box = combo({
      label, isFree: true,
      placeholder: name,
      known: () => library.known,
      options: () => [{ value: "", text: `No ${name}` }, ...(library.lists[facts.files] ?? []).map((item) => ({ value: item.name, text: item.name, note: NOTES[item.there] }))],
      pick: set,
    });
    box.show(value);
    box.node.title = help;
    return box.node;
  },
  picture,
  pictures,
  text: words,
  words,
  whole: words,
  slide: ({ name, label, help, low, high, step }, value, set) => {
    const range = el("input", { type: "range", "aria-label": label, min: low, max: high, step, value });
    const number = el("input", { type: "number", "aria-label": `${label} as a number`, min: low, max: high, step, value });
    const show = (now) => {
      range.value = number.value = now;
      range.style.setProperty("--from", "0%");
      range.style.setProperty("--to", `${((now - low) / (high - low)) * 100}%`);
    };
    const take = (from) => {
      const now = Math.min(high, Math.max(low, Number(from.value) || 0));
      show(now);
      set(now);
    };
    range.addEventListener("input", () => take(range));
    number.addEventListener("change", () => take(number));
    show(value);
    return el("div", { class: "row_slide", title: help }, el("span", {}, name), range, number);
  },
  switch: ({ name, label, help }, value, set) => {
    const box = el("input", { type: "checkbox", "aria-label": label, checked: value, onchange: () => set(box.checked) });
    return el("label", { class: "row_switch", title: help }, box, name);
  },
};
