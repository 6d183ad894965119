// The head of the page: its name, what the worker is up to, who has logged in, and the sheet of shortcuts.

import { el } from "./dom.js";
import { keys, sheet } from "./keys.js";
import { askPassword } from "./password.js";
import { address } from "./server.js";
import { watcher } from "./watcher.js";

const WORDS = { starting: "Starting", loading: "Loading the model", ready: "Ready", restarting: "Restarting", stopped: "Stopping" };

export function mount({ element }) {
  const status = el("span", { id: "status", role: "status" });
  const help = el("button", { type: "button", id: "shortcuts", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)", onclick: sheet }, "?");
  const visitor = el("details", { id: "visitor", hidden: true });
  const door = el("a", { id: "sign_in", hidden: true, title: "Sign in with Hugging Face" }, "Sign in");
  element.replaceChildren(el("h1", {}, "Pochade"), status, visitor, door, help);
  watcher.addEventListener("change", () => {
    const { studio, offline } = watcher;
    if (!studio) return;
    const text = offline ? "No connection" : [WORDS[studio.state], studio.pocket ? "pocket model" : studio.model, studio.device].filter(Boolean).join(" · ");
    if (status.textContent !== text) status.textContent = text;
    status.dataset.state = offline ? "stopped" : studio.state;
    status.title = studio.message || text;
    greet(visitor, watcher.visitor);
    open(door, watcher);
  });
  document.addEventListener("click", (event) => visitor.contains(event.target) || visitor.removeAttribute("open"));
  keys();
}

// Shows the way in where visitors of a Space may sign in: in a tab of its own, since a frame is no place for that.
function open(door, { place, visitor }) {
  door.hidden = !place?.sign_in || Boolean(visitor?.name);
  if (door.hidden) return;
  door.href = address("../login/huggingface");
  door.target = window.top === window ? "_self" : "_blank";
}

// Shows who has logged in, and the way out; nothing where nobody has to log in.
function greet(place, visitor) {
  const known = visitor && `${visitor.role} ${visitor.name}`;
  if (!visitor?.name || place.dataset.known === known) return;
  place.dataset.known = known;
  place.hidden = false;
  place.replaceChildren(
    el("summary", { title: `Logged in as ${visitor.name}` }, visitor.name),
    el("div", {},
      visitor.role === "owner" ? el("a", { href: address("../admin"), target: window.top === window ? null : "_blank" }, "People, keys, queue") : null,
      visitor.account ? null : el("button", { type: "button", id: "change_password", onclick: () => (place.removeAttribute("open"), askPassword(visitor.name)) }, "Change password"),
      el("button", { type: "button", id: "log_out", onclick: leave }, "Log out")));
}

// Logs out; what the page kept in this browser is not for whoever comes next.
function leave() {
  try {
    localStorage.clear();
    indexedDB.deleteDatabase("pochade");
  } catch {
    // A browser that keeps nothing has nothing to forget.
  }
  const form = el("form", { method: "post", action: address("../logout"), hidden: true });
  document.body.append(form);
  form.submit();
}
