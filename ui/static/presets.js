// Presets: chosen, saved from the form, deleted. The server fills the form; this part's value tells what it did.

import { combo } from "./combo.js";
import { el, icon, ICONS } from "./dom.js";
import { choosePicture } from "./picture_settings.js";
import { frame } from "./field.js";
import { library } from "./library.js";
import { recall, remember } from "./store.js";
import { toast } from "./toast.js";

const LAST = "pochade.preset";
const SURE_MS = 4000;

export function mount({ element, props, trigger, watch, facts }) {
  let chosen = recall(LAST) ?? "";
  const find = () => library.lists.presets.find((preset) => preset.id === chosen);
  const choose = (id) => {
    settle(id);
    if (id) trigger("choose", { preset: id });
  };
  const settle = (id) => {
    chosen = id;
    remember(LAST, id || null);
    draw();
  };
  const box = combo({ label: "Preset", placeholder: "Choose a preset", known: () => false, options: () => library.lists.presets.map((preset) => ({ value: preset.id, text: preset.name, tag: preset.own ? "yours" : "" })), pick: choose });
  const summary = el("p", { id: "preset_summary", class: "field_help" });
  const missing = el("p", { id: "preset_missing", class: "field_help" });
  const drop = el("button", { type: "button", class: "small_button", id: "delete_preset" }, icon(ICONS.trash));
  const save = el("button", { type: "button", class: "quiet_button", id: "save_preset", "aria-expanded": "false", hidden: !facts.can_save }, "Save as preset");
  const from = el("button", { type: "button", class: "quiet_button", id: "from_picture", title: "Take the settings out of a picture's file", onclick: choosePicture }, "From a picture");
  const name = el("input", { type: "text", id: "preset_name", "aria-label": "Name of the preset", placeholder: "Name", maxlength: facts.max_name });
  const keep = el("button", { type: "submit", class: "small_button prime" }, "Save");
  const form = el("form", { id: "preset_form", hidden: true }, name, keep);
  element.replaceChildren(...frame({ label: "Preset" }, el("div", { class: "preset_row" }, box.node, drop), summary, missing, el("div", { class: "two" }, save, from), form));

  const draw = () => {
    const preset = find();
    box.show(preset ? chosen : "");
    summary.textContent = preset?.summary ?? "";
    missing.textContent = preset?.missing.length ? `Fetched with the first picture: ${preset.missing.join(", ")}` : "";
    drop.hidden = !preset?.own;
    unsure();
  };
  // A second click is asked for where something is lost.
  let sure = 0;
  const unsure = () => {
    clearTimeout(sure);
    drop.title = "Delete this preset";
    drop.setAttribute("aria-label", drop.title);
    drop.removeAttribute("data-sure");
    drop.replaceChildren(icon(ICONS.trash));
    replaces = false;
    keep.textContent = "Save";
  };
  const later = () => {
    clearTimeout(sure);
    sure = setTimeout(unsure, SURE_MS);
  };
  let replaces = false;
  drop.addEventListener("click", () => {
    if (drop.hasAttribute("data-sure")) return trigger("discard", { preset: chosen });
    drop.setAttribute("data-sure", "");
    drop.replaceChildren("Delete?");
    drop.setAttribute("aria-label", "Really delete this preset");
    later();
  });
  const open = (isOpen) => {
    form.hidden = !isOpen;
    save.setAttribute("aria-expanded", String(isOpen));
    unsure();
  };
  save.addEventListener("click", () => {
    open(form.hidden);
    if (form.hidden) return;
    const preset = find();
    name.value = preset?.own ? preset.name : "";
    name.focus();
  });
  name.addEventListener("input", unsure);
  name.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    open(false);
    save.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = name.value.trim();
    if (!wanted) return name.focus();
    const isTaken = library.lists.presets.some((preset) => preset.own && same(preset.name, wanted));
    if (isTaken && !replaces) {
      replaces = true;
      keep.textContent = "Replace?";
      return later();
    }
    trigger("save", { name: wanted, replaces });
  });
  watch("value", async () => {
    const { saved, discarded } = props.value ?? {};
    await library.reload().catch(() => {});
    if (saved !== undefined) {
      open(false);
      settle(saved);
      toast(`Saved as ${find()?.name ?? "a preset"}`);
    } else if (discarded !== undefined) {
      settle("");
      toast("Preset deleted");
    }
  });
  library.addEventListener("change", draw);
  library.open();
  draw();
}

// Names that differ in capitals, blanks and signs only share a file.
const same = (one, other) => plain(one) === plain(other);
const plain = (name) => name.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "") || name;
