// The large view: one picture, its facts, and what can be done with it.

import { before, compare } from "./compare.js";
import { el, icon, ICONS, layer } from "./dom.js";
import { remove } from "./pictures.js";
import { reuse } from "./reuse.js";
import { canSend, send, WAYS } from "./send.js";
import { download, extra, file } from "./server.js";
import { share } from "./share.js";
import { watcher } from "./watcher.js";

const EXTRAS = { latents: "Latents", passes: "Latents of each step" };
let dialog = null;

// Opens a list of pictures at one of them.
export function look(images, start) {
  const list = [...images];
  let place = Math.max(0, start);
  dialog?.remove();
  dialog = el("dialog", { id: "viewer", "aria-label": "Large view" });

  const step = (by) => {
    place = (place + by + list.length) % list.length;
    draw();
  };
  const act = (what) => {
    reuse(list[place], what);
    dialog.close();
  };
  const go = (tab) => {
    dialog.close();
    send(list[place], tab);
  };
  const drop = async () => {
    if (list[place].grid) return; // it goes with its pictures
    const [gone] = list.slice(place, place + 1);
    if (!(await remove([gone]))) return;
    list.splice(place, 1);
    if (!list.length) return dialog.close();
    step(place === list.length ? -1 : 0);
  };
  const draw = () => {
    const image = list[place];
    const picture = el("img", { src: file(image), alt: image.prompt, width: image.width, height: image.height });
    const ways = canSend() ? Object.entries(WAYS) : [];
    const flip = el("button", { type: "button", class: "wide", "data-act": "compare", "aria-pressed": "false", hidden: true }, "Before and after");
    offer(flip, picture, image);
    const side = el("aside", {}, el("p", { class: "words" }, image.prompt || "No words"), facts(image),
      el("div", { class: "acts" },
        el("button", { type: "button", class: "main", "data-act": "settings", disabled: !image.recipe, onclick: () => act("settings") }, "Reuse settings"),
        ...(image.grid ? [] : [
          el("button", { type: "button", "data-act": "prompt", disabled: !image.recipe, onclick: () => act("prompt") }, "Reuse prompt"),
          el("button", { type: "button", "data-act": "seed", disabled: !image.recipe, onclick: () => act("seed") }, "Reuse seed")]),
        ...ways.map(([tab, { name, help }]) =>
          el("button", { type: "button", "data-act": tab, title: help, class: tab === "upscale_or_vary" ? "wide" : null, onclick: () => go(tab) }, name)),
        flip,
        ...(image.extras ?? []).map((kind) => el("a", { href: extra(image, kind), download: "", class: "wide", "data-act": kind }, icon(ICONS.download), EXTRAS[kind] ?? kind)),
        watcher.visitor && !image.grid && el("button", { type: "button", class: "wide", "data-act": "share", title: "Whoever has the address sees this picture for 7 days, and its settings inside", onclick: (event) => share(image, event.currentTarget) }, "Share for 7 days"),
        el("a", { href: download(image), download: "", "data-act": "download", class: image.grid ? "wide" : null }, icon(ICONS.download), "Download"),
        image.grid ? null : el("button", { type: "button", "data-act": "delete", onclick: drop }, icon(ICONS.trash), "Delete")));
    const several = list.length > 1;
    dialog.replaceChildren(
      el("div", { class: "light" }, picture,
        several ? el("button", { type: "button", class: "turn left", "aria-label": "Previous picture", onclick: () => step(-1) }, icon(ICONS.left)) : null,
        several ? el("button", { type: "button", class: "turn right", "aria-label": "Next picture", onclick: () => step(1) }, icon(ICONS.right)) : null),
      side,
      el("button", { type: "button", class: "shut", "aria-label": "Close", onclick: () => dialog.close() }, icon(ICONS.close)));
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return; // its own keys
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Delete") drop();
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.className === "light") dialog.close();
  });
  const mine = dialog;
  mine.addEventListener("close", () => {
    const note = mine.querySelector("#studio_toast");
    if (note) layer().append(note);
    mine.remove();
  });
  draw();
  layer().append(dialog);
  dialog.showModal();
}

// Shows the switch to lay a picture over what it was made from, where that can be had.
async function offer(flip, picture, image) {
  const source = await before(image);
  if (!source) return;
  flip.hidden = false;
  flip.addEventListener("click", () => {
    const both = picture.closest(".compare");
    flip.setAttribute("aria-pressed", String(!both));
    if (both) return both.replaceWith(picture);
    const place = picture.nextSibling;
    const { parentNode } = picture;
    const node = compare(picture, source, image.before);
    parentNode.insertBefore(node, place);
    node.scrollIntoView({ block: "nearest" });
  });
}

function facts(image) {
  const rows = { ...(image.grid ? { Kind: "Picture grid" } : { Seed: image.seed }), Size: `${image.width}×${image.height}`, ...image.recipe, Made: new Date(image.made).toLocaleString() };
  return el("dl", {}, ...Object.entries(rows).filter(([, value]) => value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}
