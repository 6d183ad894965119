// What has to be fetched before a base model can do something, or cannot be had: a sentence, and the files with their buttons.

import { el } from "./dom.js";
import { downloads } from "./downloads.js";
import { library } from "./library.js";

const USES = { inpaint: "repaint", improve: "repaint", enlarge: "enlarge a picture" };

// What is missing for a use: null, or {none, why, files, install}; a file is {kind, name, host, size}.
export function missing(use) {
  const { helpers = {}, studio } = library.lists;
  const own = helpers[library.base || studio] ?? helpers[""];
  return own?.[use] ?? null;
}

// Calls `draw` whenever the answers may be others.
export function follow(draw) {
  library.addEventListener("change", draw);
  library.addEventListener("base", ({ detail }) => detail.scope === "text" && draw());
  library.open();
}

export function mount({ element, facts }) {
  const notes = facts.uses.map((use) => needed(use));
  element.replaceChildren(...notes.map(({ node }) => node));
  const draw = () => notes.forEach(({ show }) => show());
  follow(draw);
  draw();
}

// A note on one use. `words` say what for.
export function needed(use, words = USES[use]) {
  const note = filesNote({ "data-use": use });
  return { node: note.node, show: () => note.show(missing(use), words) };
}

// A note on files that are missing; `show(what, words)` draws what `missing` answers. `first` is what they come with.
export function filesNote(attributes = {}, first = "picture") {
  const text = el("p", {});
  const all = el("button", { type: "button", class: "small_button", hidden: true }, "Download all");
  const list = el("ul", { class: "files" });
  const node = el("div", { class: "need", role: "note", hidden: true, ...attributes }, text, list, all);
  let rows = [];
  const idle = () => rows.map(({ file }) => file).filter((file) => downloads.of(file)?.problem !== null);
  const draw = () => {
    rows.forEach((row) => row.show());
    all.hidden = idle().length < 2;
  };
  all.addEventListener("click", () => downloads.start(idle()));
  downloads.addEventListener("change", draw);
  const show = (what, words) => {
    const said = sentence(what, words, first);
    if (text.textContent !== said) text.textContent = said;
    node.hidden = text.hidden = !said;
    node.toggleAttribute("data-none", Boolean(what?.none));
    const files = what?.files ?? [];
    if (files.map(({ name }) => name).join() !== rows.map(({ file }) => file.name).join()) {
      rows = files.map((file) => rows.find((row) => row.file.name === file.name) ?? fileRow(file));
      list.replaceChildren(...rows.map((row) => row.node));
    }
    draw();
  };
  return { node, show };
}

function sentence(what, words, first) {
  if (!what) return "";
  if (what.none) return what.why ?? `The base model has nothing to ${words} with; choose another one under Models.`;
  const { files = [], install } = what;
  const sizes = files.map(({ size }) => size);
  const all = sizes.every(Boolean) && files.length > 1 ? ` (${bytes(sizes.reduce((sum, size) => sum + size))})` : "";
  const many = files.length > 1 ? `${files.length} files${all} are missing. They come` : "one file is missing. It comes";
  const fetched = files.length ? `To ${words}, ${many} with the first ${first}, or now.` : "";
  const drawn = install ? `What draws it is not there: ${install}. Or bring a finished drawing, with Skip preprocessors.` : "";
  return [fetched, drawn].filter(Boolean).join(" ");
}

// A file with its button: Download, then its progress and Cancel, then nothing more, or what went wrong and Try again.
function fileRow(file) {
  const facts = el("span", { class: "file_facts" });
  const button = el("button", { type: "button", class: "small_button" });
  const fill = el("i", {});
  const bar = el("div", { class: "file_bar", role: "progressbar", "aria-label": file.name, "aria-valuemin": 0, "aria-valuemax": 100, hidden: true }, fill);
  const problem = el("p", { class: "file_problem", role: "alert", hidden: true });
  const node = el("li", { class: "file" }, el("span", { class: "file_name", title: file.name }, file.name), facts, button, bar, problem);
  const isComing = () => downloads.of(file)?.problem === null;
  button.addEventListener("click", () => (isComing() ? downloads.cancel(file) : downloads.start([file])));
  const show = () => {
    const now = downloads.of(file);
    const coming = isComing();
    const act = coming ? "Cancel" : now ? "Try again" : "Download";
    if (button.textContent !== act) button.textContent = act;
    button.setAttribute("aria-label", `${act}: ${file.name}`);
    facts.textContent = coming ? progress(now, file) : [file.size && bytes(file.size), file.host].filter(Boolean).join(" · ");
    bar.hidden = !coming;
    const share = coming && now.total ? (now.done / now.total) * 100 : null;
    bar.toggleAttribute("data-unknown", share === null);
    fill.style.width = share === null ? "" : `${share}%`;
    if (share === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", Math.round(share));
    problem.hidden = !now?.problem;
    if (problem.textContent !== (now?.problem ?? "")) problem.textContent = now?.problem ?? "";
  };
  return { file, node, show };
}

function progress({ done, total }, { host, size }) {
  if (!done && !total) return `Waiting for ${host}`;
  return total || size ? `${bytes(done)} of ${bytes(total || size)}` : bytes(done);
}

function bytes(count) {
  if (count >= 999.5e6) return `${(count / 1e9).toFixed(1)} GB`;
  if (count >= 9.95e6) return `${Math.round(count / 1e6)} MB`;
  if (count >= 999.5e3) return `${(count / 1e6).toFixed(1)} MB`;
  return `${Math.round(count / 1e3)} kB`;
}
