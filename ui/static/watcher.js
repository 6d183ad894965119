// Watches the queue: which jobs wait and run, and what happens to the one on the stage. Draws nothing itself.
//
// State is asked for while something goes on; the job on the stage is followed through one event stream, which a browser
// opens again by itself after the network was away.

import { address, read, send } from "./server.js";
import { recall, remember } from "./store.js";

const BUSY_MS = 2000;
const QUIET_MS = 15000;
const LAST_JOB = "pochade.job";
const OVER = ["finished", "failed", "stopped"];

class Watcher extends EventTarget {
  studio = null; // what the worker is up to
  visitor = null; // who has logged in
  place = null; // of a Space: what it runs on, who sees pictures
  queue = []; // jobs that are not over
  job = null; // the job on the stage
  progress = null; // {kind, text, fraction} of that job
  frames = new Map(); // image -> address of its latest preview
  current = 0; // the image that the line of words is about
  offline = false;

  #stream = null;
  #timer = 0;
  #started = false;

  start() {
    if (this.#started) return;
    this.#started = true;
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    window.addEventListener("online", () => this.refresh());
    this.#open();
  }

  async #open() {
    await this.refresh();
    const last = recall(LAST_JOB);
    if (this.job || !last) return;
    try {
      this.#stage(await read(`jobs/${encodeURIComponent(last)}`));
    } catch {
      remember(LAST_JOB, null);
    }
  }

  get running() {
    return this.job && !OVER.includes(this.job.state) ? this.job : null;
  }

  // A job was submitted from this page.
  async submitted(id) {
    if (!this.running) this.#stage(await read(`jobs/${id}`));
    this.refresh();
  }

  async refresh() {
    clearTimeout(this.#timer);
    try {
      const { studio, visitor, place, jobs } = await read("state");
      this.offline = false;
      this.studio = studio;
      this.visitor = visitor;
      this.place = place;
      this.queue = jobs;
      const pictures = jobs.filter((job) => job.paints); // a mask goes to the sketcher, not on the stage
      const first = pictures.find((job) => job.state === "running") ?? pictures[0];
      if (first && !this.running) this.#stage(first);
    } catch {
      this.offline = true;
    }
    this.#tell();
    const busy = this.queue.length > 0 || this.offline || this.studio?.state !== "ready";
    this.#timer = setTimeout(() => document.hidden || this.refresh(), busy ? BUSY_MS : QUIET_MS);
  }

  async cancel(id) {
    await send(`jobs/${id}/cancel`);
    this.refresh();
  }

  async skip() {
    if (this.running) await send(`jobs/${this.running.id}/skip`);
  }

  async stop() {
    if (this.running) await this.cancel(this.running.id);
  }

  // Pictures were deleted or came back.
  changed(gone = []) {
    if (this.job) this.#reload();
    this.dispatchEvent(new CustomEvent("pictures", { detail: { gone } }));
  }

  #stage(job) {
    if (this.job?.id === job.id && this.#stream) return;
    this.#stream?.close();
    this.job = job;
    this.frames = new Map();
    this.current = 0;
    this.progress = { kind: job.state, text: job.text, fraction: 0 };
    remember(LAST_JOB, job.id);
    const stream = new EventSource(address(`jobs/${job.id}/events`));
    stream.onmessage = (message) => this.#hear(job.id, Number(message.lastEventId), JSON.parse(message.data));
    stream.onerror = () => {
      this.offline = true;
      this.#tell();
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => this.#again(job.id), BUSY_MS);
    };
    stream.onopen = () => {
      this.offline = false;
      this.#tell();
    };
    this.#stream = stream;
    this.#tell();
  }

  // The stream was refused, which a browser takes as final: by a proxy for a moment, or because the job is no more.
  async #again(id) {
    if (this.job?.id !== id) return;
    this.#stream = null;
    try {
      this.#stage(await read(`jobs/${id}`));
    } catch (error) {
      if (error.status === 404) {
        this.job = this.progress = null;
        remember(LAST_JOB, null);
        this.refresh();
      } else setTimeout(() => this.#again(id), BUSY_MS);
    }
  }

  #hear(id, number, update) {
    if (this.job?.id !== id) return;
    const words = update.image === undefined || update.kind !== "progress" || update.image <= this.current;
    this.progress = { fraction: 0, ...this.progress, kind: update.kind, ...(words && { text: update.text }) };
    if (update.fraction !== undefined) this.progress.fraction = update.fraction;
    if (update.preview) this.frames.set(update.image, address(`jobs/${id}/previews/${update.image}?v=${number}`));
    if (update.kind === "image" || update.kind === "skipped") this.current = Math.max(this.current, update.image + 1);
    if (update.kind === "waiting") {
      this.job.state = "waiting";
      this.frames.clear();
      this.current = 0;
    } else if (!OVER.includes(this.job.state)) this.job.state = "running";
    if (update.kind === "image") this.#reload();
    if (OVER.includes(update.kind)) this.#over(update);
    this.#tell();
  }

  #over(update) {
    this.#stream?.close();
    this.#stream = null;
    this.job.state = update.kind;
    this.queue = this.queue.filter((job) => job.id !== this.job.id);
    this.#reload().then(() => this.dispatchEvent(new CustomEvent("pictures", { detail: { gone: [] } })));
    this.refresh();
  }

  async #reload() {
    const id = this.job.id;
    const fresh = await read(`jobs/${id}`).catch(() => null);
    if (!fresh || this.job?.id !== id) return;
    this.job = { ...fresh, state: OVER.includes(this.job.state) ? this.job.state : fresh.state };
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

export const watcher = new Watcher();
