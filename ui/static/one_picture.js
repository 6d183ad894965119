// A field that holds one picture, which this browser remembers by its name.

import { recall, remember } from "./store.js";
import { well } from "./well.js";

const KEPT = "pochade.picture"; // of the one that scripts can fill

export function mount({ element, props, watch, facts }) {
  const place = facts.kept ?? KEPT;
  const put = (name) => {
    props.value = name;
    remember(place, name || null);
  };
  const picture = well({ label: facts.label, most: facts.most, change: put });
  element.replaceChildren(picture.node);
  watch("value", () => {
    remember(place, props.value || null);
    picture.show(props.value || "");
  });
  if (place === KEPT) window.pochadePicture = { load: picture.open };
  const kept = props.value || recall(place) || "";
  if (kept) put(kept);
  picture.show(kept);
}
