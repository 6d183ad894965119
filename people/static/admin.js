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

function person({ name, role, made }) {
  const other = role === "owner" ? "guest" : "owner";
  return row(name, `${role}, since ${day(made)}`,
    button(`Make ${other}`, () => act("people/role", { name, role: other }, `${name} is ${other} now.`)),
    button("Set password", () => {
      const password = prompt(`New password of ${name} (8 characters or more)`);
      if (password !== null) act("people/password", { name, password }, `${name} has a new password.`);
    }),
    button("Remove", () => {
      if (confirm(`Remove ${name}? Keys by that name and jobs that wait or run go too; pictures stay.`)) act("people/remove", { name }, `${name} is removed.`);
    }));
}

const key = ({ id, owner, label, made }) =>
  row(owner, [label, id, `since ${day(made)}`].filter(Boolean).join(", "),
    button("Revoke", () => confirm(`Revoke the key of ${owner}?`) && act("keys/revoke", { id }, "The key is revoked.")));

const job = ({ id, owner, state, position, images, made }) =>
  row(owner, `${images === 1 ? "1 picture" : `${images} pictures`}, ${state}${position ? ` behind ${position}` : ""}, since ${day(made)}`,
    button("Stop", () => act("queue/cancel", { id }, "The job is stopped.")));

const disk = ({ name, path, free, total }) => row(name, `${size(free)} free of ${size(total)} (${path})`);

const LISTS = { people: [person, "Nobody"], keys: [key, "None"], jobs: [job, "Nothing waits or runs"], disk: [disk, ""] };
let shown = "";

async function look() {
  const state = await ask("state");
  const text = JSON.stringify(state);
  if (text === shown) return;
  shown = text;
  for (const [name, [write, nothing]] of Object.entries(LISTS)) {
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
