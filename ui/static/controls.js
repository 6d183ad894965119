// Skip and Stop while a job runs, and the switch that folds the settings away.

import { el, icon, ICONS } from "./dom.js";
import { recall, remember } from "./store.js";
import { toast } from "./toast.js";
import { watcher } from "./watcher.js";

const FOLDED = "pochade.settings";
const NARROW = "(max-width: 900px)";

export function mount({ element }) {
  const skip = el("button", { type: "button", id: "skip", title: "Leave this picture and go on with the next", onclick: () => watcher.skip() }, icon(ICONS.skip), "Skip");
  const stop = el("button", { type: "button", id: "stop", title: "Stop this job (Esc)", onclick: () => watcher.stop() }, icon(ICONS.stop), "Stop");
  const fold = el("button", { type: "button", id: "settings_switch", "aria-controls": "settings", title: "Settings" }, icon(ICONS.sliders), el("span", {}, "Settings"));
  element.replaceChildren(skip, stop, fold);

  const draw = () => {
    const { running, job } = watcher;
    stop.hidden = !running;
    skip.hidden = !running || job.count < 2 || job.state === "waiting";
  };
  watcher.addEventListener("change", draw);
  draw();

  const settings = document.getElementById("settings");
  const open = (isOpen) => {
    settings.toggleAttribute("data-folded", !isOpen);
    fold.setAttribute("aria-expanded", String(isOpen));
  };
  const stored = matchMedia(NARROW).matches ? null : recall(FOLDED);
  open(stored ? stored === "open" : !matchMedia(NARROW).matches);
  fold.addEventListener("click", () => {
    const isOpen = settings.hasAttribute("data-folded");
    open(isOpen);
    if (!matchMedia(NARROW).matches) remember(FOLDED, isOpen ? "open" : "folded");
    else if (isOpen) settings.scrollIntoView({ block: "start" });
  });
  new MutationObserver((changes) => changes.flatMap((change) => [...change.addedNodes]).forEach((node) => {
    if (!node.matches?.("div.validation-error")) return;
    if (settings.contains(node)) open(true);
    complain(node);
  })).observe(document.getElementById("desk"), { childList: true, subtree: true });
}

// A value was refused: its field may be folded away or lie in another tab.
function complain(message) {
  const tab = message.closest("[role=tabpanel]:not(#desk)");
  if (tab) document.getElementById(`${tab.id}-button`)?.click();
  message.closest(".group")?.querySelector(":scope > .label-wrap:not(.open)")?.click();
  message.scrollIntoView({ block: "nearest" });
  const label = message.closest(".block")?.querySelector("[data-testid=block-info], .field_label");
  const name = [...(label?.childNodes ?? [])].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.textContent).join("").trim();
  const said = message.textContent.trim();
  // A row says by itself whose it is.
  toast(name && !name.startsWith(said.split(/[ ,:]/)[0]) ? `${name}: ${said}` : said);
}
