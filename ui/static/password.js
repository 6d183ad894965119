// Another password for whoever has logged in: asked for the old one, and elsewhere everybody has to log in again.

import { el, layer } from "./dom.js";
import { address } from "./server.js";
import { toast } from "./toast.js";

const SHORTEST = 8;

export function askPassword(name) {
  document.getElementById("password_sheet")?.remove();
  const box = (id, label, autocomplete, least) => el("input", { type: "password", id, "aria-label": label, placeholder: label, autocomplete, required: true, minlength: least, maxlength: 200 });
  const old = box("old_password", "Old password", "current-password", null);
  const fresh = box("new_password", `New password (${SHORTEST} or more)`, "new-password", SHORTEST);
  const problem = el("p", { class: "sheet_problem", role: "alert" });
  const save = el("button", { type: "submit", class: "small_button prime" }, "Save");
  const dialog = el("dialog", { id: "password_sheet", class: "part", "aria-labelledby": "password_title" });
  const send = async (event) => {
    event.preventDefault();
    save.disabled = true;
    problem.textContent = await change(old.value, fresh.value);
    save.disabled = false;
    if (problem.textContent) return;
    dialog.close();
    toast("Your password is changed; elsewhere you have to log in again");
  };
  dialog.append(el("form", { onsubmit: send },
    el("h2", { id: "password_title" }, "Change password"),
    el("input", { type: "text", value: name, autocomplete: "username", hidden: true, readonly: true }), // for password managers
    old, fresh, problem,
    el("div", { class: "sheet_end" }, el("button", { type: "button", class: "small_button", onclick: () => dialog.close() }, "Cancel"), save)));
  dialog.addEventListener("close", () => dialog.remove());
  layer().append(dialog);
  dialog.showModal();
}

// Says what is wrong; '' where the password is another one now.
async function change(old, fresh) {
  try {
    const answer = await fetch(address("../people/password"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ old, new: fresh }) });
    if (answer.status === 401) location.assign(address("../login")); // the login has ended
    return answer.ok ? "" : (await answer.json()).detail;
  } catch {
    return "The studio does not answer";
  }
}
