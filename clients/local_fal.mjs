// Lets JavaScript programs that were written for fal.ai talk to a studio on this machine instead, unchanged:
//
//     FAL_LOCAL_URL=http://127.0.0.1:7860 node --import ./local_fal.mjs program.mjs
//
// Both of fal's clients ask through the global fetch; it is the only thing that is changed. Stands alone: copy it anywhere.

const studio = (process.env.FAL_LOCAL_URL ?? "http://127.0.0.1:7860").replace(/\/+$/, "");
const places = {
  "fal.run": "",
  "queue.fal.run": "/queue",
  "rest.fal.ai": "/rest",
  "rest.alpha.fal.ai": "/rest",
  "v3.fal.media": "/cdn",
};

/** Write an address of fal's as that of the studio; any other stays as it is. */
function local(address) {
  const url = new URL(address);
  const prefix = places[url.host];
  return prefix === undefined ? address : studio + prefix + url.pathname + url.search;
}

const fetchAnywhere = globalThis.fetch;
globalThis.fetch = (asked, options) =>
  asked instanceof Request
    ? fetchAnywhere(new Request(local(asked.url), asked), options)
    : fetchAnywhere(local(String(asked)), options);
