// Reads PNGs as the simulated backends write them (8 bits a channel, no interlace), and makes some.

import { deflateSync, inflateSync } from "node:zlib";

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

/** A picture of one colour, `0xRRGGBB`. */
export function encodePng(width, height, color) {
  const row = Buffer.alloc(1 + width * 3);
  for (let x = 0; x < width; x += 1) row.writeUIntBE(color, 1 + x * 3, 3);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2], 8);
  const pixels = deflateSync(Buffer.concat(Array(height).fill(row)));
  const parts = [["IHDR", header], ["IDAT", pixels], ["IEND", Buffer.alloc(0)]];
  return Buffer.concat([Buffer.from(SIGNATURE, "hex"), ...parts.map((part) => chunk(...part))]);
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc(body), body.length + 4);
  return out;
}

function crc(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit += 1) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  }
  return ~rest >>> 0;
}
