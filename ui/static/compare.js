// Two pictures over each other, and a line to move: what a picture was, and what it became.

import { el } from "./dom.js";
import { address } from "./server.js";

// Finds what a picture was made from, where that is still here; else null.
export async function before(image) {
  if (!image.before) return null;
  const picture = new Image();
  picture.src = address(`images/${image.id}/before`);
  try {
    await picture.decode();
  } catch {
    return null;
  }
  return picture.src;
}

// `after` is the picture as the large view shows it; `place` says where in it `source` lies, and how it fits in there.
export function compare(after, source, { box: [left, top, width, height], fit }) {
  const range = el("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": "Before and after" });
  const old = el("img", { src: source, alt: "Before", draggable: "false" });
  const share = (part) => `${100 * part}%`;
  Object.assign(old.style, { left: share(left), top: share(top), width: share(width), height: share(height), objectFit: fit });
  const node = el("div", { class: "compare" }, after, el("div", { class: "before" }, old),
    el("i"), el("span", {}, "Before"), el("span", {}, "After"), range);
  range.addEventListener("input", () => node.style.setProperty("--at", `${range.value}%`));
  return node;
}
