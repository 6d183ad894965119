// The choice of one file: the base model, the refiner, the VAE. Where it is free, an address or a hub id may be typed too.

import { combo } from "./combo.js";
import { frame, mark } from "./field.js";
import { library } from "./library.js";

const NOTES = { false: "to be fetched" };
const files = (items) => items.map(({ name, there }) => ({ value: name, text: name, note: NOTES[there] }));
const OPTIONS = {
  models: ({ studio, models }) => [{ value: "", text: `The studio's own (${studio})` }, ...files(models)],
  refiners: ({ models }) => [{ value: "", text: "None" }, ...files(models)],
  vaes: ({ vaes }) => [{ value: "", text: "The base model's own" }, ...files(vaes)],
  unets: ({ unets }) => [{ value: "", text: "The base model's own" }, ...files(unets)],
  encoders: ({ encoders }) => [{ value: "", text: "The usual one" }, ...files(encoders)],
  ic_lights: ({ ic_lights: lights }) => [{ value: "", text: "None" }, ...files(lights)],
};

export function mount({ element, props, trigger, watch, facts }) {
  let isLater = true; // the refiner's own settings come with the first refiner
  const effects = {
    models: (name, picked) => {
      library.setBase(name, picked, facts.scope);
      if (facts.scope) mark("relights", (library.model(name)?.family ?? "sd15") === "sd15"); // an unknown one may be
    },
    refiners: (name) => {
      mark("refiner", Boolean(name));
      if (name && isLater) trigger("open");
      isLater &&= !name;
    },
  };
  const options = () => OPTIONS[facts.list](library.lists);
  const pick = (name) => {
    props.value = name ? [name] : [];
    effects[facts.list]?.(name, true);
  };
  const box = combo({ label: facts.label, options, known: () => library.known, pick, isFree: facts.is_free });
  const draw = () => {
    const name = props.value?.[0] ?? "";
    box.show(name);
    effects[facts.list]?.(name, false);
  };
  element.replaceChildren(...frame(facts, box.node));
  watch("value", draw);
  library.addEventListener("change", draw);
  library.open();
  draw();
}
