// The LoRAs: a row each with a switch, the file and its weight. A row that is off or empty is kept, and not asked for.

import { combo, source } from "./combo.js";
import { el } from "./dom.js";
import { frame } from "./field.js";
import { library } from "./library.js";
import { bring } from "./lora_bring.js";
import { card, keepFresh, loras, options } from "./lora_library.js";

export function mount({ element, props, watch, facts }) {
  const empty = { on: true, file: "", scale: 1, ...(facts.is_free && { weight_name: "" }) };
  const prefix = facts.scope ? `${facts.scope}_` : "";
  const list = el("div", { class: "lora_rows", id: `${prefix}lora_rows` });
  const more = el("button", { type: "button", class: "quiet_button", id: `${prefix}add_lora`, onclick: () => add() }, "Add a row");
  element.replaceChildren(...frame(facts, list, more, bring({ take: (file) => put(file), zone: element })));
  keepFresh(list);

  const rows = () => (Array.isArray(props.value) ? props.value : []).map((row) => ({ ...empty, ...row }));
  const change = (index, what) => {
    props.value = rows().map((row, at) => (at === index ? { ...row, ...what } : row));
  };
  const add = () => {
    props.value = [...rows(), empty];
    draw();
    list.lastChild.querySelector(".combo_box").focus();
  };
  // A LoRA that has just come goes into the first empty row.
  const put = (file) => {
    const at = rows().findIndex((row) => !row.file);
    if (rows().some((row) => row.file === file) || (at < 0 && rows().length >= facts.most)) return;
    at < 0 ? (props.value = [...rows(), { ...empty, file }]) : change(at, { file });
    draw();
  };
  const draw = () => {
    list.replaceChildren(...rows().map((row, index) => drawn(row, index, facts, change)));
    more.hidden = rows().length >= facts.most;
  };
  watch("value", draw);
  library.addEventListener("change", draw);
  library.open();
  draw();
}

function drawn(row, index, { low, high, step, scope, is_free: isFree }, change) {
  const name = `LoRA ${index + 1}`;
  const node = el("div", { class: "lora" });
  const base = () => library.baseOf(scope);
  const about = card(base);
  const show = () => {
    node.toggleAttribute("data-off", !row.on);
    node.toggleAttribute("data-empty", !row.file);
    about.show(row.file);
    if (part) part.hidden = source(row.file) !== "the hub";
    // The bar grows from 0 to either side.
    const [none, at] = [0, row.scale].map((scale) => ((scale - low) / (high - low)) * 100);
    range.style.setProperty("--from", `${Math.min(none, at)}%`);
    range.style.setProperty("--to", `${Math.max(none, at)}%`);
  };
  const set = (what) => {
    Object.assign(row, what);
    change(index, what);
    show();
  };
  const on = el("input", { type: "checkbox", class: "switch", "aria-label": `${name} on`, checked: row.on, onchange: () => set({ on: on.checked }) });
  const box = combo({
    label: name,
    placeholder: "No LoRA",
    known: () => library.known,
    options: () => options(base),
    pick: (file) => {
      set({ file });
      const { weight = null } = loras.of(file) ?? {};
      if (weight !== null) weigh({ value: weight });
    },
    isFree,
  });
  // Of a repository, which of its files.
  const part = isFree ? el("input", { type: "text", class: "lora_file", "aria-label": `${name} file in the repository`, placeholder: "File: the usual one", spellcheck: "false", autocomplete: "off", value: row.weight_name, onchange: () => set({ weight_name: part.value.trim() }) }) : null;
  box.show(row.file);
  const range = el("input", { type: "range", "aria-label": `${name} weight`, min: low, max: high, step, value: row.scale, oninput: () => weigh(range) });
  const number = el("input", { type: "number", "aria-label": `${name} weight as a number`, min: low, max: high, step, value: row.scale, onchange: () => weigh(number) });
  const weigh = (from) => {
    const scale = Math.min(high, Math.max(low, Number(from.value) || 0));
    range.value = number.value = scale;
    set({ scale });
  };
  node.append(on, box.node, ...(part ? [part] : []), el("div", { class: "weight" }, range, number), about.node);
  show();
  return node;
}
