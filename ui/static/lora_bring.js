// How more LoRAs come: a file that is dropped or chosen, an address, a repository of the hub. The studio looks at each.

import { el, icon, ICONS } from "./dom.js";
import { downloads } from "./downloads.js";
import { library } from "./library.js";
import { loras, shortName } from "./lora_library.js";
import { address, send } from "./server.js";

const ENDING = /\.safetensors$/i;
const MOST_HEADER = 64 * 2 ** 20; // as the studio has it
const REPOSITORY = /^[\w.-]+\/[\w.-]+(@\S+)?$/;

// `take(name)` hears of each LoRA that came; files may be dropped anywhere on `zone`.
export function bring({ take, zone }) {
  const choose = el("input", { type: "file", accept: ".safetensors", multiple: true, hidden: true });
  const button = el("button", { type: "button", class: "lora_drop", onclick: () => choose.click() }, icon(ICONS.download), "Drop a .safetensors file, or choose one");
  const box = el("input", { type: "text", "aria-label": "Address of a LoRA", placeholder: "https://… or owner/name", spellcheck: "false", autocomplete: "off" });
  const part = el("input", { type: "text", "aria-label": "File in the repository", placeholder: "File: the usual one", spellcheck: "false", autocomplete: "off", hidden: true });
  const fetchIt = el("button", { type: "button", class: "small_button" }, "Fetch");
  const list = el("ul", { class: "files", "aria-live": "polite" });
  const refusal = el("p", { class: "lora_refusal quiet", hidden: true }, "An owner of this studio can add LoRAs.");
  const node = el("details", { class: "lora_bring", hidden: true }, el("summary", {}, "Upload or fetch a LoRA"), button, choose, el("div", { class: "lora_fetch" }, box, fetchIt, part), list);

  const sendAll = (files) => {
    node.open = true;
    for (const file of files) upload(file, row(list), take);
  };
  const ask = async () => {
    const path = box.value.trim();
    if (!path || fetchIt.disabled) return;
    fetchIt.disabled = true;
    const arriving = row(list, path);
    try {
      const told = await send("loras/fetch", { path, weight_name: part.hidden ? "" : part.value.trim() });
      box.value = part.value = "";
      follow(told, arriving, take);
    } catch (error) {
      arriving.fail(error.told ?? "The studio does not answer");
    }
    fetchIt.disabled = false;
  };
  const look = () => (part.hidden = !REPOSITORY.test(box.value.trim()));
  box.addEventListener("input", look);
  for (const field of [box, part]) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      ask();
    });
  }
  fetchIt.addEventListener("click", ask);
  choose.addEventListener("change", () => {
    sendAll([...choose.files]);
    choose.value = "";
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    zone.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files") || node.hidden) return;
      event.preventDefault();
      event.stopPropagation();
      const leaves = name === "dragleave" && !zone.contains(event.relatedTarget);
      zone.classList.toggle("lora_over", name !== "drop" && !leaves);
      if (name === "drop") sendAll([...event.dataTransfer.files]);
    });
  }
  const show = () => {
    node.hidden = !loras.canBring || !loras.canChange;
    refusal.hidden = !loras.canBring || loras.canChange;
  };
  loras.addEventListener("change", show);
  show();
  return el("div", {}, node, refusal);
}

// A file on its way: its name, how far it is, a button to end it, and what became of it.
function row(list, name = "") {
  const title = el("span", { class: "file_name" }, name);
  const facts = el("span", { class: "file_facts" });
  const button = el("button", { type: "button", class: "small_button" }, "Cancel");
  const fill = el("i", {});
  const bar = el("div", { class: "file_bar", role: "progressbar", "aria-label": name || "Upload", "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  const problem = el("p", { class: "file_problem", role: "alert", hidden: true });
  const node = el("li", { class: "file" }, title, facts, button, bar, problem);
  let act = () => node.remove();
  button.addEventListener("click", () => act());
  const leave = (text = "Dismiss") => {
    button.textContent = text;
    act = () => node.remove();
  };
  const call = (text) => {
    title.textContent = title.title = text;
    bar.setAttribute("aria-label", text);
  };
  const go = (done, total) => {
    const share = total ? Math.round((done / total) * 100) : null;
    bar.toggleAttribute("data-unknown", share === null);
    fill.style.width = share === null ? "" : `${share}%`;
    share === null ? bar.removeAttribute("aria-valuenow") : bar.setAttribute("aria-valuenow", share);
    facts.textContent = share === null ? "Waiting" : share === 100 ? "Being looked at" : `${share} %`;
  };
  const fail = (text) => {
    leave();
    bar.hidden = true;
    facts.textContent = "";
    problem.textContent = text;
    problem.hidden = false;
  };
  const end = (text, hint = "") => {
    leave();
    bar.hidden = true;
    facts.textContent = text;
    facts.title = hint;
  };
  list.prepend(node);
  go(0, null);
  return { call, go, fail, end, cancel: (how) => (act = how), drop: () => node.remove() };
}

async function upload(file, arriving, take) {
  arriving.call(file.name);
  const wrong = await problemOf(file);
  if (wrong) return arriving.fail(wrong);
  const ask = new XMLHttpRequest(); // fetch tells nothing of what is sent
  arriving.cancel(() => ask.abort());
  ask.open("POST", address(`loras?${new URLSearchParams({ name: file.name })}`));
  ask.setRequestHeader("Content-Type", "application/octet-stream");
  ask.responseType = "json";
  ask.upload.addEventListener("progress", ({ loaded, total }) => arriving.go(loaded, total));
  ask.addEventListener("abort", () => arriving.drop());
  ask.addEventListener("error", () => arriving.fail("The studio does not answer"));
  ask.addEventListener("load", async () => {
    const told = ask.response;
    if (ask.status !== 200) return arriving.fail(told?.detail ?? `The studio answered ${ask.status}`);
    await arrived(told.name, take);
    arriving.call(told.name);
    arriving.end(`${told.was_there ? "Was here already" : "Is here"} · sha256 ${told.sha256.slice(0, 12)}…`, told.sha256);
  });
  ask.send(file);
}

// What is plainly none is not sent at all; the studio looks at the rest.
async function problemOf(file) {
  if (!ENDING.test(file.name)) return "Only .safetensors files are taken: others may carry programs";
  const head = new DataView(await file.slice(0, 8).arrayBuffer());
  const header = head.byteLength < 8 ? 0n : head.getBigUint64(0, true);
  return header < 2n || header > BigInt(MOST_HEADER) || header > BigInt(file.size) - 8n ? "This is no safetensors file" : "";
}

function follow(told, arriving, take) {
  const file = { kind: "lora", name: told.name };
  const stop = () => downloads.removeEventListener("change", show);
  const show = async () => {
    const now = downloads.of(file);
    if (now && !now.problem) return arriving.go(now.done, now.total);
    stop();
    if (now) {
      downloads.cancel(file); // what went wrong is told here
      return arriving.fail(now.problem);
    }
    await arrived(file.name, take, arriving);
  };
  arriving.call(shortName(told.name));
  arriving.cancel(() => downloads.cancel(file));
  downloads.addEventListener("change", show);
  downloads.adopt(told.downloads);
}

// A LoRA is in the lists by now, or was cancelled on its way.
async function arrived(name, take, arriving) {
  await library.reload().catch(() => {});
  await loras.reload();
  if (!loras.of(name)) return arriving?.drop();
  take(name);
  arriving?.end("Is here");
}
