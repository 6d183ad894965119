// What it takes to find a mask, or to put a picture into words: the files that are missing, or why it cannot be done here.

import { filesNote, follow, missing } from "./needed.js";

export function mount({ element, props, watch, facts }) {
  const note = filesNote({}, facts.first ?? "mask");
  element.replaceChildren(note.node);
  const draw = () => {
    const { uses = [], text: why } = props.value ?? {};
    const files = uses.flatMap((use) => missing(use)?.files ?? []);
    note.show(why ? { none: true, why } : files.length ? { files } : null, facts.to ?? "find it");
  };
  watch("value", draw);
  follow(draw);
  draw();
}
