// Which of the two ways to ask the desk shows, by the tab that is chosen above it; with History it is away. A reload
// comes back to the way that was used last.

import { recall, remember } from "./store.js";

const MODES = ["text", "lora"];
const KEPT = "pochade.mode";

export function mount({ trigger }) {
  const desk = document.getElementById("desk");
  let isLater = true; // the settings of the LoRA studio come when they are first wanted
  let last = recall(KEPT);
  const tab = (mode) => document.getElementById(`${mode}_tab-button`);
  const chosen = () => MODES.find((mode) => tab(mode)?.getAttribute("aria-selected") === "true");
  const draw = () => {
    if (last && tab(last)) {
      const wanted = tab(last);
      last = null;
      wanted.click();
    }
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
  whenThere("tabs", (tabs) => {
    new MutationObserver(draw).observe(tabs, { attributes: true, attributeFilter: ["aria-selected"], childList: true, subtree: true });
    draw();
  });
}

// Parts of the page come in no sure order.
function whenThere(id, act) {
  const node = document.getElementById(id);
  if (node) return act(node);
  const observer = new MutationObserver(() => {
    const found = document.getElementById(id);
    if (!found) return;
    observer.disconnect();
    act(found);
  });
  observer.observe(document.body, { childList: true, subtree: true });
}
