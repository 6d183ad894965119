// What can be done with a finished picture.

import { send } from "./server.js";
import { toast } from "./toast.js";
import { watcher } from "./watcher.js";

export async function remove(images) {
  const ids = images.map((image) => image.id);
  try {
    await send("images/delete", { ids });
  } catch {
    toast("The picture could not be deleted");
    return false;
  }
  watcher.changed(ids);
  toast(ids.length === 1 ? "Picture deleted" : `${ids.length} pictures deleted`, "Undo", async () => {
    await send("images/restore", { ids }).catch(() => toast("The picture could not be brought back"));
    watcher.changed();
  });
  return true;
}
