// Mouse, pen and fingers on the picture: one paints, two move it.

const PEN_ERASER = 32; // among the buttons
const LIGHTEST = 0.3; // share of its size that a brush has under a pen that hardly touches
const THINNEST = 0.75; // radius in pixels that always covers one
const LINE = 16; // pixels of a line, in which some mice count
const TURN = 0.0015; // zoom a pixel of the wheel
const PINCH = 0.01; // and of a touch pad's pinch, which comes as a wheel

export class Hand {
  isSpaceHeld = false;
  #points = new Map(); // those that touch the frame, by id
  #act = null; // what they do: paint, lasso, pan, pinch, or rest until all are lifted
  #pen = null;
  #value = 1;
  #loop = []; // of the lasso, in pixels of the mask

  // `kit` holds the tool that is chosen and its size; `lasso(points)` draws a loop that is not closed yet.
  constructor({ frame, view, board, kit, lasso }) {
    Object.assign(this, { frame, view, board, kit, lasso });
    const listen = (name, act) => frame.addEventListener(name, (event) => this.board.mask && act(event));
    listen("pointerdown", (event) => this.#down(event));
    listen("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) listen(name, (event) => this.#up(event));
    listen("wheel", (event) => this.#wheel(event));
    listen("contextmenu", (event) => event.preventDefault());
  }

  get isBusy() {
    return this.#act !== null;
  }

  // The radius of the brush, in pixels of the mask.
  radius(event) {
    const isPen = event?.pointerType === "pen" && event.pressure > 0;
    const share = isPen ? LIGHTEST + (1 - LIGHTEST) * event.pressure : 1;
    const { width, height } = this.board.mask;
    return Math.max(THINNEST, (this.kit.size * Math.max(width, height) * share) / 2);
  }

  #down(event) {
    if (this.#pen !== null && event.pointerType === "touch") return; // the hand that holds the pen
    if (event.pointerType === "pen") this.#pen = event.pointerId;
    this.frame.focus({ preventScroll: true });
    this.frame.setPointerCapture(event.pointerId);
    this.#points.set(event.pointerId, this.view.inFrame(event));
    if (this.#points.size > 1) {
      this.#giveUp();
      this.#act = this.#points.size === 2 ? "pinch" : "rest";
    } else if (this.isSpaceHeld || event.button === 1) {
      event.preventDefault();
      this.#act = "pan";
    } else this.#begin(event);
  }

  #begin(event) {
    const { mask } = this.board;
    const place = this.view.inMask(event);
    const { tool } = this.kit;
    this.#value = tool === "eraser" || event.button === 2 || event.buttons & PEN_ERASER ? 0 : 1;
    if (tool === "fill") {
      this.#act = "rest";
      if (place[0] >= 0 && place[0] < mask.width && place[1] >= 0 && place[1] < mask.height) {
        this.board.change((it) => it.flood(...place, this.#value));
      }
      return;
    }
    this.#act = tool === "lasso" ? "lasso" : "paint";
    this.#loop = [place];
    mask.begin();
    if (this.#act === "paint") mask.stroke(place, place, this.radius(event), this.#value);
  }

  #move(event) {
    const old = this.#points.get(event.pointerId);
    if (!old) return;
    const now = this.view.inFrame(event);
    if (this.#act === "pinch") this.#pinch(event.pointerId, now);
    else if (this.#act === "pan") this.view.pan(now[0] - old[0], now[1] - old[1]);
    else if (this.#act === "paint" || this.#act === "lasso") this.#draw(event);
    this.#points.set(event.pointerId, now);
  }

  #draw(event) {
    const between = event.getCoalescedEvents?.() ?? [];
    for (const step of between.length ? between : [event]) {
      const place = this.view.inMask(step);
      if (this.#act === "paint") {
        this.board.mask.stroke(this.#loop.at(-1), place, this.radius(step), this.#value);
        this.#loop = [place];
      } else this.#loop.push(place);
    }
    if (this.#act === "lasso") this.lasso(this.#loop);
  }

  #pinch(id, now) {
    const before = [...this.#points.values()];
    const after = [...this.#points].map(([other, place]) => (other === id ? now : place));
    const [was, is] = [middle(before), middle(after)];
    this.view.pan(is[0] - was[0], is[1] - was[1]);
    this.view.zoom(distance(after) / Math.max(1, distance(before)), is);
  }

  #up(event) {
    if (!this.#points.delete(event.pointerId)) return;
    if (event.pointerId === this.#pen) this.#pen = null;
    const act = this.#act;
    this.#act = this.#points.size ? "rest" : null;
    if (act !== "paint" && act !== "lasso") return;
    if (act === "lasso") {
      this.board.mask.polygon(this.#loop, this.#value);
      this.lasso([]);
    }
    if (this.board.mask.end()) this.board.edited();
  }

  #giveUp() {
    if (this.#act === "paint" || this.#act === "lasso") this.board.mask.cancel();
    this.lasso([]);
  }

  #wheel(event) {
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE : 1;
    const [x, y] = [event.deltaX * unit, event.deltaY * unit];
    if (this.view.isWhole && y > 0) return; // nothing to zoom out of: the page scrolls
    event.preventDefault();
    if (event.shiftKey) this.view.pan(-(x || y), 0);
    else this.view.zoom(Math.exp(-y * (event.ctrlKey ? PINCH : TURN)), this.view.inFrame(event));
  }
}

const middle = ([[x0, y0], [x1, y1]]) => [(x0 + x1) / 2, (y0 + y1) / 2];
const distance = ([[x0, y0], [x1, y1]]) => Math.hypot(x1 - x0, y1 - y0);
