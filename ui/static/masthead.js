// The head of the page: its name, what the worker is up to, and the sheet of shortcuts.

import { el } from "./dom.js";
import { keys, sheet } from "./keys.js";
import { watcher } from "./watcher.js";

const WORDS = { starting: "Starting", loading: "Loading the model", ready: "Ready", restarting: "Restarting", stopped: "Stopped" };

export function mount({ element }) {
  const status = el("span", { id: "status", role: "status" });
  const help = el("button", { type: "button", id: "shortcuts", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)", onclick: sheet }, "?");
  element.replaceChildren(el("h1", {}, "Pochade"), status, help);
  watcher.addEventListener("change", () => {
    const { studio, offline } = watcher;
    if (!studio) return;
    const text = offline ? "No connection" : [WORDS[studio.state], studio.pocket ? "pocket model" : studio.model, studio.device].filter(Boolean).join(" · ");
    if (status.textContent !== text) status.textContent = text;
    status.dataset.state = offline ? "stopped" : studio.state;
    status.title = studio.message || text;
  });
  keys();
}
