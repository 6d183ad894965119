// All of one LoRA: its thumbnail, trigger words, weight and notes to be written, and what its file says of itself.

import { el, icon, ICONS, layer } from "./dom.js";
import { loras, shortName, thumbnail } from "./lora_library.js";
import { thumbnail as small, read, send } from "./server.js";
import { toast } from "./toast.js";

const HASH_MS = 700;
const MOST_TEXT = 4000;

export async function openSheet(name) {
  const known = await read(`loras/one?${new URLSearchParams({ name })}`).catch((error) => void toast(error.told ?? "The studio does not answer"));
  if (!known) return;
  document.getElementById("lora_sheet")?.remove();
  const dialog = el("dialog", { id: "lora_sheet", class: "part", tabindex: -1, autofocus: true, "aria-label": `Notes on ${known.title || shortName(name)}` });
  const picture = el("div", { class: "sheet_picture" }, thumbnail(name, known));
  const words = el("textarea", { id: "lora_sheet_words", rows: 2, maxlength: MOST_TEXT, spellcheck: "false" });
  words.value = known.words.join(", ");
  const notes = el("textarea", { id: "lora_sheet_notes", rows: 4, maxlength: MOST_TEXT });
  notes.value = known.notes;
  const weight = el("input", { type: "number", id: "lora_sheet_weight", min: -10, max: 10, step: 0.05, placeholder: "1" });
  weight.value = known.weight ?? "";
  const problem = el("p", { class: "sheet_problem", role: "alert", hidden: true });
  const hash = el("dd", { class: "sheet_hash" });

  const save = async () => {
    try {
      await send("loras/notes", { name, words: words.value, notes: notes.value, weight: weight.value === "" ? null : Number(weight.value) });
      await loras.reload();
      dialog.close();
    } catch (error) {
      problem.textContent = error.told ?? "The studio does not answer";
      problem.hidden = false;
    }
  };
  const choose = async (image) => {
    try {
      picture.replaceChildren(thumbnail(name, await send("loras/thumbnail", { name, image: image.id })));
      loras.reload();
    } catch (error) {
      toast(error.told ?? "The studio does not answer");
    }
  };
  const add = (tag) => {
    const all = words.value.split(",").map((word) => word.trim()).filter(Boolean);
    if (!all.includes(tag)) words.value = [...all, tag].join(", ");
  };
  dialog.append(
    el("header", {}, picture, el("div", {}, el("h2", {}, known.title || shortName(name)), el("p", { class: "quiet" }, name), known.description ? el("p", { class: "sheet_about" }, known.description) : null)),
    field("Trigger words", words, "Words that call it, with commas between them"),
    known.tags.length
      ? el("div", { class: "sheet_tags" }, el("span", { class: "quiet" }, "Its training captions:"), ...known.tags.map(([tag, count]) => el("button", { type: "button", class: "lora_word", "data-guess": true, title: `In ${count} captions; adds it`, disabled: !loras.canChange, onclick: () => add(tag) }, tag)))
      : "",
    field("Weight to start with", weight),
    field("Notes", notes),
    loras.canChange ? pictures(choose) : el("p", { class: "quiet" }, "An owner of this studio can change the notes."),
    el("details", { class: "sheet_facts" }, el("summary", {}, "What its file says"), facts(known, hash)),
    problem,
    el("div", { class: "sheet_end" },
      el("button", { type: "button", class: "small_button", onclick: () => dialog.close() }, loras.canChange ? "Cancel" : "Close"),
      loras.canChange && el("button", { type: "button", class: "small_button prime", id: "lora_sheet_save", onclick: save }, "Save")),
    el("button", { type: "button", class: "shut", "aria-label": "Close", onclick: () => dialog.close() }, icon(ICONS.close)));
  for (const box of [words, weight, notes]) box.readOnly = !loras.canChange;
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    const note = dialog.querySelector("#studio_toast");
    if (note) layer().append(note);
    dialog.remove();
  });
  layer().append(dialog);
  dialog.showModal();
  tellHash(known, hash, dialog);
}

function field(label, node, help) {
  return el("label", { class: "sheet_field" }, el("span", { class: "field_label" }, label), help ? el("span", { class: "field_help" }, help) : null, node);
}

// The visitor's own pictures in a row; the one that is pressed becomes the thumbnail.
function pictures(choose) {
  const row = el("div", { class: "sheet_pictures" });
  const node = el("details", {}, el("summary", {}, "Choose one of your pictures as its thumbnail"), row);
  const fill = async () => {
    const { images } = await read("images").catch(() => ({ images: [] }));
    row.replaceChildren(...images.filter((image) => !image.grid).map((image) =>
      el("button", { type: "button", class: "thumb", "aria-label": `As thumbnail: ${image.prompt}`, title: image.prompt, onclick: () => choose(image) }, el("img", { src: small(image), alt: "", loading: "lazy" }))));
    if (!images.length) row.append(el("p", { class: "quiet" }, "Pictures you make appear here"));
  };
  node.addEventListener("toggle", () => node.open && fill());
  return node;
}

function facts(known, hash) {
  const rows = {
    "Made by": known.author,
    "Made for": known.made_for,
    "Trained on": known.trained_on,
    "Training size": known.resolution,
    Size: known.bytes === null ? "" : size(known.bytes),
  };
  const said = Object.entries(rows).filter(([, text]) => text).flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]);
  return el("dl", {}, ...said, ...(known.bytes === null ? [] : [el("dt", {}, "sha256"), hash]));
}

// A hash that is still being computed is asked for again, as long as somebody looks.
async function tellHash(known, hash, dialog) {
  hash.textContent = known.sha256 ?? "being computed";
  if (known.sha256 || known.bytes === null) return;
  await new Promise((done) => setTimeout(done, HASH_MS));
  if (!dialog.open) return;
  tellHash(await read(`loras/one?${new URLSearchParams({ name: known.name })}`).catch(() => known), hash, dialog);
}

const size = (count) => (count < 999_500 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(count < 9.95e6 ? 1 : 0)} MB`);
