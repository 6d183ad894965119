// Pictures that are dropped on the page or pasted, and texts of settings that are pasted into the prompt.

import { el, promptBox } from "./dom.js";
import { listen, PICTURES, readText, take, takePicture } from "./picture_settings.js";

const MOST_TEXT = 2 ** 20;
// What may be a text of settings; the server knows.
const LOOKS_SO = /^\s*\{[^]*"|\bSteps: *\d+ *,/;
const WRITERS = { pochade: "Pochade", fooocus: "Fooocus", a1111: "A1111" };

export function mount({ element, trigger }) {
  const veil = el("div", { id: "drop_veil", hidden: true }, el("p", {}, "Drop a picture to take over its settings"));
  const bar = el("div", { id: "paste_bar", role: "status" });
  element.replaceChildren(bar, veil);
  // As text, since Gradio looks for files of its own in what it is handed.
  listen((fields) => trigger("use", { fields: JSON.stringify(fields) }));

  const offer = (found, text) => {
    const close = () => bar.replaceChildren();
    const yes = () => {
      close();
      take(found);
    };
    bar.replaceChildren(
      el("p", {}, `These are a picture's settings, written by ${WRITERS[found.kind]}.`, ...found.notes.map((note) => el("small", {}, note))),
      el("div", {},
        el("button", { type: "button", class: "small_button prime", id: "use_settings", onclick: yes }, "Use them"),
        el("button", { type: "button", class: "small_button", id: "keep_text", onclick: close }, "Keep as text")));
    const gone = () => {
      if (promptBox().value.includes(text.trim().slice(0, 40))) return;
      close();
      promptBox().removeEventListener("input", gone);
    };
    promptBox().addEventListener("input", gone);
  };

  document.addEventListener("paste", async (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => PICTURES.includes(type));
    if (file && isHere(element)) {
      event.preventDefault();
      return takePicture(file);
    }
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (event.target !== promptBox() || text.length > MOST_TEXT || !LOOKS_SO.test(text)) return;
    const found = await readText(text).catch(() => null);
    if (found?.kind) offer(found, text);
  });

  let depth = 0; // of the nested parts that the pointer is over
  const over = (by) => {
    depth = Math.max(0, depth + by);
    veil.hidden = depth === 0;
  };
  const isFile = (event) => event.dataTransfer?.types.includes("Files") && isHere(element);
  document.addEventListener("dragenter", (event) => isFile(event) && over(1));
  document.addEventListener("dragleave", (event) => isFile(event) && over(-1));
  document.addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    over(-depth);
    const [file] = event.dataTransfer.files;
    if (file) takePicture(file);
  });
}

// Whether the tab that this part is in is the one in sight, and no dialog lies above it.
const isHere = (element) => element.offsetParent !== null && !document.querySelector("dialog[open]");
