// The page: the photos, their settings, and what is done with them in which order.

import { Compare } from "./compare.js";
import { Reference } from "./reference.js";
import { Service, urlOf } from "./socket.js";
import { Webcam } from "./webcam.js";
import { Cancelled, Problem, bytes, number, percent, problemOf, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const THUMB = { width: 168, height: 128 };
const SUFFIXES = { "image/jpeg": "jpg", "image/tiff": "tif" };
const RESTS_MS = 400; // a setting that was not moved for so long is meant
const HOPELESS = new Set(["malformed-picture", "unsupported-format", "picture-too-large", "body-too-large"]); // for one file
const STATES = { waiting: "waiting", running: "…", done: "done", failed: "failed", cancelled: "cancelled" };

const service = new Service();
const compare = new Compare($("stage"));
const reference = new Reference(compare, () => ({ ...runOptions(), strength: strength() }));
const webcam = new Webcam(() => ({ ...runOptions(), strength: strength() }));

const photos = []; // {file, name, state, entry, progress, started, result, problem, reference, controller, views}
let current = null;
let working = false; // whether a photo is being enhanced
let shown = 0; // counts what was asked to be shown, so that the last one wins

// ---- settings

let cameras = []; // as GET /cameras lists them

function strength() {
  return $("strength").valueAsNumber / 100;
}

/** What decides on the enhanced pixels; undefined means the service's default. */
function runOptions() {
  const chosen = $("camera").value;
  const isDefault = cameras.some((camera) => camera.default && camera.name === chosen);
  return { camera: isDefault || !chosen ? undefined : chosen, overlap: $("overlap").value };
}

function fileOptions() {
  return { format: $("format").value || undefined, metadata: $("strip-metadata").checked ? "strip" : "keep" };
}

function keyOf(options) {
  return JSON.stringify(options);
}

function rested(act) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, RESTS_MS);
  };
}

const measureAgain = rested(() => reference.measure());

$("live-strength").oninput = () => {
  $("strength").value = $("live-strength").value;
  $("strength").oninput();
};

$("strength").oninput = () => {
  $("live-strength").value = $("strength").value;
  $("strength-out").textContent = percent(strength());
  compare.strength = strength();
  reference.strengthMoved();
  if (current?.reference) measureAgain();
  writeDownload();
};

for (const id of ["camera", "overlap"]) {
  $(id).onchange = () => {
    writeCamera();
    for (const photo of photos) {
      const same = photo.result?.run === keyOf(runOptions());
      if (photo.state === "running") photo.controller.abort("again");
      else if (photo.state === "done" && !same) setState(photo, "waiting");
    }
    refresh();
    runNext();
  };
}

for (const id of ["format", "strip-metadata"]) $(id).onchange = () => writeDownload();

