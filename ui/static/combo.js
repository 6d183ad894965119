// A box to find one of many names by typing; where it is free, what was typed may itself be the choice. The list lies above everything, so that no column cuts it off.

import { el } from "./dom.js";

const MOST = 300;
const ROOM = 220;
let count = 0;

// `options()` gives [{value, text, note, tag}]: a note stands below the box too, a tag only in the list;
// `find` is what typing looks through, `face()` draws more than the text. `known()` says
// whether a value without an option is missing, `pick(value)` hears what was chosen, `isFree` takes addresses and hub ids. Returns its node and `show(value)`.
export function combo({ label, placeholder, options, known, pick, isFree }) {
  const id = `combo_${++count}`;
  const box = el("input", { type: "text", role: "combobox", class: "combo_box", "aria-label": label, "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false", placeholder });
  const list = el("ul", { id, role: "listbox", class: "combo_list", popover: "manual", "aria-label": label });
  const note = el("span", { class: "combo_note" });
  const node = el("div", { class: "combo" }, box, note, list);
  let value = "";
  let found = [];
  let active = -1;

  const isOpen = () => box.getAttribute("aria-expanded") === "true";
  const rest = () => {
    const option = options().find((item) => item.value === value);
    const isFar = isFree && !option && source(value) !== "";
    const isMissing = Boolean(value) && !option && !isFar && known();
    box.value = value || !placeholder ? (option?.text ?? value) : "";
    box.title = box.value;
    note.textContent = isMissing ? "not installed" : isFar ? `fetched from ${source(value)}` : (option?.note ?? "");
    node.toggleAttribute("data-missing", isMissing);
  };
  const place = () => {
    const { left, top, bottom, width } = box.getBoundingClientRect();
    const below = innerHeight - bottom - 12;
    const isBelow = below >= Math.min(ROOM, list.scrollHeight) || below >= top;
    Object.assign(list.style, {
      left: `${left}px`, width: `${width}px`,
      top: isBelow ? `${bottom + 4}px` : "auto", bottom: isBelow ? "auto" : `${innerHeight - top + 4}px`,
      maxHeight: `${Math.max(120, Math.min(360, isBelow ? below : top - 12))}px`,
    });
  };
  const activate = (index) => {
    active = index < found.length ? index : -1; // none
    [...list.children].forEach((item, at) => item.toggleAttribute("data-active", at === active));
    const item = list.children[active];
    item?.scrollIntoView({ block: "nearest" });
    item ? box.setAttribute("aria-activedescendant", item.id) : box.removeAttribute("aria-activedescendant");
  };
  const move = (step) => {
    const last = found.length - 1;
    activate(step > 0 ? (active >= last ? 0 : active + 1) : (active <= 0 ? last : active - 1));
  };
  const draw = (words) => {
    const all = options().filter(({ text, find = text }) => words.every((word) => find.toLowerCase().includes(word)));
    found = all.slice(0, MOST);
    list.replaceChildren(...found.map((item, index) =>
      el("li", { role: "option", id: `${id}_${index}`, "aria-selected": String(item.value === value), onclick: () => choose(item.value) },
        item.face?.() ?? item.text, item.note || item.tag ? el("span", { class: "combo_note" }, item.note || item.tag) : null)));
    if (!found.length) list.append(el("li", { class: "quiet" }, isFree ? "Nothing here has this name; Enter takes an address or owner/name as it is" : "Nothing has this name"));
    if (all.length > MOST) list.append(el("li", { class: "quiet" }, `and ${all.length - MOST} more; type to find them`));
    activate(words.length ? 0 : found.findIndex((item) => item.value === value));
  };
  const open = (words = []) => {
    draw(words);
    if (!isOpen()) {
      list.showPopover();
      addEventListener("scroll", place, true);
      addEventListener("resize", place);
    }
    box.setAttribute("aria-expanded", "true");
    place();
    list.children[active]?.scrollIntoView({ block: "nearest" });
  };
  const close = () => {
    if (isOpen()) list.hidePopover();
    removeEventListener("scroll", place, true);
    removeEventListener("resize", place);
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
    rest();
  };
  const choose = (wanted) => {
    value = wanted;
    close();
    pick(value);
  };

  list.addEventListener("mousedown", (event) => event.preventDefault()); // the box keeps the focus
  box.addEventListener("click", () => isOpen() || (open(), box.select()));
  box.addEventListener("input", () => open(box.value.toLowerCase().split(/\s+/).filter(Boolean)));
  const typed = () => box.value.trim();
  box.addEventListener("blur", () => (isFree && isOpen() && source(typed()) ? choose(typed()) : close()));
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") isOpen() ? move(event.key === "ArrowDown" ? 1 : -1) : open();
    else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) isOpen() ? take() : open();
    else if (event.key === "Escape" && isOpen()) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const take = () => {
    if (found[active]) choose(found[active].value);
    else if (isFree && typed()) choose(typed());
  };
  const show = (wanted) => {
    value = wanted;
    if (!isOpen()) rest();
  };
  return { node, show };
}

// Where a name that is no file of ours leads: a host, or nowhere.
export function source(name) {
  if (URL.canParse(name) && /^https?:/i.test(name)) return new URL(name).host;
  return /^[\w.-]+\/[\w.-]+(@[\w./-]+)?$/.test(name) && !/\.(safetensors|bin|pt|pth|ckpt)$/i.test(name) ? "the hub" : "";
}
