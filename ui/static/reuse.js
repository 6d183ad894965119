// Puts a picture's settings back into the form. The server reads them from its record; this only names the picture.

let trigger = () => {};

export const listen = (given) => (trigger = given);
export const reuse = (image, what) => trigger("reuse", { image: image.id, job: image.grid ? image.job : null, what });
