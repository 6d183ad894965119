// The keyboard: one table of what each key does.

import { el, layer } from "./dom.js";
import { SHEET as SKETCHING } from "./sketch_keys.js";
import { weigh } from "./weights.js";
import { watcher } from "./watcher.js";

const WORDS_BOX = "#prompt textarea, #negative_prompt textarea, #lora_negative_prompt textarea";
const GENERATE = ["generate", "lora_generate"]; // one of them is in sight

const SHEET = [
  ["Ctrl + Enter", "Generate"],
  ["Esc", "Stop the job that runs"],
  ["Ctrl + ↑ or ↓", "Weight of the selected words, by 0.1"],
  ["← →", "Previous and next picture in the large view"],
  ["Delete", "Delete the picture in the large view"],
  ["?", "This sheet"],
];

export function keys() {
  document.addEventListener("keydown", press, true);
}

// Shows the table.
export function sheet() {
  const isSketching = document.querySelector(".sketch_frame");
  const rows = [...SHEET, ...(isSketching ? SKETCHING : [])].flatMap(([key, meaning]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, meaning)]);
  const dialog = el("dialog", { id: "sheet", "aria-label": "Keyboard shortcuts" },
    el("h2", {}, "Keyboard shortcuts"), el("dl", {}, ...rows),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  layer().append(dialog);
  dialog.showModal();
}

function press(event) {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  const held = event.ctrlKey || event.metaKey;
  if (held && event.key === "Enter") take(event, () => GENERATE.map((id) => document.getElementById(id)).find((button) => button?.offsetParent)?.click());
  else if (held && ["ArrowUp", "ArrowDown"].includes(event.key) && event.target.matches?.(WORDS_BOX)) {
    take(event, () => weigh(event.target, event.key === "ArrowUp" ? 1 : -1));
  } else if (event.key === "Escape" && !inList(event.target)) {
    if (watcher.running) take(event, () => watcher.stop());
  } else if (event.key === "?" && !event.target.matches?.("input, textarea, select, [contenteditable]")) take(event, sheet);
}

// Esc closes an open list of choices, or the box for a preset's name, first.
const inList = (target) => target.matches?.("input[aria-expanded=true], #preset_form *");

function take(event, act) {
  event.preventDefault();
  event.stopPropagation();
  act();
}
