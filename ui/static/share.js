// One picture for whoever has its address, for some days.

import { el } from "./dom.js";
import { address, send } from "./server.js";
import { toast } from "./toast.js";

// Puts the address in the button's place, to be copied: browsers let scripts copy on https pages alone.
export async function share(image, button) {
  try {
    const { path } = await send("../shared", { image: image.id, days: "7" });
    const box = el("input", { class: "wide", readonly: true, "aria-label": "Address of the picture", value: address(`../${path}`) });
    button.replaceWith(box);
    box.select();
  } catch (error) {
    toast(error.told ?? "The picture could not be shared");
  }
}
