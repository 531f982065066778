// The strip of photos: thumbnails and how far each is.

import { percent } from "./words.js";

const THUMB = { width: 168, height: 128 };
const STATES = { waiting: "waiting", running: "…", done: "done", failed: "failed", cancelled: "cancelled" };

/** Make the entry of a photo; `onChoose()` is called when it is clicked. */
export function entryOf(photo, onChoose) {
  const entry = document.createElement("li");
  const button = document.createElement("button");
  const canvas = document.createElement("canvas");
  const state = document.createElement("span");
  state.className = "state";
  canvas.setAttribute("aria-hidden", "true");
  Object.assign(canvas, THUMB);
  button.append(canvas, state);
  button.title = photo.name;
  button.onclick = onChoose;
  entry.append(button);
  drawThumb(photo.file, canvas);
  return entry;
}

async function drawThumb(file, canvas) {
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: THUMB.width * 2, resizeQuality: "medium" });
    const scale = Math.max(THUMB.width / bitmap.width, THUMB.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    canvas.getContext("2d").drawImage(bitmap, (THUMB.width - width) / 2, (THUMB.height - height) / 2, width, height);
    bitmap.close();
  } catch {
    // what the browser can't read the service may; the thumbnail stays empty
  }
}

/** Give a photo another state, and say so in its entry. */
export function setState(photo, state) {
  photo.state = state;
  const button = photo.entry.firstChild;
  button.dataset.state = state;
  const share = photo.progress?.total ? percent(photo.progress.done / photo.progress.total) : STATES.running;
  button.querySelector(".state").textContent = state === "running" ? share : STATES[state];
  button.setAttribute("aria-label", `${photo.name}, ${state === "running" ? "being enhanced" : STATES[state]}`);
}
