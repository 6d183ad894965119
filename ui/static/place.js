// What a Space tells its visitors at the foot of the page: what it runs on, who sees their pictures and for how long.

import { el } from "./dom.js";
import { address } from "./server.js";
import { watcher } from "./watcher.js";

export function mount({ element }) {
  let shown = "";
  watcher.addEventListener("change", () => {
    const { place, studio, visitor } = watcher;
    if (!place || !studio) return;
    const facts = JSON.stringify([place, studio.device, studio.model, visitor]);
    if (facts === shown) return;
    shown = facts;
    element.replaceChildren(...lines(place, studio, visitor));
  });
}

function lines(place, studio, visitor) {
  const on = [place.hardware, studio.device].filter(Boolean).join(", ");
  const model = studio.pocket ? "the pocket model" : studio.model;
  const who = visitor?.name ? "Only your account sees your pictures" : "Only this browser sees your pictures";
  const stay = place.kept ? "they are kept" : "they go when the Space restarts";
  return [
    place.known ? null : el("p", { class: "place_warning", role: "status" },
      "This browser keeps no cookies here, so your pictures cannot be found again. ", away(place.address, "Open the studio in a tab of its own")),
    el("p", {}, `Runs on ${on || "this Space"} with ${model}. ${who}; ${stay}. `,
      place.sign_in && !visitor?.name ? el("a", { href: address("../login/huggingface"), target: window.top === window ? "_self" : "_blank" }, "Sign in with Hugging Face") : null,
      place.sign_in && !visitor?.name ? " · " : null,
      away(place.duplicate, "Duplicate this Space")),
  ].filter(Boolean);
}

const away = (href, words) => el("a", { href, target: "_blank", rel: "noopener" }, words);
