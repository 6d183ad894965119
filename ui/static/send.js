// From any finished picture to the panel that works on it. Who paints it again needs its words: they come along where there are none.

import { promptBox, type } from "./dom.js";
import { open } from "./panel.js";
import { file } from "./server.js";

// By panel: what it is called, and who takes the picture there.
export const WAYS = {
  image_prompts: { name: "Follow it", help: "Take it as an image prompt", load: (url) => window.pochadeSlots.load(url) },
  inpaint: { name: "Repaint it", help: "Repaint a part of it, or paint beyond its sides", load: (url) => window.pochadeSketcher.load(url) },
  upscale_or_vary: { name: "Vary or enlarge it", help: "Paint it again, or make it larger", load: (url) => window.pochadePicture.load(url) },
};

export const canSend = () => Boolean(document.getElementById("pictures_bar"));

export function send(image, tab) {
  document.getElementById("text_tab-button")?.click();
  open(tab);
  WAYS[tab].load(file(image));
  if (tab === "upscale_or_vary" && image.prompt && !promptBox().value.trim()) type(promptBox(), image.prompt);
}
