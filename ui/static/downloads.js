// Weights on their way: what the studio tells of them, and asking for more. Draws nothing itself.
//
// A download belongs to the studio and not to this page: other pages see it too, and closing this one ends nothing.

import { library } from "./library.js";
import { read, send } from "./server.js";
import { toast } from "./toast.js";
import { watcher } from "./watcher.js";

const LOOK_MS = 500;

class Downloads extends EventTarget {
  #files = []; // [{kind, name, done, total, problem}]: those that come, and those that failed to
  #timer = 0;
  #asking = false;

  constructor() {
    super();
    watcher.addEventListener("change", () => {
      if (watcher.studio && watcher.studio.downloads !== this.#files.length && !this.#timer) this.#look();
    });
  }

  // How far a file is: null while nobody wants it, and when it is there.
  of(file) {
    return this.#files.find((it) => isSame(it, file)) ?? null;
  }

  start(files) {
    return this.#ask("downloads", files);
  }

  cancel(file) {
    return this.#ask("downloads/cancel", [file]);
  }

  // Takes over what the studio told elsewhere.
  adopt(files) {
    return this.#take(files);
  }

  async #ask(path, files) {
    try {
      const named = files.map(({ kind, name }) => ({ kind, name }));
      await this.#take((await send(path, { files: named })).downloads);
    } catch (error) {
      toast(error.told ?? "The studio does not answer");
    }
  }

  async #look() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      await this.#take((await read("downloads")).downloads);
    } catch {
      this.#again();
    }
    this.#asking = false;
  }

  async #take(files) {
    const isOver = this.#files.some((it) => !it.problem && !files.some((other) => isSame(it, other)));
    if (isOver) await library.reload().catch(() => {}); // first, or a file that is there could be asked for again
    this.#files = files;
    this.dispatchEvent(new Event("change"));
    this.#again();
  }

  #again() {
    clearTimeout(this.#timer);
    const isBusy = this.#files.some((it) => !it.problem);
    this.#timer = isBusy ? setTimeout(() => this.#look(), LOOK_MS) : 0;
  }
}

const isSame = (one, other) => one.kind === other.kind && one.name === other.name;

export const downloads = new Downloads();
