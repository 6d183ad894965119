// What is kept in this browser from visit to visit: files by name. A browser that keeps nothing just forgets.

const SHELF = "sketches";

export const recall = (key) => ask("readonly", (shelf) => shelf.get(key)).catch(() => null);
export const keep = (key, value) => ask("readwrite", (shelf) => shelf.put(value, key)).catch(() => null);
export const forget = (key) => ask("readwrite", (shelf) => shelf.delete(key)).catch(() => null);

async function ask(mode, act) {
  const database = await open();
  try {
    const change = database.transaction(SHELF, mode);
    const request = act(change.objectStore(SHELF));
    await new Promise((done, failed) => {
      change.oncomplete = done;
      change.onerror = change.onabort = () => failed(change.error);
    });
    return request.result;
  } finally {
    database.close();
  }
}

const open = () =>
  new Promise((done, failed) => {
    const request = indexedDB.open("pochade", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(SHELF);
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
