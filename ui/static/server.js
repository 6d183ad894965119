// Talks to the studio's own addresses, which lie beside this file's folder.

const BASE = new URL("../", import.meta.url);

export const address = (path) => new URL(path, BASE).href;
export const thumbnail = (image) => address(`images/${image.id}/thumbnail`);
export const file = (image) => address(`images/${image.id}/file`);
export const download = (image) => address(`images/${image.id}/file?download=1`);

export const read = async (path) => content(await fetch(address(path)));

export async function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  return content(await fetch(address(path), { method: "POST", headers, body: JSON.stringify(body ?? {}) }));
}

async function content(answer) {
  if (answer.ok) return answer.json();
  throw Object.assign(new Error(`${answer.url}: ${answer.status}`), { status: answer.status });
}
