// People, keys, queue and disk. Names are text that somebody wrote, so all of it goes in as text.

const LOOK_MS = 5000;
const told = document.getElementById("told");

function el(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

function say(words, isWrong = false) {
  told.textContent = words;
  told.classList.toggle("wrong", isWrong);
}

async function ask(path, body) {
  const how = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(new URL(`admin/${path}`, document.baseURI), how);
  if (answer.status === 401) location.assign("login");
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail);
  return content;
}

// Does something and shows what came of it.
async function act(path, body, words) {
  try {
    const done = await ask(path, body);
    say(done.key ? `The key, shown only now: ${done.key}` : words);
    await look();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

const day = (seconds) => new Date(seconds * 1000).toLocaleString();
const GIB = 2 ** 30;
const size = (bytes) => `${(bytes / GIB).toFixed(1)} GiB`;

function row(name, facts, ...buttons) {
  return el("li", {}, el("span", { className: "name", textContent: name }), el("span", { className: "facts", textContent: facts }), ...buttons);
}

const button = (words, onclick) => el("button", { type: "button", textContent: words, onclick });

// Puts a box for a new password in the button's place.
function choosePassword(place, name) {
  const words = `New password of ${name}`;
  const box = el("input", { type: "password", placeholder: words, ariaLabel: words, autocomplete: "new-password", minLength: 8, maxLength: 200, required: true });
  const form = el("form", {}, box, el("button", { type: "submit", textContent: "Save" }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const saved = await act("people/password", { name, password: box.value }, `${name} has a new password.`);
    if (saved) form.replaceWith(place);
  });
  place.replaceWith(form);
  box.focus();
}

// Says what goes with a person, and asks about the pictures.
function confirmRemoval(place, name) {
  const pictures = el("input", { type: "checkbox" });
  const form = el("form", { className: "removal" },
    el("p", { textContent: `${name} can log in no more. Keys by that name end, jobs that wait or run are stopped. Pictures stay under that name, unless they go too: into the bin, for good after 7 days.` }),
    el("label", {}, pictures, "Also the pictures"),
    el("button", { type: "submit", textContent: "Remove" }),
    el("button", { type: "button", textContent: "Keep", onclick: () => form.replaceWith(place) }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const gone = await act("people/remove", { name, pictures: pictures.checked ? "yes" : "no" }, `${name} is removed.`);
    if (!gone) form.replaceWith(place);
  });
  place.replaceWith(form);
}

function person({ name, role, made }) {
  const other = role === "owner" ? "guest" : "owner";
  return row(name, `${role}, since ${day(made)}`,
    button(`Make ${other}`, () => act("people/role", { name, role: other }, `${name} is ${other} now.`)),
    button("Set password", (event) => choosePassword(event.currentTarget, name)),
    button("Remove", (event) => confirmRemoval(event.currentTarget, name)));
}

const key = ({ id, owner, label, made }) =>
  row(owner, [label, id, `since ${day(made)}`].filter(Boolean).join(", "),
    button("Revoke", () => confirm(`Revoke the key of ${owner}?`) && act("keys/revoke", { id }, "The key is revoked.")));

const job = ({ id, owner, state, position, images, made }) =>
  row(owner, `${images === 1 ? "1 picture" : `${images} pictures`}, ${state}${position ? ` behind ${position}` : ""}, since ${day(made)}`,
    button("Stop", () => act("queue/cancel", { id }, "The job is stopped.")));

const worker = ({ name, state, device, jobs }) =>
  row(name, [device.startsWith(name) ? device.slice(name.length).replace(/^, /, "") : device, state, jobs === 1 ? "1 job" : `${jobs} jobs`].filter(Boolean).join(", "));

const disk = ({ name, path, free, total }) => row(name, `${size(free)} free of ${size(total)} (${path})`);

const LISTS = { people: [person, "Nobody"], keys: [key, "None"], jobs: [job, "Nothing waits or runs"], workers: [worker, "None"], disk: [disk, ""] };
const shown = {}; // what each list was drawn from, so that nothing is drawn anew under a hand

async function look() {
  const state = await ask("state");
  for (const [name, [write, nothing]] of Object.entries(LISTS)) {
    const text = JSON.stringify(state[name]);
    if (text === shown[name]) continue;
    shown[name] = text;
    const rows = state[name].map(write);
    document.getElementById(name).replaceChildren(...(rows.length ? rows : [el("li", { className: "quiet", textContent: nothing })]));
  }
}

function onSubmit(id, path, words) {
  const form = document.getElementById(id);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    if (await act(path, given, words(given))) form.reset();
  });
}

onSubmit("add_person", "people/add", ({ name }) => `${name} can log in now.`);
onSubmit("add_key", "keys/add", () => "");

async function watch() {
  if (!document.hidden) await look().catch((error) => say(error.message, true));
  setTimeout(watch, LOOK_MS);
}
watch();
