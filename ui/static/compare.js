// Two pictures over each other, and a line to move: what a picture was, and what it became.

import { el } from "./dom.js";
import { address } from "./server.js";

const SHAPES_DIFFER = 0.03; // by the ratio of their sides; beyond it there is nothing to lay over each other

// Finds what a picture was made from, where that is still here and has the picture's shape; else null.
export async function before(image) {
  if (!image.before) return null;
  const picture = new Image();
  picture.src = address(`inputs/${image.before}`);
  try {
    await picture.decode();
  } catch {
    return null;
  }
  const { naturalWidth: width, naturalHeight: height } = picture;
  const isAlike = Math.abs((width / height) * (image.height / image.width) - 1) <= SHAPES_DIFFER;
  return isAlike ? picture.src : null;
}

// `after` is the picture as the large view shows it.
export function compare(after, source) {
  const range = el("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": "Before and after" });
  const node = el("div", { class: "compare" }, after, el("img", { class: "before", src: source, alt: "Before" }),
    el("i"), el("span", {}, "Before"), el("span", {}, "After"), range);
  range.addEventListener("input", () => node.style.setProperty("--at", `${range.value}%`));
  return node;
}