async function loadCameras() {
  const response = await fetch(urlOf("cameras")).catch(() => null);
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

function label(camera) {
  return { iphone: "iPhone", blackberry: "BlackBerry", sony: "Sony" }[camera] ?? camera;
}

function writeCamera() {
  const camera = cameras.find(({ name }) => name === $("camera").value);
  $("camera-note").textContent = camera ? `Trained on ${camera.trained_on.split(";")[0]}.` : "";
}

service.onLimits = ({ formats, max_bytes, max_pixels }) => {
  $("limits").textContent = `Up to ${number(Math.floor(max_pixels / 1e6))} megapixels and ${number(Math.floor(max_bytes / 1e6))} MB each.`;
  const before = $("format").value;
  const names = { jpeg: "JPEG", png: "PNG", webp: "WebP", tiff: "TIFF", avif: "AVIF", heic: "HEIC", heif: "HEIF", bmp: "BMP" };
  $("format").replaceChildren(new Option("As it came", ""), ...formats.map((name) => new Option(names[name] ?? name, name)));
  $("format").value = before;
};

// ---- taking photos in

function take(files) {
  const fresh = [...files].filter((file) => file.size || file.type).map((file) => ({
    file, name: file.name || "pasted", state: "waiting", progress: null, result: null, reference: null, problem: null, views: {},
  }));
  if (!fresh.length) return;
  for (const photo of fresh) {
    photos.push(photo);
    photo.entry = entryOf(photo);
    $("strip").append(photo.entry);
    setState(photo, "waiting");
  }
  showTab("photos");
  if (!current || current.state === "done" || photos.length === fresh.length) select(fresh[0]);
  refresh();
  runNext();
}

function entryOf(photo) {
  const entry = document.createElement("li");
  const button = document.createElement("button");
  const canvas = document.createElement("canvas");
  const state = document.createElement("span");
  state.className = "state";
  canvas.setAttribute("aria-hidden", "true");
  Object.assign(canvas, THUMB);
  button.append(canvas, state);
  button.title = photo.name;
  button.onclick = () => select(photo);
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

function setState(photo, state) {
  photo.state = state;
  const button = photo.entry.firstChild;
  button.dataset.state = state;
  const share = photo.progress?.total ? percent(photo.progress.done / photo.progress.total) : STATES.running;
  button.querySelector(".state").textContent = state === "running" ? share : STATES[state];
  button.setAttribute("aria-label", `${photo.name}, ${state === "running" ? "being enhanced" : STATES[state]}`);
}

// ---- enhancing

async function runNext() {
  if (working) return;
  const next = current?.state === "waiting" ? current : photos.find(({ state }) => state === "waiting");
  if (!next) return;
  working = true;
  try {
    await run(next);
  } finally {
    working = false;
    runNext();
  }
}

async function run(photo) {
  const controller = (photo.controller = new AbortController());
  const run_ = keyOf(runOptions());
  const file = keyOf(fileOptions());
  photo.problem = null;
  photo.progress = null;
  photo.started = performance.now();
  setState(photo, "running");
  refresh();
  say(`Enhancing ${photo.name}`);
  try {
    const { blob, facts } = await service.enhance(
      photo.file,
      { ...runOptions(), ...fileOptions(), seam_index: $("details").open },
      {
        signal: controller.signal,
        onProgress: (done, total) => {
          photo.progress = { done, total };
          photo.waits = null;
          setState(photo, "running");
          writeWorking();
        },
        onWait: (problem) => {
          photo.waits = problem;
          writeWorking();
        },
      },
    );
    if (photo.views.after) URL.revokeObjectURL(photo.views.after);
    photo.views = { before: photo.views.before };
    photo.result = { blob, facts, run: run_, file };
    setState(photo, "done");
    say(`${photo.name} is enhanced`);
  } catch (error) {
    photo.waits = null;
    if (!(error instanceof Cancelled)) {
      photo.problem = problemOf(error);
      setState(photo, "failed");
    } else if (controller.signal.reason === "again") {
      setState(photo, "waiting");
    } else {
      setState(photo, photo.result ? "done" : "cancelled");
      say(`${photo.name} was cancelled`);
    }
  }
  // the settings may have changed since it was sent
  if (photo.state === "done" && photo.result.run !== keyOf(runOptions()) && !controller.signal.aborted) setState(photo, "waiting");
  if (photo === current) await showCurrent();
  refresh();
}

$("cancel").onclick = () => {
  current?.controller?.abort();
  $("stage").focus();
};
$("retry").onclick = () => {
  if (!current) return;
  current.problem = null;
  setState(current, "waiting");
  refresh();
  $("stage").focus();
  runNext();
};
$("remove").onclick = $("remove-current").onclick = () => {
  const at = photos.indexOf(current);
  if (at < 0) return;
  current.controller?.abort();
  photos.splice(at, 1);
  current.entry.remove();
  for (const url of Object.values(current.views)) URL.revokeObjectURL(url);
  select(photos[Math.min(at, photos.length - 1)] ?? null);
  (current ? current.entry.firstChild : $("choose")).focus();
};

// ---- showing

function select(photo) {
  if (photo !== current) {
    current = photo;
    for (const each of photos) {
      if (each === photo) each.entry.firstChild.setAttribute("aria-current", "true");
      else each.entry.firstChild.removeAttribute("aria-current");
    }
    compare.clear();
    photo?.entry.scrollIntoView({ block: "nearest", inline: "nearest" });
    showCurrent();
  }
  refresh();
}

/** A URL under which the browser can show a picture: its own, or else one that the service makes. */
async function viewOf(photo, which) {
  if (photo.views[which]) return photo.views[which];
  let blob = which === "before" ? photo.file : photo.result.blob;
  const readable = await createImageBitmap(blob, { resizeWidth: 1, resizeHeight: 1 }).then((b) => (b.close(), true), () => false);
  if (!readable) {
    const options = { ...runOptions(), format: "jpeg", strength: which === "before" ? 0 : 1 };
    ({ blob } = await service.enhance(photo.file, options));
  }
  photo.views[which] = URL.createObjectURL(blob);
  return photo.views[which];
}

async function showCurrent() {
  const photo = current;
  const ticket = ++shown;
  if (!photo) return;
  const done = Boolean(photo.result);
  if (!done) {
    // at once, where the browser can read it; else the picture comes with its result
    const url = (photo.views.before ??= URL.createObjectURL(photo.file));
    try {
      await compare.show(url, null, { keepView: true });
    } catch {
      URL.revokeObjectURL(url);
      delete photo.views.before;
    }
    if (ticket !== shown) return;
  } else {
    try {
      const [before, after] = [await viewOf(photo, "before"), await viewOf(photo, "after")];
      if (ticket !== shown) return;
      await compare.show(before, after, { keepView: true });
      compare.strength = strength();
    } catch (error) {
      if (ticket !== shown) return;
      photo.problem = error instanceof Problem ? error
        : new Problem("This browser can't show the photo", "It is enhanced all the same: download it.");
    }
  }
  if (ticket === shown) refresh();
  reference.turnTo(photo);
}

/** Bring everything but the pictures up to date. */
function refresh() {
  $("empty").hidden = Boolean(current);
  $("add").hidden = $("remove-current").hidden = !photos.length;
  const problem = current?.problem;
  const failure = problem && current.state !== "running";
  $("failure").hidden = !failure && current?.state !== "cancelled";
  $("failure-title").textContent = failure ? problem.title : "Cancelled";
  $("failure-detail").textContent = failure ? problem.detail : "The photo is still here.";
  $("failure-id").textContent = [current?.name, failure && problem.id && `request ${problem.id}`].filter(Boolean).join(", ");
  $("retry").hidden = failure && HOPELESS.has(problem.type);
  const done = Boolean(current?.result);
  for (const id of ["zoom-in", "zoom-out", "zoom-fit", "zoom-full", "full-screen"]) {
    $(id).disabled = !$("stage").classList.contains("loaded");
  }
  $("peek").disabled = !done;
  $("choose-reference").disabled = current?.state !== "done";
  $("measure").disabled = current?.state !== "done" || current.result.facts.seam_index !== undefined;
  if (current?.state !== "done") reference.turnTo(current);
  writeWorking();
  writeDownload();
  writeFacts();
}

function writeWorking() {
  const busy = current?.state === "running" || current?.state === "waiting";
  $("working").hidden = !busy;
  if (!busy) return;
  const { progress, waits, started, state } = current;
  let text = state === "waiting" ? "Waits for its turn" : "Sending…";
  if (state === "running" && waits) text = `${waits.title}: trying again in ${seconds(waits.retryAfter)}`;
  else if (state === "running" && progress?.total) {
    const spent = (performance.now() - started) / 1000;
    const left = (spent / progress.done) * (progress.total - progress.done);
    text = `${number(progress.done)} of ${number(progress.total)} tiles`;
    if (progress.done && spent > 1 && left >= 1) text += `, ${number(Math.ceil(left))} s left`;
    if (progress.done === progress.total) text = "Finishing…";
  } else if (state === "running" && progress) text = "Enhancing…";
  $("working-text").textContent = text;
  if (progress?.total) $("progress").value = progress.done / progress.total;
  else $("progress").removeAttribute("value");
  $("cancel").hidden = state !== "running";
}

function writeFacts() {
  const rows = [];
  if (current?.result) {
    const { facts, blob } = current.result;
    const { width, height } = facts;
    const names = { decode: "Decoding", queue: "Waiting for the device", inference: "Generator", blend: "Blending", quality: "Measuring", encode: "Encoding", total: "In all, on the server" };
    if (width) rows.push(["Size", `${width}\u202f×\u202f${height}`]);
    rows.push(["Tiles", number(facts.tiles)], ["Camera", label(facts.camera)], ["Device", facts.device === "cuda" ? "GPU" : "CPU"]);
    rows.push(["Sent", bytes(current.file.size)], ["Received", bytes(blob.size)]);
    for (const [name, value] of Object.entries(facts.timings)) rows.push([names[name] ?? name, seconds(value)]);
    rows.push(["Until it was here", seconds(facts.round_trip)]);
    if (facts.seam_index !== undefined) {
      rows.push(["Seam index", facts.seam_index === null ? "one tile, no seams" : number(facts.seam_index, 3)]);
    }
  }
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

$("measure").onclick = () => {
  // the service keeps no photo, so it has to see it again
  setState(current, "waiting");
  refresh();
  runNext();
};

// ---- saving

/** The file to save: as it was answered, or asked for again where strength, format or metadata differ by now. */
async function fileFor(photo, onProgress) {
  const options = { ...fileOptions(), strength: strength() };
  const key = keyOf(options);
  if (strength() === 1 && photo.result.file === keyOf(fileOptions())) return photo.result.blob;
  if (photo.saved?.key === key && photo.saved.run === photo.result.run) return photo.saved.blob;
  const { blob } = await service.enhance(photo.file, { ...runOptions(), ...options }, { onProgress });
  photo.saved = { key, run: photo.result.run, blob };
  return blob;
}

async function save(photo) {
  const button = $("download");
  try {
    const blob = await fileFor(photo, (done, total) => {
      button.textContent = total ? `Preparing ${percent(done / total)}` : "Preparing…";
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const suffix = SUFFIXES[blob.type] ?? blob.type.split("/")[1] ?? "jpg";
    link.download = `${photo.name.replace(/\.\w{1,5}$/, "")}-enhanced.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    return true;
  } catch (error) {
    const { title, detail } = problemOf(error);
    $("download-note").textContent = `${photo.name}: ${title}. ${detail}`;
    return false;
  } finally {
    button.textContent = "Download";
  }
}

let saving = false;

async function saveEach(list) {
  saving = true;
  $("download-note").textContent = "";
  writeDownload();
  for (const photo of list) await save(photo);
  saving = false;
  writeDownload();
}

function writeDownload() {
  const done = photos.filter(({ result }) => result);
  $("download").disabled = saving || !current?.result || current.state === "running";
  $("download-all").hidden = done.length < 2;
  $("download-all").disabled = saving;
  $("download-all").textContent = `Download all ${number(done.length)}`;
}

$("download").onclick = () => saveEach([current]);
$("download-all").onclick = () => saveEach(photos.filter(({ result }) => result));

// ---- stage and toolbar

compare.onZoom = (share, fitted) => {
  $("zoom").textContent = share === null ? "–" : percent(share);
  $("zoom-fit").setAttribute("aria-pressed", String(fitted));
  $("zoom-full").setAttribute("aria-pressed", String(share === 1));
};
compare.onPeek = (on) => $("peek").setAttribute("aria-pressed", String(on));
$("zoom-in").onclick = () => compare.zoomBy(1.5);
$("zoom-out").onclick = () => compare.zoomBy(1 / 1.5);
$("zoom-fit").onclick = () => compare.fit();
$("zoom-full").onclick = () => compare.full();
$("peek").onpointerdown = () => compare.peek(true);
for (const end of ["pointerup", "pointerleave", "pointercancel"]) $("peek").addEventListener(end, () => compare.peek(false));
$("peek").onkeydown = ({ key, repeat }) => {
  if (!repeat && (key === "Enter" || key === " ")) compare.peek($("peek").getAttribute("aria-pressed") === "false");
};
$("full-screen").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen());
$("full-screen").hidden = !document.fullscreenEnabled;

// ---- choosing, dropping, pasting

$("choose").onclick = $("add").onclick = () => $("files").click();
$("files").onchange = ({ target }) => {
  take(target.files);
  target.value = "";
};

let inside = 0; // elements of the page that a drag has entered and not left
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  inside++;
  $("veil").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (carriesFiles(event) && --inside <= 0) $("veil").hidden = true;
});
addEventListener("dragover", (event) => {
  if (carriesFiles(event)) event.preventDefault();
});
addEventListener("drop", (event) => {
  inside = 0;
  $("veil").hidden = true;
  if (!carriesFiles(event)) return;
  event.preventDefault();
  if (event.target.closest("#reference-box") && current?.state === "done") reference.choose(event.dataTransfer.files[0]);
  else take(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    take(files);
  }
});

// ---- tabs

const TABS = ["photos", "live"];

function showTab(name) {
  for (const each of TABS) {
    const chosen = each === name;
    $(`tab-${each}`).setAttribute("aria-selected", String(chosen));
    $(`tab-${each}`).tabIndex = chosen ? 0 : -1;
    $(each).hidden = !chosen;
  }
  if (name !== "live") webcam.stop();
}

for (const name of TABS) {
  $(`tab-${name}`).onclick = () => showTab(name);
  $(`tab-${name}`).onkeydown = ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!step) return;
    const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length];
    showTab(next);
    $(`tab-${next}`).focus();
  };
}

function say(text) {
  $("status").textContent = text;
}

addEventListener("pagehide", () => webcam.stop());
loadCameras();
service.warm();
