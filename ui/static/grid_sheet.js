// The sheet as it appears: a cell for each job, with labels. This browser remembers it; its jobs are ordinary ones.

import { el } from "./dom.js";
import { address, read, thumbnail } from "./server.js";
import { recall, remember } from "./store.js";
import { toast } from "./toast.js";
import { look } from "./viewer.js";
import { watcher } from "./watcher.js";

const KEPT = "pochade.sheet";
const OVER = ["finished", "failed", "stopped"];

export function mount({ element, props, watch }) {
  const words = el("p", { class: "sheet_words", role: "status" });
  const save = el("button", { type: "button", class: "small_button", id: "save_sheet", onclick: () => download() }, "Download");
  const stop = el("button", { type: "button", class: "small_button", id: "cancel_sheet", onclick: () => cancel() }, "Cancel the rest");
  const close = el("button", { type: "button", class: "small_button", id: "close_sheet", onclick: () => take(null) }, "Close");
  const table = el("div", { class: "sheet_cells", role: "table", "aria-label": "Sheet" });
  const node = el("div", { class: "sheet_result", hidden: true }, el("div", { class: "sheet_head" }, words, stop, save, close), table);
  element.replaceChildren(node);

  let sheet = null; // {title, columns, rows, jobs}
  let known = new Map(); // job -> {state, images}, once it is over
  let looking = false;
  const take = (given) => {
    sheet = given;
    known = new Map();
    remember(KEPT, sheet && JSON.stringify(sheet));
    layOut();
    follow();
  };
  const layOut = () => {
    node.hidden = !sheet;
    if (!sheet) return table.replaceChildren();
    const { columns, rows, jobs } = sheet;
    const isNamed = rows.some(Boolean);
    table.style.setProperty("--columns", columns.length);
    table.toggleAttribute("data-named", isNamed);
    const head = el("div", { role: "row" }, isNamed ? el("span", { role: "columnheader" }) : null, ...columns.map((name) => el("span", { role: "columnheader", title: name }, name)));
    const lines = rows.map((name, row) => el("div", { role: "row" }, isNamed ? el("span", { role: "rowheader", title: name }, name) : null,
      ...columns.map((column, at) => el("div", { role: "cell" }, cell(jobs[row * columns.length + at], [name, column].filter(Boolean).join(", "))))));
    table.replaceChildren(head, ...lines);
  };
  const cell = (job, label) => el("button", { type: "button", class: "sheet_cell", "data-job": job, "data-label": label, "aria-label": label, disabled: true, onclick: () => open(job) });
  const open = (job) => {
    const images = sheet.jobs.map((id) => known.get(id)?.images[0]).filter(Boolean);
    look(images, images.indexOf(known.get(job).images[0]));
  };
  // Looks at the jobs that have left the queue.
  const follow = async () => {
    if (!sheet || looking) return draw();
    looking = true;
    const mine = sheet;
    const waiting = new Set(watcher.queue.map(({ id }) => id));
    for (const id of mine.jobs.filter((job) => !waiting.has(job) && !known.has(job))) {
      const job = await read(`jobs/${id}`).catch(({ status }) => (status === 404 ? { state: "stopped", images: [] } : null));
      if (mine !== sheet) break;
      if (job && OVER.includes(job.state)) known.set(id, job);
    }
    looking = false;
    draw();
  };
  const draw = () => {
    if (!sheet) return;
    const running = watcher.running?.id;
    for (const button of table.querySelectorAll(".sheet_cell")) {
      const job = known.get(button.dataset.job);
      const image = job?.images[0];
      const state = job ? (image ? "done" : job.state) : button.dataset.job === running ? "running" : "waiting";
      if (button.dataset.state === state) continue;
      button.dataset.state = state;
      button.disabled = !image;
      button.setAttribute("aria-label", `${button.dataset.label}: ${state}`);
      button.replaceChildren(...(image ? [el("img", { src: thumbnail(image), alt: button.dataset.label, width: image.width, height: image.height, draggable: "false" })] : state === "failed" ? ["Failed"] : state === "stopped" ? ["Stopped"] : []));
    }
    const done = sheet.jobs.filter((id) => known.get(id)?.images.length).length;
    const left = sheet.jobs.filter((id) => !known.has(id)).length;
    const text = left ? `${done} of ${sheet.jobs.length} pictures` : done === sheet.jobs.length ? `All ${done} pictures are here` : `${done} of ${sheet.jobs.length} pictures were painted`;
    if (words.textContent !== text) words.textContent = text;
    stop.hidden = !left;
    save.hidden = !done;
    close.hidden = Boolean(left);
  };
  const cancel = async () => {
    stop.disabled = true;
    const left = sheet.jobs.filter((id) => !known.has(id)).reverse(); // the last first, or others would begin meanwhile
    await Promise.all(left.map((id) => watcher.cancel(id).catch(() => {})));
    stop.disabled = false;
    follow();
  };
  const download = async () => {
    save.disabled = true;
    try {
      const answer = await fetch(address("sheet"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sheet) });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      const url = URL.createObjectURL(await answer.blob());
      el("a", { href: url, download: "sheet.png" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      toast(error.message || "The studio does not answer");
    }
    save.disabled = false;
  };
  watch("value", async () => {
    if (!props.value?.jobs) return;
    await watcher.refresh();
    take(props.value);
    node.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  watcher.addEventListener("change", follow);
  watcher.addEventListener("pictures", follow);
  take(kept());
}

function kept() {
  try {
    const sheet = JSON.parse(recall(KEPT));
    return Array.isArray(sheet?.jobs) && sheet.jobs.length === sheet.columns.length * sheet.rows.length ? sheet : null;
  } catch {
    return null;
  }
}
