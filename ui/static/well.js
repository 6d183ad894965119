// A well for one picture: drop, paste, choose, drag from the results. The file is sent once; the studio knows it by name.

import { el, icon, ICONS } from "./dom.js";
import { address, post } from "./server.js";
import { pick } from "./sketch_ways.js";
import { openPicture } from "./sketch_files.js";
import { toast } from "./toast.js";

const PICTURE = "M4 5h16v14H4zM4 16.500l5-5 4 4 2.5-2.5 4.5 4.500M15.5 9.200v.1";
let last = null; // the well that was used last takes what is pasted

// `change(name)` gets the studio's name of the picture, or "" when it is taken away.
export function well({ label, most, change }) {
  const image = el("img", { alt: "", draggable: "false", hidden: true });
  const hint = el("span", { class: "well_hint" }, icon(PICTURE), el("span", {}, "Drop, paste or choose"));
  const button = el("button", { type: "button", class: "well_button", "aria-label": `${label}: choose a picture`, onclick: () => pick(open) }, image, hint);
  const clear = el("button", { type: "button", class: "well_clear", "aria-label": `${label}: take the picture away`, title: "Take the picture away", hidden: true, onclick: () => put("") }, icon(ICONS.close));
  const node = el("div", { class: "well" }, button, clear);
  let turn = 0;

  const show = (name) => {
    image.hidden = !name;
    hint.hidden = Boolean(name);
    clear.hidden = !name;
    if (name) image.src = address(`inputs/${name}`);
    else image.removeAttribute("src");
  };
  const put = (name) => {
    turn++;
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
      const { name } = await post("inputs", sent, sent.type);
      if (mine === turn) put(name);
    } catch (error) {
      toast(error.told ?? error.message);
    } finally {
      node.toggleAttribute("data-busy", false);
    }
  }
  image.addEventListener("error", () => image.hidden || (toast("A picture is not here any more; choose it again"), put("")));
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    node.addEventListener(name, (event) => {
      const data = event.dataTransfer;
      if (!data?.types.includes("Files") && !data?.types.includes("text/uri-list")) return;
      event.preventDefault();
      event.stopPropagation();
      node.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name !== "drop") return;
      const dropped = data.files[0] ?? ours(data.getData("text/uri-list"));
      if (dropped) open(dropped);
    });
  }
  const mark = () => (last = { node, open });
  node.addEventListener("pointerdown", mark);
  node.addEventListener("focusin", mark);
  return { node, show, open };
}

window.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (!file || !last || last.node.offsetParent === null || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  last.open(file);
}, true);

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error("This picture is not there any more");
  return answer.blob();
}

function ours(list) {
  const url = list.split("\n")[0].trim();
  return URL.canParse(url) && new URL(url).origin === location.origin ? url : null;
}
