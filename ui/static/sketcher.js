// The mask sketcher: a picture from anywhere, and a brush that says what of it is painted anew.

import { el, icon, ICONS } from "./dom.js";
import { address } from "./server.js";
import { Board } from "./sketch_board.js";
import { Hand } from "./sketch_hand.js";
import { listen } from "./sketch_keys.js";
import { hold, pick, take } from "./sketch_ways.js";
import { View } from "./sketch_view.js";
import { recall, remember } from "./store.js";
import { toast } from "./toast.js";

const TOOLS = {
  brush: { name: "Brush", key: "b", icon: "M19.5 3.500l1 1L11.5 14l-1.5-1.500zM9 13c-2 0-3.2 1.3-3.2 3.2 0 1.7-.8 2.6-2.3 3.3 3.5 1.3 8.5.8 8.5-3.2 0-1.8-1.2-3.3-3-3.300z" },
  eraser: { name: "Eraser", key: "e", icon: "M20 20H9l-4.5-4.500a2 2 0 0 1 0-2.800l8.2-8.200a2 2 0 0 1 2.8 0l4 4a2 2 0 0 1 0 2.800L11 20M8.5 8.700l6.8 6.8" },
  lasso: { name: "Lasso", key: "l", icon: "M7.5 14C5 12.9 3.5 11.3 3.5 9.3 3.5 6.2 7.3 4 12 4s8.5 2.2 8.5 5.300S16.7 14.7 12 14.700c-.8 0-1.5-.1-2.2-.2M7.5 16.500a2 2 0 1 1 2-2c0 2.5-1 4.5-3.5 5.5" },
  fill: { name: "Fill an outline, or everything", key: "f", icon: "M11.5 3.500l8.5 8.5-7.3 7.300a2 2 0 0 1-2.8 0l-5.7-5.700a2 2 0 0 1 0-2.800zM3.8 12.500H19M20.5 16c.9 1.3 1.4 2 1.4 2.700a1.4 1.4 0 0 1-2.8 0c0-.7.5-1.4 1.4-2.700z" },
};
const MARKS = {
  undo: "M8 5L4 9l4 4M4 9h10.500a5.5 5.5 0 0 1 0 11H11",
  redo: "M16 5l4 4-4 4M20 9H9.500a5.5 5.5 0 0 0 0 11H13",
  invert: "M12 3.500a8.5 8.5 0 1 0 0 17a8.5 8.5 0 1 0 0-17v17M12 7.500h7M12 12h8.500M12 16.500h7",
  upload: "M12 16V5M7 9.500l5-5 5 5M5 20h14",
  picture: "M4 5h16v14H4zM4 16.500l5-5 4 4 2.5-2.5 4.5 4.500M15.5 9.200v.1",
  plus: "M12 6v12M6 12h12",
  minus: "M6 12h12",
};
const SIZE = "pochade.brush";
const [SMALLEST, USUAL, LARGEST] = [0.004, 0.07, 0.5]; // of the brush, as a share of the picture's longest side
const STEP = 1.25; // by which [ and ] change it
const ZOOM = 1.4;
const CLOSE = 3; // CSS pixels from which the mask's own are shown
const COLOURS = [0xff8a28f0, 0xffb070ff]; // of the mask's stripes, which no picture has; as bytes: alpha, blue, green, red
const STRIPES = 96; // on the longest side

dress();
const mounted = new Map(); // by name of the part
const wanted = new Map(); // pictures for parts that are not on the page yet

// Puts a picture on a sketcher, also on one whose tab was never open.
export async function load(url, id = "sketch") {
  const open = mounted.get(id);
  if (open) return open(url);
  wanted.set(id, url);
}

window.pochadeSketcher = { load };

