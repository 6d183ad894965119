// Where a pasted picture goes: of the places that are in sight to the one that was used last, else to the first empty one.

const places = [];
let last = null;

// `open(file)` takes the picture, `isEmpty()` says whether the place has none. What lies around it belongs to it too.
export function receive(node, open, isEmpty, around = node) {
  const place = { node, open, isEmpty };
  places.push(place);
  for (const name of ["pointerdown", "focusin", "drop"]) around.addEventListener(name, () => (last = place), true);
}

window.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (!file || document.querySelector("dialog[open]")) return;
  const inSight = places.filter(({ node }) => node.offsetParent !== null);
  const place = inSight.includes(last) ? last : (inSight.find(({ isEmpty }) => isEmpty()) ?? inSight[0]);
  if (!place) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  place.open(file);
}, true);
