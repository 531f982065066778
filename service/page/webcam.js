// The webcam through WS /live: raw beside enhanced. Late frames are dropped, here and on the server, never queued.

import { Wire } from "./socket.js";
import { Problem, number } from "./words.js";

const MOST_FPS = 30;
const WINDOW_MS = 3000; // over which frames per second and latency are averaged
const TIMED_OUT_MS = 10_000;
const STARTING = 1013;
const GOING_AWAY = 1001;
const $ = (id) => document.getElementById(id);

const CAMERA_WORDS = {
  NotAllowedError: ["The camera is not allowed", "Allow it for this page in your browser's settings, then start again."],
  NotFoundError: ["There is no camera", "Plug one in, then start again."],
  NotReadableError: ["The camera is in use", "Close the other program that uses it, then start again."],
  OverconstrainedError: ["The camera can't do this", "Choose another size."],
};

export class Webcam {
  #optionsOf;
  #stream = null;
  #wire = null;
  #video = $("raw");
  #canvas = $("enhanced");
  #grab = document.createElement("canvas");
  #captured = new Map(); // frames under way, by number: when each was captured
  #done = []; // [when shown, latency] of the last seconds
  #dropped = 0;
  #lastSent = 0;
  #encoding = false;
  #facing = "user";
  #wakeLock = null;

  constructor(optionsOf) {
    this.#optionsOf = optionsOf;
    $("live-start").onclick = () => (this.#stream ? this.stop() : this.start());
    $("live-size").onchange = () => this.#restart();
    $("live-flip").onclick = () => {
      this.#facing = this.#facing === "user" ? "environment" : "user";
      this.#restart();
    };
  }

  async #restart() {
    if (!this.#stream) return;
    this.stop();
    await this.start();
  }

  async start() {
    $("live-failure").hidden = true;
    $("live-start").disabled = true;
    try {
      if (!navigator.mediaDevices) {
        throw new Problem("The camera can't be used here", "Browsers allow it only on pages that come over https, or from this very machine.");
      }
      const [width, height] = $("live-size").value.split("x").map(Number);
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: false, video: { width: { ideal: width }, height: { ideal: height }, facingMode: this.#facing },
      });
      this.#stream.getVideoTracks()[0].onended = () => this.#fail(new Problem("The camera is gone", "Plug it in, then start again."));
      const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
      $("live-flip").hidden = cameras.length < 2;
      this.#video.srcObject = this.#stream;
      await this.#video.play();
      this.#wire = new Wire((event, blob) => this.#hear(event, blob), (code) => this.#lost(code));
      await this.#wire.open();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#dropped = 0;
    this.#done = [];
    $("live-start").textContent = "Stop";
    $("live-start").disabled = false;
    navigator.wakeLock?.request("screen").then((lock) => { this.#wakeLock = lock; }, () => {});
    this.#video.requestVideoFrameCallback(() => this.#frame());
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    const wire = this.#wire;
    this.#stream = this.#wire = null;
    wire?.close();
    this.#wakeLock?.release();
    this.#wakeLock = null;
    this.#video.srcObject = null;
    this.#captured.clear();
    $("live-start").textContent = "Start the camera";
    $("live-start").disabled = false;
  }

  /** Send the frame that the camera just gave, unless enough are under way. */
  async #frame() {
    const wire = this.#wire;
    if (!wire) return;
    this.#video.requestVideoFrameCallback(() => this.#frame());
    const now = performance.now();
    for (const [frame, at] of this.#captured) if (now - at > TIMED_OUT_MS) this.#captured.delete(frame);
    // twice as many as are answered, so that the one that waits is never old; none while the line is full
    const pace = Math.max(1000 / MOST_FPS, this.#period / 2) - 4;
    const most = this.#done.length < 3 ? 1 : 3; // at first nobody knows how fast it is
    if (this.#encoding || !wire.isOpen || wire.congestion || this.#captured.size >= most || now - this.#lastSent < pace) return;
    this.#encoding = true;
    this.#lastSent = now;
    const { videoWidth, videoHeight } = this.#video;
    if (this.#grab.width !== videoWidth || this.#grab.height !== videoHeight) {
      this.#grab.width = videoWidth;
      this.#grab.height = videoHeight;
    }
    this.#grab.getContext("2d").drawImage(this.#video, 0, 0);
    const blob = await new Promise((resolve) => { this.#grab.toBlob(resolve, "image/jpeg", 0.92); });
    this.#encoding = false;
    if (!blob || wire !== this.#wire || !wire.isOpen) return;
    const options = { ...this.#optionsOf(), mode: "live", format: "jpeg", encoder_quality: 90 };
    this.#captured.set(wire.send(blob, options), now);
  }

  /** Milliseconds between answers, lately. */
  get #period() {
    const [first, last] = [this.#done[0], this.#done.at(-1)];
    return this.#done.length < 3 ? 100 : (last[0] - first[0]) / (this.#done.length - 1);
  }

  async #hear(event, blob) {
    if (event.type === "accepted") return;
    const captured = this.#captured.get(event.frame);
    this.#captured.delete(event.frame);
    if (event.type === "dropped") this.#dropped++;
    if (event.type === "problem") {
      const problem = Problem.from(event.problem, event.retry_after);
      if (!problem.retryAfter) this.#fail(problem);
      return;
    }
    if (event.type !== "result") return;
    const wire = this.#wire;
    const bitmap = await createImageBitmap(blob);
    if (wire !== this.#wire) return;
    if (this.#canvas.width !== bitmap.width || this.#canvas.height !== bitmap.height) {
      this.#canvas.width = bitmap.width;
      this.#canvas.height = bitmap.height;
    }
    this.#canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    const now = performance.now();
    if (captured !== undefined) this.#done.push([now, now - captured]);
    while (this.#done.length && now - this.#done[0][0] > WINDOW_MS) this.#done.shift();
    this.#write();
  }

  #write() {
    const latencies = this.#done.map(([, latency]) => latency).sort((a, b) => a - b);
    if (latencies.length < 2) return;
    $("live-fps").textContent = number(1000 / this.#period, 1);
    $("live-latency").textContent = `${number(latencies[latencies.length >> 1])} ms`;
    $("live-dropped").textContent = number(this.#dropped);
  }

  #lost(code) {
    if (!this.#stream) return;
    this.#fail(code === GOING_AWAY
      ? new Problem("The service is shutting down", "Start again in a moment.")
      : new Problem("The connection was lost", "Check it, then start again."));
  }

  #fail(error) {
    this.stop();
    let problem = error;
    if (error instanceof DOMException && CAMERA_WORDS[error.name]) problem = new Problem(...CAMERA_WORDS[error.name]);
    else if (error?.code === STARTING) problem = new Problem("The service is not ready", error.reason);
    else if (!(error instanceof Problem)) problem = Problem.unreachable();
    const box = $("live-failure");
    box.textContent = `${problem.title}. ${problem.detail}`;
    box.hidden = false;
  }
}
