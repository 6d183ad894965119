// Talks to the studio's own addresses, which lie beside this file's folder.

const BASE = new URL("../", import.meta.url);

export const address = (path) => new URL(path, BASE).href;
export const thumbnail = (image) => address(`images/${image.id}/thumbnail`);
export const file = (image) => address(`images/${image.id}/file`);
export const download = (image) => address(`images/${image.id}/file?download=1`);

export async function read(path) {
  const answer = await fetch(address(path));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

export async function send(path, body) {
  const answer = await fetch(address(path), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
