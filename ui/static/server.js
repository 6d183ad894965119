// Talks to the studio's own addresses, which lie beside this file's folder.

const BASE = new URL("../", import.meta.url);

export const address = (path) => new URL(path, BASE).href;
// Of a picture, or of the grid of a job's pictures.
export const thumbnail = (image) => address(image.grid ? `jobs/${image.job}/grid/thumbnail?of=${image.grid}` : `images/${image.id}/thumbnail`);
export const file = (image) => address(image.grid ? `jobs/${image.job}/grid?of=${image.grid}` : `images/${image.id}/file`);
export const download = (image) => address(image.grid ? `jobs/${image.job}/grid?of=${image.grid}&download=1` : `images/${image.id}/file?download=1`);

export const extra = (image, kind) => address(`images/${image.id}/extras/${kind}`);

export const read = async (path) => content(await fetch(address(path)));
export const send = (path, body) => post(path, JSON.stringify(body ?? {}), "application/json");

// Sends a file or a text as it is.
export const post = async (path, body, type) =>
  content(await fetch(address(path), { method: "POST", headers: { "Content-Type": type }, body }));

async function content(answer) {
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => null);
  const { status } = answer;
  if (status === 401) location.assign(address("../login")); // the login has ended
  throw Object.assign(new Error(told?.detail ?? `${answer.url}: ${status}`), { status, told: told?.detail });
}
