// The styles: found by their names and by their words, chosen in an order.
//
// The box keeps the focus while one looks through the list, so that all of it works without a mouse.

import { el } from "./dom.js";
import { library } from "./library.js";
import { read } from "./server.js";
import { toast } from "./toast.js";

const HINT = "Point at a style to read its words.";

export function mount({ element, props, watch, facts }) {
  const search = el("input", { type: "search", id: "style_search", role: "combobox", "aria-label": "Search styles", "aria-expanded": "true", "aria-controls": "style_list", "aria-autocomplete": "list", placeholder: "Search names and words", autocomplete: "off", spellcheck: "false" });
  const clear = el("button", { type: "button", class: "small_button", id: "clear_styles", onclick: () => choose([]) }, "Clear");
  const picked = el("ol", { id: "picked_styles", "aria-label": "Chosen styles, in their order" });
  const list = el("div", { id: "style_list", role: "listbox", "aria-multiselectable": "true", "aria-label": facts.label });
  const words = el("div", { id: "style_words" });
  element.replaceChildren(el("div", { class: "style_head" }, search, clear), picked, list, words);

  let groups = []; // {node, options: [{name, prompt, negative, text, node}]}
  let active = null;
  const all = () => groups.flatMap((group) => group.options);
  const shown = () => all().filter((option) => !option.node.hidden);
  const chosen = () => (Array.isArray(props.value) ? props.value : []);

  const choose = (names) => {
    if (names.length > facts.most) return toast(`At most ${facts.most} styles at once`);
    props.value = names;
    draw();
  };
  const toggle = (name) => choose(chosen().includes(name) ? chosen().filter((other) => other !== name) : [...chosen(), name]);
  const move = (name, to) => {
    const rest = chosen().filter((other) => other !== name);
    choose([...rest.slice(0, to), name, ...rest.slice(to)]);
  };
  const tell = (style) => words.replaceChildren(...told(style));
  const find = (name) => all().find((option) => option.name === name);

  const draw = () => {
    const names = chosen();
    clear.hidden = !names.length;
    picked.hidden = !names.length;
    picked.replaceChildren(...names.map((name, index) => chip(name, index, { move, toggle, tell: () => tell(find(name)), isMissing: groups.length > 0 && !find(name) })));
    for (const option of all()) option.node.setAttribute("aria-selected", String(names.includes(option.name)));
  };
  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const group of groups) {
      for (const option of group.options) option.node.hidden = !wanted.every((word) => option.text.includes(word));
      group.node.hidden = group.options.every((option) => option.node.hidden);
    }
    activate(wanted.length ? byName(shown(), wanted) : null);
    list.toggleAttribute("data-none", !shown().length);
  };
  const activate = (option) => {
    active?.node.removeAttribute("data-active");
    active = option ?? null;
    if (!active) return search.removeAttribute("aria-activedescendant");
    active.node.setAttribute("data-active", "");
    active.node.scrollIntoView({ block: "nearest" });
    search.setAttribute("aria-activedescendant", active.node.id);
    tell(active);
  };
  const load = async () => {
    const answer = await read("styles").catch(() => null);
    if (!answer) return void words.replaceChildren("The studio does not answer.");
    groups = answer.groups.map((group, number) => drawn(group, number, toggle, tell));
    list.replaceChildren(...groups.map((group) => group.node));
    tell(null);
    filter();
    draw();
  };

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    const options = shown();
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (step) activate(options[Math.min(options.length - 1, Math.max(0, options.indexOf(active) + step))]);
    else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) active && toggle(active.name);
    else if (event.key === "Escape" && search.value) (search.value = ""), filter();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  watch("value", draw);
  let isLoaded = false;
  new IntersectionObserver(([seen]) => {
    if (!seen.isIntersecting || isLoaded) return;
    isLoaded = true;
    load();
  }).observe(element);
  library.addEventListener("change", () => isLoaded && load());
  draw();
}

// Of what was found, a style whose name has the words comes before one whose text has.
const byName = (options, wanted) => options.find(({ name }) => wanted.every((word) => name.toLowerCase().includes(word))) ?? options[0];

function drawn({ name, styles }, number, toggle, tell) {
  const options = styles.map((style, index) => {
    const node = el("div", { role: "option", class: "style", id: `style_${number}_${index}`, "aria-selected": "false", "aria-describedby": "style_words" }, style.name);
    node.addEventListener("click", () => toggle(style.name));
    node.addEventListener("pointerenter", () => tell(style));
    return { ...style, node, text: `${style.name}\n${style.prompt}\n${style.negative}`.toLowerCase() };
  });
  const head = name ? el("div", { class: "style_group", id: `style_group_${number}` }, name) : null;
  const node = el("div", { role: "group", "aria-label": name || "Special" }, head, el("div", { class: "style_options" }, ...options.map((option) => option.node)));
  return { node, options };
}

function told(style) {
  if (!style) return [el("p", { class: "quiet" }, HINT)];
  return [el("b", {}, style.name), el("p", {}, style.prompt || "Changes nothing in the prompt."), style.negative ? el("p", { class: "quiet" }, `Not: ${style.negative}`) : null].filter(Boolean);
}

// A chosen style. It is moved by dragging it or with the arrow keys, which matters little: a later one is read later.
function chip(name, index, { move, toggle, tell, isMissing }) {
  const word = el("button", { type: "button", class: "picked_name", title: isMissing ? "There is no such style" : "Drag it or press the arrow keys to move it" }, name);
  const off = el("button", { type: "button", class: "picked_off", "aria-label": `Take ${name} off`, onclick: () => toggle(name) }, "×");
  const node = el("li", { class: "picked", draggable: "true", "data-missing": isMissing }, word, off);
  word.addEventListener("focus", tell);
  word.addEventListener("pointerenter", tell);
  word.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const chips = node.parentElement;
    if (step) move(name, Math.max(0, index + step));
    else if (event.key === "Delete" || event.key === "Backspace") toggle(name);
    else return;
    event.preventDefault();
    const next = step ? Math.min(chips.children.length - 1, Math.max(0, index + step)) : Math.min(index, chips.children.length - 1);
    chips.children[next]?.querySelector(".picked_name").focus();
  });
  node.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, name);
    event.dataTransfer.effectAllowed = "move";
  });
  node.addEventListener("dragover", (event) => event.dataTransfer.types.includes(DRAGGED) && event.preventDefault());
  node.addEventListener("drop", (event) => {
    const other = event.dataTransfer.getData(DRAGGED);
    if (!other) return;
    event.preventDefault();
    move(other, index);
  });
  return node;
}

const DRAGGED = "text/x-pochade-style";
