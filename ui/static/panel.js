// Which pictures the next job works with: none, pictures to follow, one to repaint, one to vary or enlarge. What is chosen here
// shows its panel below; the others keep what is in them and have no effect.

import { el } from "./dom.js";

export function mount({ element, props, watch, facts }) {
  const state = () => ({ tab: "words", inpaint: false, upscale_or_vary: false, ...props.value });
  const panel = document.getElementById("pictures");
  const buttons = facts.tabs.map(({ id, name, help }) =>
    el("button", { type: "button", role: "tab", id: `${id}_button`, title: help, "aria-controls": `${id}_panel`, onclick: () => set({ tab: id }) }, name));
  const bar = el("div", { role: "tablist", "aria-label": "Pictures to work with" }, ...buttons);
  const mixes = facts.mixes.map(({ id, name }) => {
    const box = el("input", { type: "checkbox", id: `mix_${id}`, onchange: () => set({ [id]: box.checked }) });
    return { id, box, node: el("label", { class: "mix" }, box, name) };
  });
  const row = el("div", { id: "mixes" }, ...mixes.map(({ node }) => node));
  element.replaceChildren(bar, row);

  const set = (what) => {
    props.value = { ...state(), ...what };
    draw();
  };
  const draw = () => {
    const now = state();
    panel.dataset.tab = now.tab;
    for (const { id, box } of mixes) {
      box.checked = now[id];
      panel.toggleAttribute(`data-${id}`, now[id]);
    }
    row.hidden = now.tab !== "image_prompts";
    buttons.forEach((button, index) => {
      const isShown = facts.tabs[index].id === now.tab;
      button.setAttribute("aria-selected", String(isShown));
      button.tabIndex = isShown ? 0 : -1;
    });
  };
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.click();
    next.focus();
  });
  document.addEventListener("pochade-panel", (event) => set({ tab: event.detail }));
  watch("value", draw);
  draw();
}
