// A sentence about a picture that is looked at, for a mask or for words: what it takes, how far it is, what went wrong. Words
// that were found are there again after a reload, to be put into the prompt.

import { el, promptBox, type } from "./dom.js";
import { address, read, send } from "./server.js";
import { recall, remember } from "./store.js";
import { toast } from "./toast.js";

const LOOKING = "Looking at the picture";
const SAID = ["waiting", "progress"]; // kinds of news that say more than that
const OVER = ["finished", "failed", "stopped"];

export function mount({ element, props, watch, facts }) {
  const words = el("p", { class: "need", role: "status" });
  const act = el("button", { type: "button", class: "small_button", hidden: true });
  element.replaceChildren(words, act);
  let stream = null;

  const say = (text, isWrong) => {
    words.textContent = text;
    words.toggleAttribute("data-none", Boolean(isWrong));
  };
  const offer = (name, what) => {
    act.hidden = !name;
    act.textContent = name ?? "";
    act.onclick = what;
  };
  const show = ({ job, text = "", wrong } = {}) => {
    stream?.close();
    stream = job ? new EventSource(address(`jobs/${job}/events`)) : null;
    offer(null);
    if (!job) return say(text, wrong);
    if (facts.kept) remember(facts.kept, job);
    say(LOOKING);
    offer("Stop", () => send(`jobs/${job}/cancel`).catch((error) => toast(error.message)));
    stream.onmessage = ({ data }) => {
      const { kind, text: news } = JSON.parse(data);
      say(SAID.includes(kind) ? news : LOOKING);
      if (!OVER.includes(kind)) return;
      stream.close();
      if (props.value?.job !== job) again(); // no event of the page waits for it
    };
  };
  // Shows the words of the last job anew.
  const again = async () => {
    const last = facts.kept && recall(facts.kept);
    const job = last && (await read(`jobs/${encodeURIComponent(last)}`).catch(() => null));
    if (!job || props.value?.job || props.value?.text) return;
    if (!OVER.includes(job.state)) return show({ job: last });
    if (!job.words) return show();
    say(job.words);
    offer("Put it into the prompt", () => type(promptBox(), job.words));
  };
  watch("value", () => show(props.value ?? {}));
  show(props.value ?? {});
  again();
}
