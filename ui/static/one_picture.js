// A field that holds one picture.

import { el } from "./dom.js";
import { well } from "./well.js";

export function mount({ element, props, watch, facts }) {
  const picture = well({ label: facts.label, most: facts.most, change: (name) => (props.value = name) });
  element.replaceChildren(picture.node, el("p", { class: "field_help" }, facts.help));
  const draw = () => picture.show(props.value || "");
  watch("value", draw);
  window.pochadePicture = { load: picture.open };
  draw();
}
