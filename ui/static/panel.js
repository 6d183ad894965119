// Which pictures the next job works with: none, pictures to follow, one to repaint, one to vary or enlarge. What is chosen here
// shows its panel below; the others keep what is in them and have no effect.

import { el } from "./dom.js";
import { recall, remember } from "./store.js";

const KEPT = "pochade.pictures";
const OPEN = "pochade-panel"; // asks for a panel by its name

// Opens a panel from anywhere.
export const open = (tab) => document.dispatchEvent(new CustomEvent(OPEN, { detail: tab }));

export function mount({ element, props, watch, facts }) {
  const state = () => ({ tab: "words", ...Object.fromEntries(facts.mixes.map(({ id }) => [id, false])), ...props.value });
  const panel = document.getElementById("pictures");
  const buttons = facts.tabs.map(({ id, name, help }) =>
    el("button", { type: "button", role: "tab", id: `${id}_button`, title: help, "aria-controls": id === "words" ? null : `${id}_panel`, onclick: () => choose(id) }, name));
  const bar = el("div", { role: "tablist", "aria-label": "Pictures to work with" }, ...buttons);
  const mixes = facts.mixes.map(({ id, name }) => {
    const box = el("input", { type: "checkbox", id: `mix_${id}`, onchange: () => mix(id, box.checked) });
    return { id, box, node: el("label", { class: "mix" }, box, name) };
  });
  const row = el("div", { id: "mixes" }, ...mixes.map(({ node }) => node));
  element.replaceChildren(bar, row);

  const set = (what) => {
    props.value = { ...state(), ...what };
    draw();
  };
  const choose = (tab) => {
    set({ tab });
    if (tab !== "words") panel.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  // A picture starts from one other at most.
  const mix = (id, isOn) => set({ ...Object.fromEntries(mixes.map((it) => [it.id, false])), [id]: isOn });
  const draw = () => {
    const now = state();
    remember(KEPT, JSON.stringify(now));
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
      if (isShown) bar.scrollLeft = button.offsetLeft - bar.offsetLeft - 40;
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
  document.addEventListener(OPEN, (event) => choose(event.detail));
  watch("value", draw);
  const kept = parsed(recall(KEPT));
  facts.tabs.some(({ id }) => id === kept?.tab) ? set(kept) : draw();
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
