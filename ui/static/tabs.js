// The tabs of the settings column. Most parts are on the page from the start, since some follow others out of sight;
// what is left for later comes when its tab is opened.

import { el } from "./dom.js";

export function mount({ element, trigger, facts }) {
  const column = document.getElementById("settings");
  const tabs = facts.tabs.map(({ panel, name }) =>
    el("button", { type: "button", role: "tab", id: `${panel}-button`, "aria-controls": panel, onclick: () => show(panel) }, name));
  const bar = el("div", { role: "tablist", "aria-label": "Settings" }, ...tabs);
  element.replaceChildren(bar);

  const later = new Set(facts.tabs.filter((tab) => tab.later).map((tab) => tab.panel));
  const dress = () => facts.tabs.forEach(({ panel }) => {
    const node = document.getElementById(panel);
    node?.setAttribute("role", "tabpanel");
    node?.setAttribute("aria-labelledby", `${panel}-button`);
  });
  const show = (shown) => {
    if (later.delete(shown)) trigger("open");
    column.dataset.tab = shown;
    column.scrollTop = 0;
    tabs.forEach((tab, index) => {
      const isShown = facts.tabs[index].panel === shown;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    });
  };
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.click();
    next.focus();
  });
  new MutationObserver(dress).observe(column, { childList: true });
  dress();
  show(facts.tabs[0].panel);
}
