// The performance modes, side by side with their steps. A mode of few steps takes what it has built in out of reach.

import { el } from "./dom.js";
import { frame, mark } from "./field.js";
import { follow, needed } from "./needed.js";

export function mount({ element, props, watch, facts }) {
  const segments = facts.modes.map(({ name, steps }) =>
    el("label", { class: "segment", title: `${name}: ${steps} steps` },
      el("input", { type: "radio", name: "performance_mode", value: name, class: "unseen", onchange: () => choose(name) }),
      el("b", {}, name), el("i", {}, String(steps))));
  const why = el("p", { class: "why" });
  const few = facts.modes.filter(({ distilled }) => distilled);
  const notes = few.map(({ name, steps }) => ({ name, note: needed(`performance ${name}`, `paint in ${steps} steps`) }));
  const bar = el("div", { class: "segments", role: "radiogroup", "aria-label": facts.label }, ...segments);
  element.replaceChildren(...frame({ label: facts.label }, bar, why, ...notes.map(({ note }) => note.node)));

  const settings = document.getElementById("settings");
  let distilled = false;
  const reach = () => {
    for (const part of settings.querySelectorAll(".block.guided")) part.inert = distilled;
  };
  const draw = () => {
    for (const label of segments) label.firstChild.checked = label.firstChild.value === props.value;
    distilled = few.some(({ name }) => name === props.value);
    why.textContent = distilled ? `${props.value} has guidance, sharpness, sampler and size scales built in, and takes no negative prompt and no refiner.` : "";
    mark("distilled", distilled);
    reach();
    for (const { name, note } of notes) {
      note.show();
      note.node.hidden ||= name !== props.value;
    }
  };
  const choose = (name) => {
    props.value = name;
    draw();
  };
  new MutationObserver(reach).observe(settings, { childList: true, subtree: true });
  watch("value", draw);
  follow(draw);
  draw();
}
