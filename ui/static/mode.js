// Which of the two ways to ask the desk shows, by the tab that is chosen above it; with History it is away. A reload
// comes back to the way that was used last.

import { recall, remember } from "./store.js";

const MODES = ["text", "lora"];
const KEPT = "pochade.mode";

export function mount({ trigger }) {
  const desk = document.getElementById("desk");
  const tabs = document.getElementById("tabs");
  let isLater = true; // the settings of the LoRA studio come when they are first wanted
  const tab = (mode) => document.getElementById(`${mode}_tab-button`);
  const chosen = () => MODES.find((mode) => tab(mode)?.getAttribute("aria-selected") === "true");
  const draw = () => {
    const mode = chosen() ?? "none";
    for (const name of MODES) tab(name)?.setAttribute("aria-controls", "desk");
    if (mode === desk.dataset.mode) return;
    desk.dataset.mode = mode;
    if (mode === "none") return;
    remember(KEPT, mode);
    desk.setAttribute("role", "tabpanel");
    desk.setAttribute("aria-labelledby", `${mode}_tab-button`);
    if (mode === "lora" && isLater) {
      isLater = false;
      trigger("open");
    }
  };
  new MutationObserver(draw).observe(tabs, { attributes: true, attributeFilter: ["aria-selected"], childList: true, subtree: true });
  const last = recall(KEPT);
  draw();
  if (last && last !== chosen() && MODES.includes(last)) tab(last)?.click();
}
