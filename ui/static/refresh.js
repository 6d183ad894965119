// Has the studio look at its folders again, and every list with it.

import { el, icon, ICONS } from "./dom.js";
import { library } from "./library.js";
import { toast } from "./toast.js";

export function mount({ element }) {
  const button = el("button", { type: "button", class: "quiet_button", id: "refresh_files" }, icon(ICONS.again), "Refresh all files");
  button.addEventListener("click", async () => {
    button.disabled = true;
    await library.refresh().then(() => toast(`${library.lists.models.length} models, ${library.lists.loras.length} LoRAs and ${library.lists.vaes.length} VAEs can be chosen`), (error) => toast(error.told ?? "The studio does not answer"));
    button.disabled = false;
  });
  element.replaceChildren(button);
}
