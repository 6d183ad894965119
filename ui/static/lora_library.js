// What the LoRAs say of themselves and what people noted on them, for the rows of every form: the list to choose from, and
// what stands below the one that was chosen. All of it is text that strangers wrote, and only ever set as text.

import { el, icon, promptBox, type } from "./dom.js";
import { library } from "./library.js";
import { openSheet } from "./lora_sheet.js";
import { address, read } from "./server.js";

const NOTES = { false: "to be fetched" };
const SHOWN = 8; // words below a row
const FACTS = "lora-facts"; // tells a card to look again
const FETCHED = /^fetched\/[0-9a-f]{12}-/;
export const PENCIL = "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3";
const FRAME = "M4 5h16v14H4zM4 16.500l5-5 4 4 2.500-2.500 4.500 4.500";

class Loras extends EventTarget {
  canBring = false; // whether the studio takes LoRAs
  canChange = true; // whether this visitor may bring some, and note on them

  #known = new Map();
  #bases = {};
  #turn = 0;

  constructor() {
    super();
    library.addEventListener("change", () => this.reload());
  }

  // Reads the facts where the lists came before anybody asked for them.
  open() {
    if (library.known && !this.#turn) this.reload();
  }

  async reload() {
    const turn = ++this.#turn;
    const told = await read("loras").catch(() => null);
    if (!told || turn !== this.#turn) return;
    this.#known = new Map(told.loras.map((item) => [item.name, item]));
    this.#bases = told.bases;
    this.canBring = told.can_bring;
    this.canChange = told.can_change;
    this.dispatchEvent(new Event("change"));
  }

  of(name) {
    return this.#known.get(name) ?? null;
  }

  // Why a LoRA does not go with a base model; '' where it does, or where nobody knows.
  misfit(name, base) {
    const { width = null, made_for: madeFor = "", fits_nothing: isNone = false } = this.of(name) ?? {};
    if (isNone) return "This file holds no LoRA";
    const wanted = this.#bases[base || library.lists.studio] ?? null;
    if (width === null || (wanted === null && width !== 0) || width === wanted) return "";
    return `Made for ${madeFor || "another kind of base model"}`;
  }
}

export const loras = new Loras();

// What a LoRA is called where there is little room.
export const shortName = (name) => name.replace(FETCHED, "");

// The choices of a box: `base()` names the base model that they have to fit.
export function options(base) {
  const all = library.lists.loras.map(({ name, there }) => {
    const facts = loras.of(name);
    const words = facts?.words ?? [];
    const misfit = loras.misfit(name, base());
    return {
      value: name,
      text: shortName(name),
      note: NOTES[there],
      find: [name, facts?.title, ...words].filter(Boolean).join(" "),
      face: () => face(name, facts, misfit),
    };
  });
  return [{ value: "", text: "No LoRA" }, ...all];
}

function face(name, facts, misfit) {
  const about = [facts?.title, facts?.words.join(", ")].filter(Boolean).join(" · ");
  return el("span", { class: "lora_choice", "data-misfit": Boolean(misfit) },
    thumbnail(name, facts),
    el("span", { class: "lora_lines" }, el("span", {}, shortName(name)), about ? el("small", {}, about) : null, misfit ? el("small", { class: "lora_misfit" }, misfit) : null));
}

export function thumbnail(name, facts) {
  const empty = el("span", { class: "lora_picture", "aria-hidden": "true" }, icon(FRAME));
  if (!facts?.thumbnail) return empty;
  const query = new URLSearchParams({ name, v: facts.thumbnail });
  const image = el("img", { class: "lora_picture", alt: "", loading: "lazy", draggable: "false", src: address(`loras/thumbnail?${query}`) });
  image.addEventListener("error", () => image.replaceWith(empty), { once: true });
  return image;
}

// What stands below a row: the picture, the title, words for the prompt, and a way to the notes. `base()` as above.
export function card(base) {
  const node = el("div", { class: "lora_card", hidden: true });
  let file = "";
  const show = (wanted) => {
    file = wanted;
    const facts = loras.of(file);
    node.hidden = !facts;
    if (!facts) return node.replaceChildren();
    const misfit = loras.misfit(file, base());
    const name = facts.title || shortName(file);
    const about = facts.title || (facts.made_for && !misfit ? `For ${facts.made_for}` : "No title");
    const words = facts.words.length ? facts.words : facts.tags;
    const open = () => openSheet(file);
    node.replaceChildren(
      el("button", { type: "button", class: "lora_face", tabindex: "-1", "aria-hidden": "true", onclick: open }, thumbnail(file, facts)),
      el("span", { class: facts.title ? "lora_title" : "lora_title quiet", title: file }, about),
      el("button", { type: "button", class: "lora_notes", "aria-label": `Notes on ${name}`, title: "Notes", onclick: open }, icon(PENCIL)),
      ...(words.length ? [el("div", { class: "lora_words", role: "group", "aria-label": `Words for ${name}` }, ...words.slice(0, SHOWN).map((word) => chip(word, !facts.words.length)))] : []),
      ...(misfit ? [el("p", { class: "lora_misfit" }, facts.fits_nothing ? misfit : `${misfit}, not for this base model`)] : []));
  };
  node.addEventListener(FACTS, () => show(file));
  return {
    node,
    show: (name) => name !== file && show(name),
  };
}

// A word that goes into the prompt, or out of it again.
function chip(word, isGuess) {
  const note = isGuess ? "From the captions it was trained with" : "Its trigger word";
  const node = el("button", { type: "button", class: "lora_word", "data-guess": isGuess, title: note, onclick: () => (toggle(word), mark()) }, word);
  const mark = () => node.setAttribute("aria-pressed", String(holds(promptBox()?.value ?? "", word)));
  node.addEventListener(FACTS, mark);
  mark();
  return node;
}

const parts = (text) => text.split(",").map((part) => part.trim());

// Whether a prompt has a word, or several, between its commas.
export function holds(text, word) {
  return `,${parts(text).join(",")},`.includes(`,${parts(word).join(",")},`);
}

export function toggled(text, word) {
  if (!holds(text, word)) {
    const before = text.trimEnd();
    return before + (!before ? "" : before.endsWith(",") ? " " : ", ") + word;
  }
  const [all, gone] = [parts(text), parts(word)];
  const at = all.findIndex((_, index) => gone.every((part, further) => all[index + further] === part));
  return all.toSpliced(at, gone.length).join(", ");
}

function toggle(word) {
  const box = promptBox();
  if (box) type(box, toggled(box.value, word));
}

// Keeps the cards below a node as they should be: new facts, another base model, other words in the prompt.
export function keepFresh(node) {
  loras.open();
  const tell = (what) => node.querySelectorAll(what).forEach((it) => it.dispatchEvent(new Event(FACTS)));
  const cards = () => tell(".lora_card");
  loras.addEventListener("change", cards);
  library.addEventListener("base", cards);
  document.addEventListener("input", (event) => event.target === promptBox() && tell(".lora_word"));
  node.addEventListener("pointerenter", () => tell(".lora_word"));
}
