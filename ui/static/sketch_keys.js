// The keyboard on the sketcher: in force while it is in sight and nobody types.

const TYPED = "input:not([type=range]), textarea, select, [contenteditable]";

export const SHEET = [
  ["B  E  L  F", "Brush, eraser, lasso, fill"],
  ["[  ]", "Smaller and larger brush"],
  ["Ctrl + Z", "Undo on the mask; with Shift, redo"],
  ["I", "Invert the mask"],
  ["+  −  0", "Zoom in, zoom out, whole picture"],
  ["Space + drag", "Move the picture"],
];

// `resize(steps)` changes the brush.
export function listen({ element, frame, board, hand, view, zoom, tools, choose, resize }) {
  const isHere = (event) => board.picture && element.offsetParent !== null && !event.isComposing
    && !document.querySelector("dialog[open]") && !event.target.matches?.(TYPED);
  const plain = {
    i: () => board.change((mask) => mask.invert()),
    "+": () => view.zoom(zoom),
    "=": () => view.zoom(zoom),
    "-": () => view.zoom(1 / zoom),
    0: () => view.fit(),
    ...Object.fromEntries(Object.entries(tools).map(([tool, { key }]) => [key, () => choose(tool)])),
  };
  const find = (event) => {
    const key = event.key.toLowerCase();
    if (key === "[" || key === "]") return () => resize(key === "]" ? 1 : -1); // some keyboards need Alt and Ctrl for them
    if (event.altKey) return null;
    if (!event.ctrlKey && !event.metaKey) return plain[key];
    if (key === "y" || (key === "z" && event.shiftKey)) return () => board.redo();
    return key === "z" ? () => board.undo() : null;
  };
  document.addEventListener("keydown", (event) => {
    if (!isHere(event)) return;
    if (event.key === " " && frame.matches(":hover, :focus")) {
      event.preventDefault();
      hand.isSpaceHeld = true;
      frame.classList.add("held");
      return;
    }
    const act = find(event);
    if (!act) return;
    event.preventDefault();
    if (!hand.isBusy) act();
  });
  const release = (event) => {
    if (!hand.isSpaceHeld || (event.key && event.key !== " ")) return;
    event.preventDefault(); // or a button that has the focus is pressed
    hand.isSpaceHeld = false;
    frame.classList.remove("held");
  };
  document.addEventListener("keyup", release);
  window.addEventListener("blur", release);
}
