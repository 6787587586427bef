// Reads the pixels of a PNG as the simulated backends write it: 8 bits a channel, no interlace.

import { inflateSync } from "node:zlib";

const SIGNATURE = "89504e470d0a1a0a";
/** Channels by colour type: grey, RGB, grey and alpha, RGBA. */
const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };

/** Returns `{ width, height, pixel(x, y) }`; a pixel is the array of its channels. */
export function decodePng(bytes) {
  const data = Buffer.from(bytes);
  if (data.subarray(0, 8).toString("hex") !== SIGNATURE) throw new Error("this is not a PNG");
  const [header, ...packed] = chunks(data);
  const width = header.readUInt32BE(0);
  const height = header.readUInt32BE(4);
  const channels = CHANNELS[header[9]];
  if (header[8] !== 8 || !channels || header[12]) throw new Error("this kind of PNG is not read");
  const pixels = unfilter(inflateSync(Buffer.concat(packed)), width * channels, height, channels);
  const pixel = (x, y) => [...pixels.subarray((y * width + x) * channels).subarray(0, channels)];
  return { width, height, pixel };
}

/** The header, then the data chunks. */
function chunks(data) {
  const found = [];
  for (let at = 8; at + 8 <= data.length;) {
    const length = data.readUInt32BE(at);
    const type = data.toString("latin1", at + 4, at + 8);
    if (type === "IHDR" || type === "IDAT") found.push(data.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return found;
}

function unfilter(raw, stride, height, step) {
  const out = Buffer.alloc(stride * height);
  for (let row = 0; row < height; row += 1) {
    const filter = raw[row * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const at = row * stride + x;
      const left = x >= step ? out[at - step] : 0;
      const up = row ? out[at - stride] : 0;
      const corner = row && x >= step ? out[at - stride - step] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      out[at] = raw[row * (stride + 1) + 1 + x] + guess;
    }
  }
  return out;
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(guess - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}
