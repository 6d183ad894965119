// The frame of a field that we draw: its label above, its help below, as Gradio has them.

import { el } from "./dom.js";

export function frame({ label, help }, ...nodes) {
  return [el("span", { class: "field_label" }, label), help && el("span", { class: "field_help" }, help), ...nodes].filter(Boolean);
}

// Parts of the settings follow from others by a mark on the column.
export const mark = (name, isOn) => document.getElementById("settings").toggleAttribute(`data-${name}`, isOn);
