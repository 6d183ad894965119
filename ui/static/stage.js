// The stage: the pictures of one job as they appear, or a friendly start.

import { el, promptBox, type } from "./dom.js";
import { drags } from "./drag.js";
import { file } from "./server.js";
import { look } from "./viewer.js";
import { listen } from "./reuse.js";
import { toast } from "./toast.js";
import { watcher } from "./watcher.js";

const GAP = 8;

export function mount({ element, props, trigger, watch }) {
  const words = el("p", { id: "progress_text" });
  const bar = el("div", { id: "progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, el("i"));
  const spoken = el("p", { class: "unseen", "aria-live": "polite", id: "spoken" });
  const tiles = el("div", { id: "tiles" });
  const queue = el("ul", { id: "queue", "aria-label": "Queue" });
  const foot = el("div", { id: "progress_row" }, words, queue);
  element.replaceChildren(tiles, bar, foot, spoken);

  listen(trigger);
  watch("value", () => {
    if (!props.value) return;
    watcher.submitted(props.value.job);
    if (props.value.notes.length) toast(props.value.notes.join(" "));
  });
  const draw = () => {
    drawTiles(tiles);
    drawProgress(bar, words, spoken);
    drawQueue(queue);
    document.title = title();
  };
  watcher.addEventListener("change", draw);
  new ResizeObserver(() => fit(tiles)).observe(tiles);
  watcher.start();
  draw();
}

function title() {
  const percent = Math.round((watcher.progress?.fraction ?? 0) * 100);
  return watcher.running ? `${percent}% · Pochade` : "Pochade";
}

function drawTiles(tiles) {
  const { job } = watcher;
  const ready = new Map(job && all(job).map((image) => [image.index, image]));
  const ended = job && !watcher.running;
  const empty = !job || (ended && !ready.size);
  if (empty) return drawStart(tiles);
  const shown = [...Array(job.count).keys()].filter((index) => !ended || ready.has(index));
  if (ended && job.grid) shown.push(job.grid.index);
  const key = `${job.id}:${job.grid?.grid}:${shown.join()}`;
  if (tiles.dataset.key !== key) {
    tiles.dataset.key = key;
    tiles.className = "";
    tiles.style.setProperty("--ratio", job.ratio);
    tiles.replaceChildren(...shown.map((index) => tile(index, job)));
    fit(tiles);
  }
  for (const node of tiles.children) fill(node, ready.get(Number(node.dataset.index)));
}

// The pictures of a job, and behind them the grid of all of them.
const all = (job) => (job.grid ? [...job.images, job.grid] : job.images);

function tile(index, job) {
  const isGrid = job.grid?.index === index;
  const button = el("button", { class: isGrid ? "tile whole" : "tile", type: "button", "data-index": index, disabled: true },
    el("img", { alt: job.prompt, draggable: "false", hidden: true }));
  const mine = () => all(watcher.job).find((image) => image.index === index);
  drags(button, () => mine() && file(mine()));
  button.addEventListener("click", () => {
    const images = all(watcher.job);
    look(images, images.findIndex((image) => image.index === index));
  });
  return button;
}

function fill(node, image) {
  const picture = node.firstChild;
  const source = image ? file(image) : watcher.frames.get(Number(node.dataset.index));
  node.disabled = !image;
  node.classList.toggle("done", Boolean(image));
  node.classList.toggle("working", !image && Boolean(watcher.running) && watcher.job.state === "running");
  node.setAttribute("aria-label", image ? `Open ${image.grid ? "the picture grid" : `picture ${image.index + 1}`}: ${image.prompt}` : "Picture in the making");
  if (!source || picture.dataset.source === source) return;
  picture.dataset.source = source;
  // The next frame is loaded aside, so that the picture never flickers and a frame that is gone leaves the last one.
  const next = new Image();
  next.onload = () => {
    if (picture.dataset.source !== source) return;
    picture.src = source;
    picture.hidden = false;
  };
  next.src = source;
}

// Chooses the number of columns that makes the tiles largest.
function fit(tiles) {
  const count = tiles.querySelectorAll(".tile").length;
  if (!count) return;
  const ratio = Number(tiles.style.getPropertyValue("--ratio")) || 1;
  const { clientWidth: width, clientHeight: height } = tiles;
  let best = 0;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - GAP * (columns - 1)) / columns;
    const down = ((height - GAP * (rows - 1)) / rows) * ratio;
    best = Math.max(best, Math.min(across, down));
  }
  tiles.style.setProperty("--tile", `${Math.floor(best)}px`);
}

