// Which of the two ways to ask the desk shows, by the tab that is chosen above it; with History it is away.

const MODES = ["text", "lora"];

export function mount({ trigger }) {
  const desk = document.getElementById("desk");
  const tabs = document.getElementById("tabs");
  let isLater = true; // the settings of the LoRA studio come when they are first wanted
  const chosen = () => MODES.find((mode) => document.getElementById(`${mode}_tab-button`)?.getAttribute("aria-selected") === "true");
  const draw = () => {
    const mode = chosen() ?? "none";
    for (const name of MODES) document.getElementById(`${name}_tab-button`)?.setAttribute("aria-controls", "desk");
    if (mode === desk.dataset.mode) return;
    desk.dataset.mode = mode;
    desk.setAttribute("role", "tabpanel");
    desk.setAttribute("aria-labelledby", `${mode}_tab-button`);
    if (mode === "lora" && isLater) {
      isLater = false;
      trigger("open");
    }
    document.dispatchEvent(new CustomEvent("pochade-mode", { detail: mode }));
  };
  new MutationObserver(draw).observe(tabs, { attributes: true, attributeFilter: ["aria-selected"], childList: true, subtree: true });
  draw();
}
