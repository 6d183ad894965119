// The mask: one bit a pixel, what is done to it, and the way back. Knows nothing of the page.
//
// A change is kept as what it flipped, eight pixels a byte, so that the same patch undoes and redoes it.

const KEPT_BYTES = 24 * 2 ** 20; // of all patches together

export class Mask {
  share = 0; // of the pixels that are painted
  #before = null; // the bits when the change that goes on began
  #box = null; // what that change touched: [left, top, right, bottom), in pixels
  #done = [];
  #undone = [];

  // `changed(box)` is told what to draw anew.
  constructor(width, height, changed) {
    this.width = width;
    this.height = height;
    this.bits = new Uint8Array(width * height);
    this.changed = changed;
  }

  get isEmpty() {
    return this.share === 0;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  begin() {
    this.#before = this.bits.slice();
    this.#box = null;
  }

  // Ends a change; says whether it was one.
  end() {
    const patch = this.#box && this.#flipped();
    this.#before = null;
    if (!patch) return false;
    this.#undone = [];
    this.#done.push(patch);
    let kept = this.#done.reduce((sum, { flips }) => sum + flips.length, 0);
    while (kept > KEPT_BYTES && this.#done.length > 1) kept -= this.#done.shift().flips.length;
    this.#count();
    return true;
  }

  // Gives up the change that goes on.
  cancel() {
    if (!this.#before) return;
    this.bits = this.#before;
    this.#before = null;
    if (this.#box) this.changed(this.#box);
  }

  undo() {
    return this.#flip(this.#done, this.#undone);
  }

  redo() {
    return this.#flip(this.#undone, this.#done);
  }

  // A piece of a stroke: all pixels whose middle is within `radius` of the line between two points.
  stroke(from, to, radius, value) {
    const [[x0, y0], [x1, y1]] = [from, to];
    const length = Math.hypot(x1 - x0, y1 - y0);
    const [nx, ny] = length ? [(-(y1 - y0) / length) * radius, ((x1 - x0) / length) * radius] : [0, 0];
    const corners = [[x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny]];
    const [top, bottom] = this.#rows(Math.min(y0, y1) - radius, Math.max(y0, y1) + radius);
    let [least, most] = [this.width, 0];
    for (let row = top; row < bottom; row++) {
      const y = row + 0.5;
      let [left, right] = [Infinity, -Infinity];
      const reach = (x) => {
        left = Math.min(left, x);
        right = Math.max(right, x);
      };
      for (const [cx, cy] of [from, to]) {
        const half = Math.sqrt(radius * radius - (y - cy) * (y - cy));
        if (half >= 0) (reach(cx - half), reach(cx + half));
      }
      if (length) for (const x of crossings(corners, y)) reach(x.at);
      const first = Math.max(0, Math.ceil(left - 0.5));
      const end = Math.min(this.width, Math.floor(right - 0.5) + 1);
      if (end <= first) continue;
      this.bits.fill(value, row * this.width + first, row * this.width + end);
      least = Math.min(least, first);
      most = Math.max(most, end);
    }
    this.#touch(least, top, most, bottom);
  }

  // All pixels whose middle a closed line winds around.
  polygon(points, value) {
    const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
    const [low, high] = extent(ys);
    const [top, bottom] = this.#rows(low, high);
    for (let row = top; row < bottom; row++) {
      const met = crossings(points, row + 0.5).sort((a, b) => a.at - b.at);
      for (let index = 0, winding = 0; index < met.length - 1; index++) {
        winding += met[index].way;
        if (!winding) continue;
        const first = Math.max(0, Math.ceil(met[index].at - 0.5));
        const end = Math.min(this.width, Math.floor(met[index + 1].at - 0.5) + 1);
        if (end > first) this.bits.fill(value, row * this.width + first, row * this.width + end);
      }
    }
    const [left, right] = extent(xs);
    this.#touch(Math.max(0, Math.floor(left)), top, Math.min(this.width, Math.ceil(right)), bottom);
  }

  // Everything that is reached from a pixel without leaving what is as it is.
  flood(x, y, value) {
    const { bits, width, height } = this;
    const isOpen = (place) => bits[place] !== value;
    const box = [width, height, 0, 0];
    const waiting = [Math.floor(y) * width + Math.floor(x)];
    while (waiting.length) {
      const seed = waiting.pop();
      if (!isOpen(seed)) continue;
      const start = seed - (seed % width);
      let [first, end] = [seed, seed + 1];
      while (first > start && isOpen(first - 1)) first--;
      while (end < start + width && isOpen(end)) end++;
      bits.fill(value, first, end);
      const row = start / width;
      box[0] = Math.min(box[0], first - start);
      box[1] = Math.min(box[1], row);
      box[2] = Math.max(box[2], end - start);
      box[3] = Math.max(box[3], row + 1);
      for (const next of [row - 1, row + 1]) {
        if (next < 0 || next >= height) continue;
        const shift = (next - row) * width;
        for (let place = first + shift; place < end + shift; place++) {
          if (isOpen(place) && (place === first + shift || !isOpen(place - 1))) waiting.push(place);
        }
      }
    }
    this.#touch(...box);
  }

  invert() {
    for (let place = 0; place < this.bits.length; place++) this.bits[place] ^= 1;
    this.#touch(0, 0, this.width, this.height);
  }

  // Takes over other bits, of this mask's shape; none clears it.
  replace(bits) {
    if (bits) this.bits.set(bits);
    else this.bits.fill(0);
    this.#touch(0, 0, this.width, this.height);
  }

  #rows(low, high) {
    return [Math.max(0, Math.ceil(low - 0.5)), Math.min(this.height, Math.floor(high - 0.5) + 1)];
  }

  #touch(left, top, right, bottom) {
    if (right <= left || bottom <= top) return;
    const old = this.#box ?? [left, top, right, bottom];
    this.#box = [Math.min(old[0], left), Math.min(old[1], top), Math.max(old[2], right), Math.max(old[3], bottom)];
    this.changed([left, top, right, bottom]);
  }

  #flipped() {
    const [left, top, right, bottom] = this.#box;
    const flips = new Uint8Array(Math.ceil(((right - left) * (bottom - top)) / 8));
    let [bit, any] = [0, 0];
    for (let row = top; row < bottom; row++) {
      for (let place = row * this.width + left; place < row * this.width + right; place++, bit++) {
        const flip = this.bits[place] ^ this.#before[place];
        flips[bit >> 3] |= flip << (bit & 7);
        any |= flip;
      }
    }
    return any ? { box: this.#box, flips } : null;
  }

  #flip(from, to) {
    const patch = from.pop();
    if (!patch) return false;
    to.push(patch);
    const [left, top, right, bottom] = patch.box;
    let bit = 0;
    for (let row = top; row < bottom; row++) {
      for (let place = row * this.width + left; place < row * this.width + right; place++, bit++) {
        this.bits[place] ^= (patch.flips[bit >> 3] >> (bit & 7)) & 1;
      }
    }
    this.#count();
    this.changed(patch.box);
    return true;
  }

  #count() {
    let painted = 0;
    for (const bit of this.bits) painted += bit;
    this.share = painted / this.bits.length;
  }
}

// Where a closed line meets a row, and whether it goes down (1) or up (-1) there.
function crossings(points, y) {
  const met = [];
  for (let index = 0; index < points.length; index++) {
    const [x0, y0] = points[index];
    const [x1, y1] = points[(index + 1) % points.length];
    if (y0 <= y === y1 <= y) continue;
    met.push({ at: x0 + ((y - y0) / (y1 - y0)) * (x1 - x0), way: y0 < y1 ? 1 : -1 });
  }
  return met;
}

function extent(numbers) {
  return numbers.reduce(([low, high], it) => [Math.min(low, it), Math.max(high, it)], [Infinity, -Infinity]);
}
