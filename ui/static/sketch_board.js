// What is on the sketcher: a picture and its mask; kept in this browser, and sent so that the studio knows both by name.

import { openPicture, readMask, writeMask } from "./sketch_files.js";
import { forget, keep, recall } from "./sketch_kept.js";
import { Mask } from "./sketch_mask.js";
import { address, post } from "./server.js";

const PAUSE_MS = 200; // without a stroke, before the mask is sent
const SHAPES_DIFFER = 0.02; // more than this, by the ratio of their sides

export class Board extends EventTarget {
  picture = null; // {file, url, width, height, id}, and `name`, the studio's, once it has the file
  mask = null;
  problem = ""; // why the studio does not have what is shown

  #turn = 0; // an older picture that opens slowly gives way
  #stale = false; // something is not sent
  #sending = null;
  #timer = 0;

  // `told(value)` gets what the studio is to know; "paint" events say which part of the mask to draw, "change" all else.
  constructor({ id, side, most }, told) {
    super();
    Object.assign(this, { id, side, most, told });
  }

  get isSettled() {
    return !this.#stale && !this.#sending;
  }

  // Shows what was here at the last visit.
  async restore() {
    const turn = this.#turn;
    const [kept, state] = await Promise.all([recall(`${this.id}.picture`), recall(`${this.id}.mask`)]);
    if (!kept || turn !== this.#turn) return;
    const picture = await openPicture(kept.file, this.most);
    if (turn !== this.#turn) return URL.revokeObjectURL(picture.url);
    const isSame = state?.id === kept.id;
    this.#show({ ...picture, id: kept.id, name: isSame ? state.name : null, isOld: true });
    if (isSame && state.mask) {
      const { bits } = await readMask(state.mask, this.mask.width, this.mask.height);
      if (turn === this.#turn) this.change((mask) => mask.replace(bits));
    }
    this.edited();
  }

  // Takes a picture's file; returns the mask that gave way, if any.
  async open(file) {
    const turn = ++this.#turn;
    const picture = await openPicture(file, this.most);
    if (turn !== this.#turn) return URL.revokeObjectURL(picture.url);
    const old = this.mask;
    this.#show({ ...picture, id: crypto.getRandomValues(new Uint32Array(2)).join("-"), name: null });
    this.edited(0);
    return old?.isEmpty === false ? old : null;
  }

  async load(url) {
    const turn = ++this.#turn;
    const answer = await fetch(url);
    if (!answer.ok) throw new Error("This picture is not there any more");
    const file = await answer.blob();
    return turn === this.#turn ? this.open(file) : null;
  }

  // Shows what the studio has under these names; a `mask` alone only on its own picture.
  async follow({ image, mask, show }) {
    if (image !== this.picture?.name) {
      if (show === "mask") return this.edited(0), "The mask that was found is for another picture";
      await this.load(address(`inputs/${image}`));
    }
    if (!mask || !this.mask) return;
    const answer = await fetch(address(`inputs/${mask}`));
    if (!answer.ok) throw new Error("This mask is not there any more");
    return this.take(await answer.blob());
  }

  remove() {
    this.#turn++;
    this.#show(null);
    this.edited(0);
  }

  // Takes the mask out of a file; says what is odd about it.
  async take(file) {
    const { mask } = this;
    const { bits, width, height } = await readMask(file, mask.width, mask.height);
    if (mask !== this.mask) return "";
    this.change((it) => it.replace(bits));
    if (mask.isEmpty) return "Nothing in this mask is white, so nothing is painted";
    const differ = Math.abs((width / height) * (mask.height / mask.width) - 1) > SHAPES_DIFFER;
    return differ ? "The mask has another shape than the picture and was stretched" : "";
  }

  // The mask as a file, as large as the picture.
  write() {
    return writeMask(this.mask, this.picture.width, this.picture.height);
  }

  // Takes over the mask of another picture.
  async inherit(mask) {
    await this.take(await writeMask(mask));
  }

  // Does something to the mask in one step that can be undone.
  change(act) {
    this.mask.begin();
    act(this.mask);
    if (this.mask.end()) this.edited();
  }

  undo() {
    if (this.mask?.undo()) this.edited();
  }

  redo() {
    if (this.mask?.redo()) this.edited();
  }

  // Something is otherwise than the studio knows.
  edited(pause = PAUSE_MS) {
    this.#stale = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.settle().catch(() => {}), pause);
    this.dispatchEvent(new Event("change"));
  }

  // Sends what is not sent yet; the studio then knows all that is shown.
  settle() {
    clearTimeout(this.#timer);
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null;
      this.dispatchEvent(new Event("change"));
    });
    return this.#sending;
  }

  async #send() {
    try {
      while (this.#stale) {
        this.#stale = false;
        const value = this.picture ? await this.#place() : await this.#leave();
        if (!this.#stale) this.told(value);
      }
      this.problem = "";
    } catch (error) {
      this.#stale = true;
      this.problem = error.told ?? "The studio does not answer; what you paint is kept in this browser";
      throw new Error(this.problem, { cause: error });
    }
  }

  async #place() {
    const { picture, mask } = this;
    const file = mask.isEmpty ? null : await writeMask(mask);
    const kept = this.#keep(picture, file);
    const sent = file && (await post("inputs", file, file.type));
    const name = await this.#named(picture);
    await kept;
    if (picture.name !== name) {
      picture.name = name;
      await this.#keep(picture, file);
    }
    return JSON.stringify({ image: name, mask: sent?.name ?? null });
  }

  // Keeps the mask in this browser, and the picture when it is new.
  async #keep(picture, mask) {
    const { id } = this;
    if (!picture.isOld) await keep(`${id}.picture`, { id: picture.id, file: picture.file });
    picture.isOld = true;
    await keep(`${id}.mask`, { id: picture.id, name: picture.name, mask });
  }

  async #leave() {
    await Promise.all([forget(`${this.id}.picture`), forget(`${this.id}.mask`)]);
    return "";
  }

  // The studio's name of the picture, which is sent where the studio has it no more.
  async #named(picture) {
    if (picture.isSent) return picture.name;
    const isThere = picture.name && (await fetch(address(`inputs/${picture.name}`), { method: "HEAD" })).ok;
    const name = isThere ? picture.name : (await post("inputs", picture.file, picture.file.type || "application/octet-stream")).name;
    picture.isSent = true;
    return name;
  }

  #show(picture) {
    if (this.picture) URL.revokeObjectURL(this.picture.url);
    this.picture = picture;
    const scale = picture && Math.min(1, this.side / Math.max(picture.width, picture.height));
    const [width, height] = picture ? [picture.width, picture.height].map((it) => Math.max(1, Math.round(it * scale))) : [];
    this.mask = picture && new Mask(width, height, (box) => this.dispatchEvent(new CustomEvent("paint", { detail: box })));
    this.dispatchEvent(new Event("picture"));
  }
}
