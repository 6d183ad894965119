// The tabs of a settings column. Most parts are on the page from the start, since some follow others out of sight;
// what is left for later comes when its tab is opened.

import { el } from "./dom.js";

export function mount({ element, trigger, facts }) {
  const column = document.getElementById(facts.column);
  const tabs = facts.tabs.map(({ panel, name }) =>
    el("button", { type: "button", role: "tab", id: `${panel}-button`, "aria-controls": panel, onclick: () => show(panel) }, name));
  const bar = el("div", { role: "tablist", "aria-label": facts.label }, ...tabs);
  element.replaceChildren(bar);

  const later = new Set(facts.tabs.filter((tab) => tab.later).map((tab) => tab.panel));
  let open = null;
  const dress = () => facts.tabs.forEach(({ panel }) => {
    const node = document.getElementById(panel);
    node?.setAttribute("role", "tabpanel");
    node?.setAttribute("aria-labelledby", `${panel}-button`);
    node?.toggleAttribute("data-open", panel === open);
  });
  const show = (shown) => {
    if (later.delete(shown)) trigger("open");
    open = shown;
    dress();
    document.getElementById("settings").scrollTop = 0;
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
  show(facts.tabs[0].panel);
}
