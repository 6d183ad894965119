// Makes elements. Text always goes in as text: nothing from a prompt is ever read as HTML.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

// A line drawing on a grid of 24; `path` is a constant of ours.
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  close: "M6 6l12 12M18 6L6 18",
  stop: "M7 7h10v10H7z",
  skip: "M6 6l7 6-7 6zM17 6v12",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4v6M9 14v6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  again: "M5 12a7 7 0 1 1 2 5M5 12l-2-3M5 12l3-2",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  swap: "M7 4L4 7l3 3M4 7h13M17 14l3 3-3 3M20 17H7",
};

// Writes into one of Gradio's text boxes as if it had been typed.
export function type(box, text) {
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

export const promptBox = () => document.querySelector("#prompt textarea");

// Where dialogs and toasts go: inside Gradio's container, so that the theme holds there too.
export const layer = () => document.getElementById("masthead");
