// Zoom and pan: where the picture lies in its frame. All places are in CSS pixels of the frame, or in pixels of the mask.

const CLOSEST = 24; // CSS pixels that a pixel of the mask may take
const EASE = 1.01; // nearer to the whole picture than this is the whole picture

export class View {
  scale = 1; // CSS pixels a pixel of the mask
  left = 0;
  top = 0;
  #whole = true; // the picture fits the frame, and shall do so when the frame changes

  // `moved()` is called whenever the picture lies otherwise.
  constructor(frame, moved) {
    this.frame = frame;
    this.moved = moved;
    this.width = this.height = 1;
    new ResizeObserver(() => this.#whole ? this.fit() : this.#settle()).observe(frame);
  }

  get isWhole() {
    return this.#whole;
  }

  get #fitting() {
    const { clientWidth, clientHeight } = this.frame;
    return Math.min(clientWidth / this.width, clientHeight / this.height);
  }

  show(width, height) {
    [this.width, this.height] = [width, height];
    this.fit();
  }

  fit() {
    this.scale = this.#fitting || 1;
    this.#settle();
  }

  // Zooms so that the place under a point of the frame stays there.
  zoom(factor, [x, y] = this.#middle()) {
    const scale = Math.min(Math.max(CLOSEST, this.#fitting), Math.max(this.#fitting, this.scale * factor));
    this.left = x - ((x - this.left) / this.scale) * scale;
    this.top = y - ((y - this.top) / this.scale) * scale;
    this.scale = scale;
    this.#settle();
  }

  pan(byX, byY) {
    this.left += byX;
    this.top += byY;
    this.#settle();
  }

  // From a place on the screen to one of the frame.
  inFrame({ clientX, clientY }) {
    const { left, top } = this.frame.getBoundingClientRect();
    return [clientX - left - this.frame.clientLeft, clientY - top - this.frame.clientTop];
  }

  // From a place on the screen to one of the mask.
  inMask(place) {
    const [x, y] = this.inFrame(place);
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  #middle() {
    return [this.frame.clientWidth / 2, this.frame.clientHeight / 2];
  }

  #settle() {
    if (!this.frame.clientWidth) return; // out of sight
    this.#whole = this.scale <= this.#fitting * EASE;
    this.left = held(this.left, this.width * this.scale, this.frame.clientWidth);
    this.top = held(this.top, this.height * this.scale, this.frame.clientHeight);
    this.moved();
  }
}

// Keeps what is larger than its frame without gaps, and what is smaller in the middle.
const held = (start, length, frame) =>
  length <= frame ? (frame - length) / 2 : Math.min(0, Math.max(frame - length, start));