function drawStart(tiles) {
  const { studio, job } = watcher;
  const key = JSON.stringify(["start", studio?.pocket, studio?.summary, job?.state, watcher.progress?.text]);
  if (tiles.dataset.key === key) return;
  tiles.dataset.key = key;
  tiles.className = "start";
  tiles.replaceChildren(...(job?.state === "failed" ? failure() : welcome(studio)));
}

const failure = () => [
  el("h2", {}, "This picture could not be painted"),
  el("p", { role: "alert", id: "failure" }, watcher.progress?.text ?? ""),
];

function welcome(studio) {
  const examples = (studio?.examples ?? []).slice(0, 4).map((text) =>
    el("button", { type: "button", class: "chip example", onclick: () => (type(promptBox(), text), promptBox().focus()) }, text));
  return [
    el("h2", {}, "What shall we paint?"),
    studio?.pocket ? el("p", { id: "pocket_note" }, `The pocket model is painting. ${studio.summary}`) : el("p", {}, "Describe a picture below and press Generate."),
    examples.length ? el("div", { class: "chips" }, ...examples) : null,
    studio?.pocket ? realWeights(watcher.place) : null,
  ].filter(Boolean);
}

// On a Space nobody but its owner can bring other weights: its last line leads to one of one's own.
const realWeights = (space) => space ? null : el("p", { class: "quiet", id: "real_weights" },
  "For pictures of anything, put an SDXL checkpoint (.safetensors) into ", el("code", {}, "models/checkpoints"),
  " and start again, or start with ", el("code", {}, "--model HUB_ID"), ".");

function drawProgress(bar, words, spoken) {
  const { job, progress, studio, running } = watcher;
  const percent = Math.round((progress?.fraction ?? 0) * 100);
  const busy = Boolean(running);
  bar.toggleAttribute("data-busy", busy);
  bar.toggleAttribute("data-waiting", busy && percent === 0);
  bar.firstChild.style.width = `${busy ? percent : 0}%`;
  bar.setAttribute("aria-valuenow", percent);
  bar.setAttribute("aria-valuetext", progress?.text ?? "");
  const text = watcher.offline ? "Connection lost; trying again" : sentence(job, progress, studio, busy);
  if (words.textContent !== text) words.textContent = text;
  const announcement = busy ? (job.state === "waiting" ? text : "Painting") : text;
  if (spoken.textContent !== announcement) spoken.textContent = announcement;
}

function sentence(job, progress, studio, busy) {
  const loading = ["starting", "loading", "restarting"].includes(studio?.state);
  if (loading && (!busy || job.state === "waiting")) return `${studio.message || "The model is loading"}${busy ? "" : "; what you generate waits for it"}`;
  if (studio?.state === "stopped") return studio.message || "The painter has stopped";
  if (job && !busy && !job.images.length) return job.state === "stopped" ? progress.text : ""; // the stage says it
  return progress?.text || studio?.message || "";
}

function drawQueue(list) {
  const waiting = watcher.queue.filter((job) => job.id !== watcher.running?.id);
  const key = JSON.stringify(waiting.map((job) => [job.id, job.text]));
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const name = (job) => job.prompt || (job.paints ? "No words" : "Mask from the picture");
  list.replaceChildren(...waiting.map((job) =>
    el("li", { class: "queued", title: job.text }, el("span", {}, name(job)),
      el("button", { type: "button", "aria-label": `Cancel ${name(job)}`, onclick: () => watcher.cancel(job.id) }, "×"))));
}
