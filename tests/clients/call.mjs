// One call of one of fal's clients; what came of it goes to the standard output as one line of JSON.
//
//     node --import ../../clients/local_fal.mjs call.mjs new|old OPERATION '{"endpoint": ..., "input": ...}'

import * as old from "@fal-ai/serverless-client";
import * as recent from "@fal-ai/client";

const [age, operation, text] = process.argv.slice(2);
const asked = JSON.parse(text);
const { endpoint, input } = asked;
const fal = age === "new" ? recent.fal : old;
const { ApiError, ValidationError } = age === "new" ? recent : old;

const operations = {
  run: () => fal.run(endpoint, { input }),

  async subscribe() {
    const states = [];
    const messages = [];
    let id = null;
    const answer = await fal.subscribe(endpoint, {
      input,
      logs: true,
      mode: asked.mode ?? "polling",
      pollInterval: 50,
      onEnqueue: (given) => (id = given),
      onQueueUpdate: (update) => {
        states.push(update.status);
        messages.push(...(update.logs ?? []).map((log) => log.message));
      },
    });
    return { answer, id, states, messages };
  },

  async queue() {
    const submitted = await fal.queue.submit(endpoint, { input, webhookUrl: asked.webhook });
    const requestId = submitted.request_id;
    const first = await fal.queue.status(endpoint, { requestId, logs: true });
    const stream = await fal.queue.streamStatus(endpoint, { requestId, logs: true });
    const events = [];
    stream.on("data", (event) => events.push(event));
    const last = await stream.done();
    const answer = await fal.queue.result(endpoint, { requestId });
    return { submitted, first, events, last, answer };
  },

  async cancel() {
    const { request_id: requestId } = await fal.queue.submit(endpoint, { input });
    await fal.queue.cancel(endpoint, { requestId });
    const last = await fal.queue.subscribeToStatus(endpoint, { requestId, pollInterval: 50 });
    const result = await settled(() => fal.queue.result(endpoint, { requestId }));
    const again = await settled(() => fal.queue.cancel(endpoint, { requestId }));
    return { last, result, again };
  },

  submit: () => fal.queue.submit(endpoint, { input, webhookUrl: asked.webhook }),

  result: () => fal.queue.result(endpoint, { requestId: asked.id }),

  upload() {
    const data = new Uint8Array(asked.size).map((_, index) => index % 251);
    return fal.storage.upload(new File([data], asked.name, { type: asked.type }));
  },

  blob: () => fal.run(endpoint, { input: { ...input, [asked.field]: new Blob(["a picture"], { type: "image/png" }) } }),
};

/** Wait for a call; its error is told as what the client's own types say of it. */
async function settled(call) {
  try {
    return { value: (await call()) ?? null };
  } catch (error) {
    return {
      error: {
        is: [error instanceof ApiError && "ApiError", error instanceof ValidationError && "ValidationError"].filter(Boolean),
        status: error.status,
        body: error.body,
        message: error.message,
        fields: error.fieldErrors ?? null,
      },
    };
  }
}

console.log(JSON.stringify(await settled(operations[operation])));
