// A field that holds one picture, which this browser remembers by its name.

import { recall, remember } from "./store.js";
import { well } from "./well.js";

const KEPT = "pochade.picture";

export function mount({ element, props, watch, facts }) {
  const put = (name) => {
    props.value = name;
    remember(KEPT, name || null);
  };
  const picture = well({ label: facts.label, most: facts.most, change: put });
  element.replaceChildren(picture.node);
  watch("value", () => {
    remember(KEPT, props.value || null);
    picture.show(props.value || "");
  });
  window.pochadePicture = { load: picture.open };
  const kept = props.value || recall(KEPT) || "";
  if (kept) put(kept);
  picture.show(kept);
}
