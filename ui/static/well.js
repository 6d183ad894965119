// A well for one picture: drop, paste, choose, drag from the results. The file is sent once; the studio knows it by name.

import { el, icon, ICONS } from "./dom.js";
import { dropped, isPicture } from "./drag.js";
import { receive } from "./pasting.js";
import { address, post } from "./server.js";
import { openPicture } from "./sketch_files.js";
import { pick } from "./sketch_ways.js";
import { toast } from "./toast.js";

const PICTURE = "M4 5h16v14H4zM4 16.500l5-5 4 4 2.5-2.5 4.5 4.500M15.5 9.200v.1";

// `change(name)` gets the studio's name of the picture, or "" when it is taken away; `around` is the part that the well stands in.
export function well({ label, most, change, around }) {
  const image = el("img", { alt: "", draggable: "false", hidden: true });
  const hint = el("span", { class: "well_hint" }, icon(PICTURE), el("span", {}, "Drop, paste or choose"));
  const button = el("button", { type: "button", class: "well_button", onclick: () => pick(open) }, image, hint);
  const clear = el("button", { type: "button", class: "well_clear", "aria-label": `${label}: take the picture away`, title: "Take the picture away", hidden: true, onclick: () => (put(""), button.focus()) }, icon(ICONS.close));
  const node = el("div", { class: "well" }, button, clear);
  let shown = null; // the picture's name
  let turn = 0; // an older picture that is slow to send gives way

  const show = (name) => {
    if (name === shown) return;
    shown = name;
    image.hidden = clear.hidden = !name;
    hint.hidden = Boolean(name);
    button.setAttribute("aria-label", `${label}: choose ${name ? "another" : "a"} picture`);
    if (name) image.src = address(`inputs/${name}`);
    else image.removeAttribute("src");
  };
  const put = (name) => {
    turn++;
    node.toggleAttribute("data-busy", false);
    show(name);
    change(name);
  };
  async function open(source) {
    const mine = ++turn;
    node.toggleAttribute("data-busy", true);
    try {
      const file = typeof source === "string" ? await fetched(source) : source;
      const { file: sent, url } = await openPicture(file, most);
      URL.revokeObjectURL(url);
      const { name } = await post("inputs", sent, sent.type || "application/octet-stream");
      if (mine === turn) put(name);
    } catch (error) {
      if (mine === turn) node.toggleAttribute("data-busy", false);
      toast(error.told ?? error.message);
    }
  }
  image.addEventListener("error", () => {
    if (!shown) return;
    put("");
    if (node.offsetParent !== null) toast(`${label} is not kept any more; choose it again`);
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    node.addEventListener(name, (event) => {
      if (!isPicture(event.dataTransfer)) return;
      event.preventDefault();
      event.stopPropagation();
      const leaves = name === "dragleave" && !node.contains(event.relatedTarget);
      node.classList.toggle("over", name !== "drop" && !leaves);
      const source = name === "drop" && dropped(event.dataTransfer);
      if (source) open(source);
    });
  }
  receive(node, open, () => !shown, around);
  show("");
  return { node, show, open };
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error("This picture is not there any more");
  return answer.blob();
}
