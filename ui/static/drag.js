// Our own pictures can be dragged to where one is wanted: they travel as their address.

const LIST = "text/uri-list";

// Lets a node be dragged as the picture at `source()`; nothing happens while that is none.
export function drags(node, source) {
  node.draggable = true;
  node.addEventListener("dragstart", (event) => {
    const url = source();
    if (!url) return event.preventDefault();
    event.dataTransfer.setData(LIST, url);
    event.dataTransfer.effectAllowed = "copy";
  });
}

export const isPicture = (data) => Boolean(data && (data.types.includes("Files") || data.types.includes(LIST)));

// What was dropped: a file, the address of one of our own pictures, or nothing that we take.
export function dropped(data) {
  if (data.files[0]) return data.files[0];
  const url = data.getData(LIST).split("\n")[0].trim();
  return URL.canParse(url) && new URL(url).origin === location.origin ? url : null;
}
