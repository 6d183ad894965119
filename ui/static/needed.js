// What has to be fetched before a base model can work with pictures, or cannot be had.

import { el } from "./dom.js";
import { library } from "./library.js";

const USES = { inpaint: "repaint", improve: "repaint", enlarge: "enlarge a picture" };

// What is missing for a use: null, or {none, files}.
export function missing(use) {
  const { helpers = {}, studio } = library.lists;
  const own = helpers[library.base || studio] ?? helpers[""];
  return own?.[use] ?? null;
}

// A sentence about it. `words` say what for.
export function sentence(use, words = USES[use]) {
  const what = missing(use);
  if (!what) return "";
  if (what.none) return `The base model has nothing to ${words} with; choose another one under Models.`;
  const { length } = what.files;
  return `To ${words}, ${length > 1 ? `${length} files are` : "one file is"} fetched with the first picture (size unknown): ${what.files.join(", ")}.`;
}

// Calls `draw` whenever the answers may be others.
export function follow(draw) {
  library.addEventListener("change", draw);
  library.addEventListener("base", draw);
  library.open();
}

export function mount({ element, facts }) {
  const notes = facts.uses.map((use) => el("p", { class: "need", "data-use": use, role: "note" }));
  element.replaceChildren(...notes);
  const draw = () => notes.forEach((note, index) => say(note, facts.uses[index]));
  follow(draw);
  draw();
}

export function say(note, use, words) {
  note.textContent = sentence(use, words);
  note.hidden = !note.textContent;
  note.toggleAttribute("data-none", Boolean(missing(use)?.none));
}
