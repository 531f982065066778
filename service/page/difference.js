// Maps of how far pictures are from a reference: distance in colour levels, as colours from dark to light.

const TOP = 48; // levels, of 255, from which on a map is at its lightest
const MOST_PIXELS = 3e6; // a map needs no more to be looked at
const STOPS = [[14, 11, 40], [66, 18, 104], [140, 41, 98], [205, 68, 70], [243, 126, 33], [250, 198, 66], [252, 253, 191]];

function colours() {
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (STOPS.length - 1);
    const k = Math.min(Math.floor(place), STOPS.length - 2);
    for (let c = 0; c < 3; c++) table[i * 3 + c] = STOPS[k][c] + (place - k) * (STOPS[k + 1][c] - STOPS[k][c]);
  }
  return table;
}
const TABLE = colours();

/** Draw the scale of the colours on a canvas of 256x1. */
export function drawLegend(canvas) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...TABLE.subarray(i * 3, i * 3 + 3), 255], i * 4);
  context.putImageData(image, 0, 0);
}

function pixels(draw, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  draw(context);
  return context.getImageData(0, 0, width, height).data;
}

/**
 * Draw a map of the root mean square distance over the three channels.
 *
 * @param {HTMLCanvasElement} canvas gets the map; transparent where the reference shows nothing
 * @param {HTMLImageElement[]} layers what lies on each other, first to last
 * @param {number} opacity of the last layer
 * @param {ImageBitmap} reference
 * @param {{left: number, top: number, width: number, height: number}} place of the reference, in the picture's pixels
 */
export function drawMap(canvas, layers, opacity, reference, place) {
  const full = { width: layers[0].naturalWidth, height: layers[0].naturalHeight };
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (full.width * full.height)));
  const width = Math.max(1, Math.round(full.width * shrink));
  const height = Math.max(1, Math.round(full.height * shrink));
  const shown = pixels((context) => {
    for (const [i, layer] of layers.entries()) {
      context.globalAlpha = i && i === layers.length - 1 ? opacity : 1;
      context.drawImage(layer, 0, 0, width, height);
    }
  }, width, height);
  const wanted = pixels((context) => {
    const [x, y] = [place.left * shrink, place.top * shrink];
    context.drawImage(reference, x, y, place.width * shrink, place.height * shrink);
  }, width, height);
  const map = new ImageData(width, height);
  for (let i = 0; i < shown.length; i += 4) {
    if (!wanted[i + 3]) continue;
    const [r, g, b] = [shown[i] - wanted[i], shown[i + 1] - wanted[i + 1], shown[i + 2] - wanted[i + 2]];
    const at = Math.min(255, Math.round((Math.sqrt((r * r + g * g + b * b) / 3) / TOP) * 255)) * 3;
    map.data[i] = TABLE[at];
    map.data[i + 1] = TABLE[at + 1];
    map.data[i + 2] = TABLE[at + 2];
    map.data[i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(map, 0, 0);
}
