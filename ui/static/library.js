// What there is to choose from, and which base model is chosen. Read when the page opens, and anew when it may have changed.

import { read, send } from "./server.js";
import { watcher } from "./watcher.js";

const AGAIN_MS = 3000;

class Library extends EventTarget {
  lists = { studio: "", models: [], loras: [], vaes: [], embeddings: [], controls: [], encoders: [], unets: [], ic_lights: [], presets: [] };
  known = false;

  #bases = {}; // by form: the base model that is chosen there; '' is the studio's own
  #seen = null; // the revision that was asked for last
  #asked = null;

  constructor() {
    super();
    watcher.addEventListener("change", () => this.#follow());
  }

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

  // The base model of the form for text.
  get base() {
    return this.baseOf("text");
  }

  baseOf(scope = "text") {
    return this.#bases[scope] ?? "";
  }

  // `picked` says that a person chose it just now.
  setBase(name, picked, scope = "text") {
    if (name === this.#bases[scope] && !picked) return;
    this.#bases[scope] = name;
    this.dispatchEvent(new CustomEvent("base", { detail: { picked, scope } }));
  }

  // The sizes of a base model and the one it starts from; '' is the studio's own model.
  model(name) {
    return this.lists.models.find((item) => item.name === (name || this.lists.studio));
  }

  // The studio's library changed: a file that a job needed has come, or somebody else asked for one.
  #follow() {
    const revision = watcher.studio?.library;
    if (!this.known || revision === undefined || revision === this.#seen) return;
    this.#seen = revision;
    if (revision !== this.lists.revision) this.reload().catch(() => (this.#seen = null));
  }

  #take(lists) {
    this.lists = lists;
    this.known = true;
    this.dispatchEvent(new Event("change"));
  }
}

export const library = new Library();
