// Settings out of a picture's file or a text: asked of the server, and handed to the form.

import { el } from "./dom.js";
import { post } from "./server.js";
import { toast } from "./toast.js";

export const PICTURES = ["image/png", "image/jpeg", "image/webp"];
const MOST = 64 * 2 ** 20;

let use = () => {};

// `given(fields)` fills the form.
export const listen = (given) => (use = given);

export async function readText(text) {
  return post("read", text, "text/plain;charset=utf-8");
}

// Fills the form from a picture, and says what could not be done.
export async function takePicture(file) {
  if (!PICTURES.includes(file.type)) return toast("Only PNG, JPEG and WebP pictures carry settings");
  if (file.size > MOST) return toast("This file is larger than 64 MB");
  try {
    const found = await post("read", file, file.type);
    if (!found.kind) return toast("This picture says nothing of how it was made");
    take(found);
  } catch (error) {
    toast(error.told ?? "The studio does not answer");
  }
}

export function take({ fields, notes }) {
  use(fields);
  toast(["Settings taken over", ...notes].join(". "));
}

export function choosePicture() {
  const input = el("input", { type: "file", accept: PICTURES.join(), hidden: true });
  input.addEventListener("change", () => input.files[0] && takePicture(input.files[0]));
  input.click();
}
