// A sentence about a picture that is looked at, for a mask or for words: what it takes, how far it is, what went wrong.

import { el } from "./dom.js";
import { address, send } from "./server.js";
import { toast } from "./toast.js";

const LOOKING = "Looking at the picture";
const SAID = ["waiting", "progress"]; // kinds of news that say more than that

export function mount({ element, props, watch }) {
  const words = el("p", { class: "need", role: "status" });
  const stop = el("button", { type: "button", class: "small_button", hidden: true }, "Stop");
  element.replaceChildren(words, stop);
  let stream = null;

  const say = (text, isWrong) => {
    words.textContent = text;
    words.toggleAttribute("data-none", Boolean(isWrong));
  };
  const draw = () => {
    const { job, text = "", wrong } = props.value ?? {};
    stream?.close();
    stream = job ? new EventSource(address(`jobs/${job}/events`)) : null;
    stop.hidden = !job;
    if (!job) return say(text, wrong);
    say(LOOKING);
    stop.onclick = () => send(`jobs/${job}/cancel`).catch((error) => toast(error.message));
    stream.onmessage = ({ data }) => {
      const { kind, text: news } = JSON.parse(data);
      say(SAID.includes(kind) ? news : LOOKING);
      if (["finished", "failed", "stopped"].includes(kind)) stream.close();
    };
  };
  watch("value", draw);
  draw();
}
