// Which cameras there are generators for, and which is chosen.

import { fetchWithKey } from "./socket.js";

const $ = (id) => document.getElementById(id);
let cameras = []; // as GET /cameras lists them

export async function loadCameras() {
  const response = await fetchWithKey("cameras").catch(() => null);
  if (!response?.ok) {
    setTimeout(loadCameras, 1500); // it is starting, or away
    return;
  }
  ({ cameras } = await response.json());
  const before = $("camera").value;
  $("camera").replaceChildren(...cameras.map(({ name, default: chosen }) => new Option(label(name), name, chosen, chosen)));
  if (before) $("camera").value = before;
  writeCamera();
}

export function label(camera) {
  return { iphone: "iPhone", blackberry: "BlackBerry", sony: "Sony" }[camera] ?? camera;
}

export function writeCamera() {
  const camera = cameras.find(({ name }) => name === $("camera").value);
  $("camera-note").textContent = camera ? `Trained on ${camera.trained_on.split(";")[0]}.` : "";
}

/** The camera that is chosen; undefined where it is the service's default. */
export function chosenCamera() {
  const chosen = $("camera").value;
  const isDefault = cameras.some((camera) => camera.default && camera.name === chosen);
  return isDefault || !chosen ? undefined : chosen;
}
