// The performance modes, side by side with their steps. A mode of few steps takes what it has built in out of reach.

import { el } from "./dom.js";
import { frame, mark } from "./field.js";

export function mount({ element, props, watch, facts }) {
  const segments = facts.modes.map(({ name, steps }) =>
    el("label", { class: "segment", title: `${name}: ${steps} steps` },
      el("input", { type: "radio", name: "performance_mode", value: name, class: "unseen", onchange: () => choose(name) }),
      el("b", {}, name), el("i", {}, String(steps))));
  const why = el("p", { class: "why" });
  element.replaceChildren(...frame({ label: facts.label }, el("div", { class: "segments", role: "radiogroup", "aria-label": facts.label }, ...segments), why));

  const settings = document.getElementById("settings");
  let distilled = false;
  const reach = () => {
    for (const part of settings.querySelectorAll(".block.guided")) part.inert = distilled;
  };
  const draw = () => {
    for (const label of segments) label.firstChild.checked = label.firstChild.value === props.value;
    distilled = facts.modes.some(({ name, distilled: few }) => few && name === props.value);
    why.textContent = distilled ? `${props.value} has guidance, sharpness, sampler and size scales built in, and takes no negative prompt and no refiner.` : "";
    mark("distilled", distilled);
    reach();
  };
  const choose = (name) => {
    props.value = name;
    draw();
  };
  new MutationObserver(reach).observe(settings, { childList: true, subtree: true });
  watch("value", draw);
  draw();
}
