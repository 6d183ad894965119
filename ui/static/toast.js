// A short message at the foot of the page, with one thing to do about it.

import { el, layer } from "./dom.js";

const SHOWN_MS = 8000;
let leave = 0;

export function toast(text, label, act) {
  document.getElementById("studio_toast")?.remove();
  const note = el("div", { id: "studio_toast", role: "status" }, el("span", {}, text));
  const close = () => note.remove();
  if (label) note.append(el("button", { type: "button", onclick: () => (close(), act()) }, label));
  // Inside an open dialog, or it would lie behind.
  (document.querySelector("dialog[open]") ?? layer()).append(note);
  clearTimeout(leave);
  leave = setTimeout(close, SHOWN_MS);
}
