// The latest pictures in a row below the prompt.

import { el } from "./dom.js";
import { drags } from "./drag.js";
import { file, read, thumbnail } from "./server.js";
import { look } from "./viewer.js";
import { watcher } from "./watcher.js";

const SHOWN = 24;

export function mount({ element }) {
  let drawn = "";
  const draw = async () => {
    const { images } = await read("images").catch(() => ({ images: [] }));
    const latest = images.slice(0, SHOWN);
    const key = latest.map((image) => image.id).join();
    if (key === drawn) return;
    drawn = key;
    element.replaceChildren(...latest.map((image, index) => {
      const picture = el("img", { src: thumbnail(image), alt: image.prompt, loading: "lazy", draggable: "false", width: image.width, height: image.height });
      const node = el("button", { type: "button", class: "thumb", "aria-label": `Open: ${image.prompt}`, onclick: () => look(latest, index) }, picture);
      drags(node, () => file(image));
      return node;
    }));
  };
  watcher.addEventListener("pictures", draw);
  draw();
}
