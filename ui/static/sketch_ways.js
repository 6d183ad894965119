// How pictures come to the sketcher, and that nothing is asked for before what was painted has been sent.

import { el } from "./dom.js";
import { dropped, isPicture } from "./drag.js";
import { receive } from "./pasting.js";
import { toast } from "./toast.js";

export function pick(use) {
  const input = el("input", { type: "file", accept: "image/*", hidden: true });
  input.addEventListener("change", () => input.files[0] && use(input.files[0]));
  input.click();
}

// Takes what is dropped on `element` or, while it is in sight, elsewhere on the page where nobody else wants it; and
// what is pasted. `open` gets a file, or the address of one of our own pictures; `isEmpty()` says whether there is none yet.
export function take(element, open, isEmpty) {
  const isHere = () => element.offsetParent !== null && !document.querySelector("dialog[open]");
  const mark = (isOver) => element.classList.toggle("over", isOver);
  const over = (event) => {
    if (!isPicture(event.dataTransfer)) return;
    event.preventDefault();
    event.stopPropagation();
    mark(event.type !== "dragleave" || element.contains(event.relatedTarget));
  };
  for (const name of ["dragenter", "dragover", "dragleave"]) element.addEventListener(name, over);
  const drop = (event) => {
    if (event.defaultPrevented || !isPicture(event.dataTransfer) || !isHere()) return;
    event.preventDefault();
    event.stopPropagation();
    mark(false);
    const source = dropped(event.dataTransfer);
    if (source) open(source);
  };
  element.addEventListener("drop", drop);
  window.addEventListener("drop", drop);
  window.addEventListener("dragover", (event) => isHere() && isPicture(event.dataTransfer) && event.preventDefault());
  receive(element, open, isEmpty);
}

// Lets the named buttons act only once the board is sent.
export function hold(buttons, board, element) {
  let isLetThrough = false;
  document.addEventListener("click", async (event) => {
    const button = buttons.map((id) => event.target.closest?.(`#${id}`)).find(Boolean);
    if (!button || board.isSettled || isLetThrough) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    try {
      await board.settle();
    } catch (error) {
      toast(error.message);
      if (element.offsetParent !== null) return;
      isLetThrough = true; // out of sight it is not what is asked for
    }
    requestAnimationFrame(() => {
      button.click();
      isLetThrough = false;
    });
  }, true);
}
