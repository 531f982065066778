// The page: the photos, their settings, and what is done with them in which order.

import { chosenCamera, loadCameras, writeCamera } from "./cameras.js";
import { Compare } from "./compare.js";
import { writeFacts } from "./facts.js";
import { listenForFiles } from "./intake.js";
import { Reference } from "./reference.js";
import { Service } from "./socket.js";
import { entryOf, setState } from "./strip.js";
import { connectTabs, showTab } from "./tabs.js";
import { connectToolbar } from "./toolbar.js";
import { Webcam } from "./webcam.js";
import { Cancelled, Problem, number, percent, problemOf, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const SUFFIXES = { "image/jpeg": "jpg", "image/tiff": "tif" };
const RESTS_MS = 400; // a setting that was not moved for so long is meant
const HOPELESS = new Set(["malformed-picture", "unsupported-format", "picture-too-large", "body-too-large"]); // for one file

const service = new Service();
const compare = new Compare($("stage"));
const reference = new Reference(compare, () => ({ ...runOptions(), strength: strength() }));
const webcam = new Webcam(() => ({ ...runOptions(), strength: strength() }));

const photos = []; // {file, name, state, entry, progress, started, result, problem, reference, controller, views}
let current = null;
let working = false; // whether a photo is being enhanced
let shown = 0; // counts what was asked to be shown, so that the last one wins

// ---- settings

function strength() {
  return $("strength").valueAsNumber / 100;
}

/** What decides on the enhanced pixels; undefined means the service's default. */
function runOptions() {
  return { camera: chosenCamera(), overlap: $("overlap").value };
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
    photo.entry = entryOf(photo, () => select(photo));
    $("strip").append(photo.entry);
    setState(photo, "waiting");
  }
  showTab("photos");
  if (!current || current.state === "done" || photos.length === fresh.length) select(fresh[0]);
  refresh();
  runNext();
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
  writeFacts(current?.result, current?.file);
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

function say(text) {
  $("status").textContent = text;
}

connectToolbar(compare);
connectTabs((name) => {
  if (name !== "live") webcam.stop();
});
listenForFiles(take, (file) => {
  const may = current?.state === "done";
  if (may) reference.choose(file);
  return may;
});
addEventListener("pagehide", () => webcam.stop());
loadCameras();
service.warm();