export function mount({ element, props, watch, facts }) {
  const board = new Board(facts, (value) => (props.value = value));
  const kit = { tool: "brush", size: clamp(Number(recall(SIZE)) || USUAL) };
  const canvas = el("canvas", { "aria-hidden": "true" });
  const image = el("img", { alt: "", draggable: "false" });
  const sheet = el("div", { class: "sketch_sheet" }, image, canvas);
  const ring = el("i", { class: "sketch_ring", hidden: true });
  const loop = svg();
  const frame = el("div", { class: "sketch_frame", tabindex: 0, role: "application", "aria-label": "Picture: paint over what shall change" }, sheet, loop, ring);
  const view = new View(frame, () => place());
  const hand = new Hand({ frame, view, board, kit, lasso: (points) => outline(loop, points, view) });

  const attempt = async (act) => {
    try {
      const told = await act();
      if (typeof told === "string" && told) toast(told);
      return told;
    } catch (error) {
      toast(error.message);
    }
  };
  const open = (source) => attempt(async () => {
    const old = await (typeof source === "string" ? board.load(source) : board.open(source));
    if (old) toast("A new picture starts with an empty mask", "Keep the mask", () => attempt(() => board.inherit(old)));
  });
  const takeMask = (file) => attempt(() => board.take(file));
  const resize = (size) => {
    kit.size = clamp(size);
    remember(SIZE, String(kit.size));
    draw();
  };
  const choose = (tool) => {
    kit.tool = tool;
    draw();
  };

  const tools = Object.entries(TOOLS).map(([tool, { name, key, icon: path }]) =>
    button({ label: name, key, path, act: () => choose(tool), more: { "data-tool": tool } }));
  const size = el("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "Brush size", title: "Brush size ([ and ])", oninput: () => resize(fromSlider(size.value)) });
  const undo = button({ label: "Undo", key: "Ctrl+Z", path: MARKS.undo, act: () => board.undo(), more: { "data-act": "undo" } });
  const redo = button({ label: "Redo", key: "Ctrl+Shift+Z", path: MARKS.redo, act: () => board.redo(), more: { "data-act": "redo" } });
  const invert = button({ label: "Invert the mask", key: "i", path: MARKS.invert, act: () => board.change((mask) => mask.invert()), more: { "data-act": "invert" } });
  const clear = button({ label: "Clear the mask", path: ICONS.trash, act: () => board.change((mask) => mask.replace(null)), more: { "data-act": "clear" } });
  const bar = el("div", { class: "sketch_bar", role: "toolbar", "aria-label": "Mask" },
    el("div", { class: "sketch_group", role: "group", "aria-label": "Tools" }, ...tools),
    el("div", { class: "sketch_size" }, el("i", { class: "small" }), size, el("i", { class: "large" })),
    el("div", { class: "sketch_group", role: "group", "aria-label": "Changes" }, undo, redo, invert, clear));

  const percent = el("button", { type: "button", class: "sketch_percent", title: "Whole picture (0)", "aria-label": "Show the whole picture", onclick: () => view.fit() });
  const zoom = el("div", { class: "sketch_zoom", role: "group", "aria-label": "Zoom" },
    button({ label: "Zoom out", key: "−", path: MARKS.minus, act: () => view.zoom(1 / ZOOM) }), percent,
    button({ label: "Zoom in", key: "+", path: MARKS.plus, act: () => view.zoom(ZOOM) }));

  const status = el("p", { class: "sketch_status", role: "status" });
  const foot = el("div", { class: "sketch_foot" }, status,
    button({ label: "Mask from a file", path: MARKS.upload, act: () => pick(takeMask), words: "Load mask", more: { "data-act": "mask-upload" } }),
    button({ label: "Save the mask as a file", path: ICONS.download, act: () => attempt(() => save(board)), words: "Save mask", more: { "data-act": "mask-download" } }),
    button({ label: "Choose another picture", path: MARKS.picture, act: () => pick(open), words: "Replace", more: { "data-act": "replace" } }),
    button({ label: "Remove the picture", path: ICONS.close, act: () => board.remove(), more: { "data-act": "remove" } }));

  const start = el("div", { class: "sketch_start" },
    icon(MARKS.picture),
    el("p", {}, el("b", {}, "Drop a picture here"), " or paste one"),
    el("button", { type: "button", class: "small_button prime", "data-act": "choose", onclick: () => pick(open) }, "Choose a picture"));
  const stage = el("div", { class: "sketch_stage" }, frame, zoom, start);
  element.replaceChildren(bar, stage, foot);

  function place() {
    sheet.style.transform = `translate(${view.left}px, ${view.top}px) scale(${view.scale})`;
    sheet.classList.toggle("close", view.scale > CLOSE);
    zoom.classList.toggle("whole", view.isWhole);
    const { picture, mask } = board;
    percent.textContent = picture ? `${Math.round((view.scale * mask.width * 100) / picture.width)}%` : "";
  }

  function draw() {
    const { picture, mask, problem } = board;
    element.classList.toggle("empty", !picture);
    frame.dataset.tool = kit.tool;
    for (const node of tools) node.setAttribute("aria-pressed", String(node.dataset.tool === kit.tool));
    size.value = toSlider(kit.size);
    size.style.setProperty("--from", "0%");
    size.style.setProperty("--to", `${size.value}%`);
    undo.disabled = !mask?.canUndo;
    redo.disabled = !mask?.canRedo;
    clear.disabled = !mask || mask.isEmpty;
    const words = picture ? [`${picture.width}×${picture.height}`, mask.isEmpty ? "nothing painted" : `${share(mask.share)} painted`].join(" · ") : "";
    const text = problem || words;
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("wrong", Boolean(problem));
  }

  let pixels = null; // the mask as it is drawn
  const paint = (box) => {
    const { bits, width } = board.mask;
    const [left, top, right, bottom] = box;
    const colours = new Uint32Array(pixels.data.buffer);
    const stripe = Math.max(width, bits.length / width) / STRIPES;
    for (let row = top; row < bottom; row++) {
      for (let column = left, at = row * width + left; column < right; column++, at++) {
        colours[at] = bits[at] ? COLOURS[Math.floor((row + column) / stripe) & 1] : 0;
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0, left, top, right - left, bottom - top);
  };
  board.addEventListener("paint", ({ detail }) => paint(detail));
  board.addEventListener("change", draw);
  board.addEventListener("picture", () => {
    const { picture, mask } = board;
    image.src = picture?.url ?? "";
    if (!picture) return (pixels = null), draw();
    [canvas.width, canvas.height] = [mask.width, mask.height];
    sheet.style.width = `${mask.width}px`;
    sheet.style.height = `${mask.height}px`;
    pixels = new ImageData(mask.width, mask.height);
    stage.style.setProperty("--ratio", picture.width / picture.height);
    draw();
    view.show(mask.width, mask.height);
  });

  follow(frame, ring, hand, view, kit);
  listen({ element, frame, board, hand, view, zoom: ZOOM, tools: TOOLS, choose, resize: (by) => resize(kit.size * STEP ** by) });
  take(element, open, () => !board.picture);
  hold(facts.submits, board, element);
  watch("value", () => {
    const told = parsed(props.value);
    if (told?.show) attempt(() => board.follow(told));
  });

  mounted.set(facts.id, open);
  draw();
  const first = wanted.get(facts.id);
  wanted.delete(facts.id);
  if (first) open(first);
  else board.restore().catch(() => {});
}

function button({ label, key, path, act, words, more }) {
  const title = key ? `${label} (${key})` : label;
  return el("button", { type: "button", class: "sketch_button", "aria-label": label, title, onclick: act, ...more }, icon(path), words && el("span", {}, words));
}

// The ring that shows how large the brush is.
function follow(frame, ring, hand, view, kit) {
  const hide = () => (ring.hidden = true);
  frame.addEventListener("pointermove", (event) => {
    const paints = kit.tool === "brush" || kit.tool === "eraser";
    ring.hidden = event.pointerType === "touch" || !paints || hand.isSpaceHeld || !hand.board.mask;
    if (ring.hidden) return;
    const [x, y] = view.inFrame(event);
    const across = hand.radius(event) * 2 * view.scale;
    ring.style.cssText = `width: ${across}px; height: ${across}px; transform: translate(${x - across / 2}px, ${y - across / 2}px)`;
  });
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("pointerdown", (event) => event.pointerType === "touch" && hide());
}

const SVG = "http://www.w3.org/2000/svg";

function svg() {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "sketch_loop");
  drawing.append(document.createElementNS(SVG, "path"), document.createElementNS(SVG, "path"));
  return drawing;
}

function outline(drawing, points, view) {
  const line = points.map(([x, y]) => `${(x * view.scale + view.left).toFixed(1)} ${(y * view.scale + view.top).toFixed(1)}`);
  for (const path of drawing.children) path.setAttribute("d", line.length ? `M${line.join("L")}Z` : "");
}

async function save(board) {
  const url = URL.createObjectURL(await board.write());
  el("a", { href: url, download: "mask.png" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function parsed(value) {
  try {
    return JSON.parse(value);
  } catch {
    return null;
  }
}

// Brings the style sheet that only this part needs.
function dress() {
  document.head.append(el("link", { rel: "stylesheet", href: address("static/sketcher.css") }));
}

const clamp = (size) => Math.min(LARGEST, Math.max(SMALLEST, size));
const SPAN = Math.log(LARGEST / SMALLEST);
const toSlider = (size) => Math.round((Math.log(size / SMALLEST) / SPAN) * 100);
const fromSlider = (place) => SMALLEST * Math.exp((place / 100) * SPAN);
const share = (part) => (part < 0.01 ? "under 1%" : `${Math.round(part * 100)}%`);
