// Says whether a webhook is signed by the studio, as fal's guide tells receivers to check it.
//
//     node verify.mjs ADDRESS_OF_JWKS '{"x-fal-webhook-...": ...}' < body

import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const headers = JSON.parse(process.argv[3]);
const { keys } = await (await fetch(process.argv[2])).json();
const hash = createHash("sha256").update(readFileSync(0)).digest("hex");
const parts = ["request-id", "user-id", "timestamp"].map((name) => headers[`x-fal-webhook-${name}`]);
const message = Buffer.from([...parts, hash].join("\n"));
const signature = Buffer.from(headers["x-fal-webhook-signature"], "hex");
const isSigned = keys.some((key) => verify(null, message, createPublicKey({ key, format: "jwk" }), signature));
console.log(isSigned);
