// Pictures and masks as files: what is read, what is written.

const SENT = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const INSIDE = 128; // brightness from which a pixel of a mask's file counts

// Looks at a picture's file: {file, url, width, height}, upright. `url` shows it and is to be revoked.
export async function openPicture(file, most) {
  if (file.size > most.bytes) throw new Error(`This file is larger than ${Math.floor(most.bytes / 2 ** 20)} MB`);
  const { url, image } = await shown(file);
  const { naturalWidth: width, naturalHeight: height } = image;
  const isLarge = width * height > most.pixels || Math.max(width, height) > most.side;
  if (!width || isLarge) {
    URL.revokeObjectURL(url);
    throw new Error(isLarge ? `This picture has ${width}×${height} pixels; ${most.pixels / 1e6} megapixels is the most` : "This picture has no size");
  }
  return { file: SENT.includes(file.type) ? file : await redrawn(image, file), url, width, height };
}

// Reads a mask's file into bits of the given shape.
export async function readMask(file, width, height) {
  const { url, image } = await shown(file);
  const canvas = new OffscreenCanvas(width, height);
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.imageSmoothingEnabled = image.naturalWidth > width; // a smaller one keeps its edges
  brush.fillRect(0, 0, width, height);
  brush.drawImage(image, 0, 0, width, height);
  URL.revokeObjectURL(url);
  const { data } = brush.getImageData(0, 0, width, height);
  const bits = new Uint8Array(width * height);
  for (let place = 0; place < bits.length; place++) {
    const from = place * 4;
    bits[place] = (data[from] * 299 + data[from + 1] * 587 + data[from + 2] * 114) / 1000 >= INSIDE ? 1 : 0;
  }
  return { bits, width: image.naturalWidth, height: image.naturalHeight };
}

// Writes bits as a PNG of one bit a pixel, white where they are set, of another size where one is given.
export function writeMask({ bits, width, height }, across = width, down = height) {
  const line = Math.ceil(across / 8) + 1; // each begins with its filter, which is none
  const packed = new Uint8Array(line * down);
  const columns = Uint32Array.from({ length: across }, (_, x) => Math.floor(((x + 0.5) * width) / across));
  for (let y = 0; y < down; y++) {
    const from = Math.floor(((y + 0.5) * height) / down) * width;
    for (let x = 0; x < across; x++) if (bits[from + columns[x]]) packed[y * line + 1 + (x >> 3)] |= 128 >> (x & 7);
  }
  return pngOf(packed, across, down);
}

async function pngOf(packed, width, height) {
  const squeezed = new Blob([packed]).stream().pipeThrough(new CompressionStream("deflate"));
  const content = new Uint8Array(await new Response(squeezed).arrayBuffer());
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, 1); // one bit a pixel, grey, no filters of its own, not interlaced
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const chunks = [chunk("IHDR", new Uint8Array(head.buffer)), chunk("IDAT", content), chunk("IEND", new Uint8Array())];
  return new Blob([signature, ...chunks], { type: "image/png" });
}

function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, checksum(bytes.subarray(4, content.length + 8)));
  return bytes;
}

const CHECKS = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let step = 0; step < 8; step++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function checksum(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CHECKS[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

async function shown(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(url);
    throw new Error("This browser cannot show that file as a picture");
  }
  return { url, image };
}

// A picture of a kind that only the browser reads is sent as a PNG.
async function redrawn(image, { name }) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new File([await canvas.convertToBlob()], `${name ?? "picture"}.png`, { type: "image/png" });
}
