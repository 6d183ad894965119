// A field of a form that holds one picture, by its name.

import { frame } from "./field.js";
import { well } from "./well.js";

export function mount({ element, props, watch, facts }) {
  const picture = well({ label: facts.label, most: facts.limits, change: (name) => (props.value = name), around: element });
  element.replaceChildren(...frame(facts, picture.node));
  const draw = () => picture.show(props.value || "");
  watch("value", draw);
  draw();
}
