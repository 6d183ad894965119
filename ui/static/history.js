// History: every picture, newest first; searched as one types, read on as one scrolls.

import { el, icon, ICONS } from "./dom.js";
import { remove } from "./pictures.js";
import { reuse } from "./reuse.js";
import { download, read, thumbnail } from "./server.js";
import { look } from "./viewer.js";
import { watcher } from "./watcher.js";

const TYPING_MS = 200;

export function mount({ element }) {
  const search = el("input", { type: "search", id: "history_search", placeholder: "Search in prompts", "aria-label": "Search in prompts", autocomplete: "off" });
  const grid = el("div", { id: "history_grid" });
  const end = el("p", { id: "history_end", class: "quiet", "aria-live": "polite" });
  element.replaceChildren(search, grid, end);

  let images = [];
  let more = true;
  let asked = 0; // answers to an older question are dropped
  let busy = false;

  const next = async (fresh) => {
    if (busy && !fresh) return;
    busy = true;
    const mine = ++asked;
    const query = new URLSearchParams({ search: search.value });
    if (!fresh && images.length) query.set("before", images.at(-1).id);
    const page = await read(`images?${query}`).catch(() => null);
    if (mine !== asked) return;
    busy = false;
    if (!page) return void (end.textContent = "The studio does not answer");
    images = fresh ? page.images : [...images, ...page.images];
    more = page.more;
    const cards = page.images.map((image) => card(image, () => look(images, images.indexOf(image))));
    fresh ? grid.replaceChildren(...cards) : grid.append(...cards);
    end.textContent = images.length ? "" : search.value ? "No picture has these words" : "Pictures you make appear here";
    more && near() && next(false);
  };
  const near = () => end.getBoundingClientRect().top < innerHeight * 2 && element.offsetParent !== null;

  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => next(true), TYPING_MS);
  });
  new IntersectionObserver((seen) => seen[0].isIntersecting && more && images.length && next(false), { rootMargin: "800px" }).observe(end);
  watcher.addEventListener("pictures", ({ detail: { gone } }) => {
    if (!gone.length) return void next(true);
    // Only these leave, so that one who has scrolled far stays where they are.
    images = images.filter((image) => !gone.includes(image.id));
    for (const node of [...grid.children]) if (gone.includes(node.dataset.id)) node.remove();
    for (const image of images.filter((it) => it.grid && it.pictures.some((id) => gone.includes(id)))) renew(image);
    if (!images.length) next(true);
  });
  // A picture grid shows the pictures that are left, as long as there are several.
  const renew = async (image) => {
    const fresh = (await read(`jobs/${image.job}`).catch(() => ({}))).grid;
    const [node, at] = [grid.querySelector(`[data-id="${image.id}"]`), images.indexOf(image)];
    if (!node || at < 0) return;
    images.splice(at, 1, ...(fresh ? [fresh] : []));
    node.replaceWith(...(fresh ? [card(fresh, () => look(images, images.indexOf(fresh)))] : []));
  };
  next(true);
}

function card(image, open) {
  return el("figure", { class: image.grid ? "card whole" : "card", "data-id": image.id },
    el("button", { type: "button", class: "face", "aria-label": `Open: ${image.prompt}`, onclick: open },
      el("img", { src: thumbnail(image), alt: image.prompt, loading: "lazy" })),
    el("figcaption", {},
      el("span", { class: "caption", title: image.prompt }, image.prompt || "No words"),
      el("span", { class: "facts", title: new Date(image.made).toLocaleString() }, facts(image)),
      el("button", { type: "button", "data-act": "settings", title: "Reuse settings", "aria-label": "Reuse settings", disabled: !image.recipe, onclick: () => reuse(image, "settings") }, icon(ICONS.again)),
      el("a", { href: download(image), download: "", "data-act": "download", title: "Download", "aria-label": "Download" }, icon(ICONS.download)),
      image.grid ? null : el("button", { type: "button", "data-act": "delete", title: "Delete", "aria-label": "Delete", onclick: () => remove([image]) }, icon(ICONS.trash))));
}

// When it was made and how large it is, in few letters.
function facts(image) {
  const made = new Date(image.made);
  const isToday = made.toDateString() === new Date().toDateString();
  const when = isToday ? made.toLocaleTimeString([], { timeStyle: "short" }) : made.toLocaleDateString([], { day: "numeric", month: "short" });
  return `${image.grid ? `Grid of ${image.pictures.length}` : `${image.width}×${image.height}`} · ${when}`;
}
