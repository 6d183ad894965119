// What there is to choose from, and which base model is chosen. Read when the page opens, and anew when it may have changed.

import { read, send } from "./server.js";

const AGAIN_MS = 3000;

class Library extends EventTarget {
  lists = { studio: "", models: [], loras: [], vaes: [], presets: [] };
  known = false;

  #base = "";
  #asked = null;

  // Reads the lists once, however many parts of the page ask.
  open() {
    this.#asked ??= this.reload().catch(() => setTimeout(() => this.reload().catch(() => {}), AGAIN_MS));
  }

  async reload() {
    this.#take(await read("lists"));
  }

  // Has the studio look at its folders first.
  async refresh() {
    this.#take(await send("refresh"));
  }

  get base() {
    return this.#base;
  }

  // `picked` says that a person chose it just now.
  setBase(name, picked) {
    if (name === this.#base && !picked) return;
    this.#base = name;
    this.dispatchEvent(new CustomEvent("base", { detail: { picked } }));
  }

  // The sizes of a base model and the one it starts from; '' is the studio's own model.
  model(name) {
    return this.lists.models.find((item) => item.name === (name || this.lists.studio));
  }

  #take(lists) {
    this.lists = lists;
    this.known = true;
    this.dispatchEvent(new Event("change"));
  }
}

export const library = new Library();
