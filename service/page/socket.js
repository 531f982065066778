// The wire to `WS /live` (its protocol: docs/live.md), and POST /enhance where no WebSocket gets through.

import { askForKey, keyHeaders, keyNow, keyProtocols } from "./key.js";
import { Cancelled, Problem, bytes } from "./words.js";

/** The page's own place, whatever prefix a proxy put before it. */
export function urlOf(path) {
  return new URL(path, document.baseURI);
}

const UNAUTHORIZED = 3000;

/** One WebSocket: numbers what it sends, and pairs each result with the picture that follows it. */
export class Wire {
  #socket = null;
  #sent = 0;
  #result = null;
  #options = "";

  /** `onEvent(event, blob)` gets each event, a result with its picture; `onClose(code, reason)` the end. */
  constructor(onEvent, onClose) {
    this.onEvent = onEvent;
    this.onClose = onClose;
  }

  /** Resolves to the `ready` event, once there is a key where one is needed; rejects with {code, reason} where it closes before. */
  async open() {
    for (;;) {
      const tried = keyNow();
      try {
        return await this.#open();
      } catch (closed) {
        if (closed.code !== UNAUTHORIZED) throw closed;
        await askForKey(tried);
      }
    }
  }

  #open() {
    const url = urlOf("live");
    url.protocol = url.protocol.replace("http", "ws");
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, keyProtocols());
      socket.binaryType = "blob";
      this.#socket = socket;
      let ready = false;
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") {
          const result = this.#result;
          this.#result = null;
          this.onEvent(result, data.slice(0, data.size, result.media_type));
          return;
        }
        const event = JSON.parse(data);
        if (event.type === "ready") {
          ready = true;
          resolve(event);
        } else if (event.type === "result") {
          this.#result = event;
        } else {
          this.onEvent(event);
        }
      };
      socket.onclose = ({ code, reason }) => {
        if (ready) this.onClose(code, reason);
        else reject({ code, reason });
      };
    });
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Bytes that wait to be sent. */
  get congestion() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Send a picture under these options; returns its number. */
  send(blob, options) {
    const text = JSON.stringify(options);
    if (text !== this.#options) this.#socket.send(text);
    this.#options = text;
    this.#socket.send(blob);
    return ++this.#sent;
  }

  cancel(frame) {
    if (this.isOpen) this.#socket.send(JSON.stringify({ type: "cancel", frame }));
  }

  close() {
    this.#socket?.close();
  }
}

const STARTING = 1013;
const TOO_BIG = 1009;
const TRIES = 30;

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new Cancelled()); }, { once: true });
  });
}

/** Enhances photos: over a WebSocket that is kept open, or where there is none by POST. */
export class Service {
  #wire = null;
  #opening = null;
  #pending = new Map();
  #noSocket = false;

  /** What the service said of itself: formats, max_bytes, max_pixels; null until it did. */
  limits = null;

  /** Called with `limits` once they are known. */
  onLimits = () => {};

  /** Open the connection ahead of the first photo; errors come with the photo. */
  warm() {
    this.#connect().catch(() => {});
  }

  /**
   * Enhance a file.
   *
   * @param {Blob} file the picture
   * @param {object} options as POST /enhance takes them, and `seam_index`
   * @param {{signal?: AbortSignal, onAccepted?: Function, onProgress?: Function, onWait?: Function}} hooks
   *   onProgress(done, total) in tiles, or (null, null) where it can't be known
   * @returns {Promise<{blob: Blob, facts: object}>}
   * @throws {Problem|Cancelled}
   */
  async enhance(file, options, { signal, onProgress = () => {}, onWait = () => {} } = {}) {
    const start = performance.now();
    for (let attempt = 1; ; attempt++) {
      if (signal?.aborted) throw new Cancelled();
      try {
        const wire = await this.#connect();
        if (file.size > this.limits.max_bytes) {
          throw new Problem("This file is too large", `The service takes up to ${bytes(this.limits.max_bytes)}.`, { type: "body-too-large" });
        }
        const { blob, facts } = wire ? await this.#over(wire, file, options, signal, onProgress)
          : await this.#post(file, options, signal, onProgress);
        return { blob, facts: { ...facts, round_trip: (performance.now() - start) / 1000 } };
      } catch (error) {
        // not even HTTP, or told by it to wait: a WebSocket may well come through once the service is back
        if (error instanceof Problem && ["unreachable", "not-ready"].includes(error.type)) this.#noSocket = false;
        const busy = error instanceof Problem && error.retryAfter > 0;
        if (!busy || attempt === TRIES) throw error;
        onWait(error);
        await pause(Math.min(error.retryAfter, 30) * 1000, signal);
      }
    }
  }

  async #connect() {
    if (this.#noSocket) return null;
    if (this.#wire?.isOpen) return this.#wire;
    this.#opening ??= this.#open().finally(() => { this.#opening = null; });
    return this.#opening;
  }

  async #open() {
    const wire = new Wire((event, blob) => this.#hear(event, blob), (code) => this.#lost(code));
    try {
      this.limits = await wire.open();
    } catch ({ code, reason }) {
      if (code === STARTING) throw new Problem("The service is not ready", reason, { type: "not-ready", retryAfter: 1 });
      // refused, or something between knows no WebSockets: plain HTTP tells which
      this.#noSocket = true;
      this.limits ??= { formats: [], max_bytes: Infinity, max_pixels: Infinity };
      return null;
    }
    this.#wire = wire;
    this.onLimits(this.limits);
    return wire;
  }

  #over(wire, file, options, signal, onProgress) {
    return new Promise((resolve, reject) => {
      const frame = wire.send(file, options);
      this.#pending.set(frame, { resolve, reject, onProgress });
      signal?.addEventListener("abort", () => {
        if (this.#pending.has(frame)) wire.cancel(frame);
      }, { once: true });
    });
  }

  #hear(event, blob) {
    const job = this.#pending.get(event.frame);
    if (!job) return;
    if (event.type === "accepted") return void job.onProgress(0, event.tiles);
    if (event.type === "progress") return void job.onProgress(event.done, event.total);
    this.#pending.delete(event.frame);
    if (event.type === "result") job.resolve({ blob, facts: event });
    else if (event.type === "problem") job.reject(Problem.from(event.problem, event.retry_after));
    else job.reject(new Cancelled());
  }

  #lost(code) {
    const jobs = [...this.#pending.values()];
    this.#pending.clear();
    this.#wire = null;
    const problem = code === TOO_BIG
      ? new Problem("This file is too large", "The service takes no file of this size.", { type: "body-too-large" })
      : new Problem("The connection was lost", "Try again: the photo is still here.", { type: "connection-lost" });
    for (const job of jobs) job.reject(problem);
  }

  async #post(file, options, signal, onProgress) {
    const { seam_index: _seams, mode: _mode, ...fields } = options;
    onProgress(null, null);
    const response = await request("enhance", { image: file, ...fields }, signal);
    const timings = {};
    for (const entry of (response.headers.get("Server-Timing") ?? "").split(",")) {
      const [, name, ms] = /^\s*(\w+);dur=([\d.]+)/.exec(entry) ?? [];
      if (name) timings[name] = Number(ms) / 1000;
    }
    const header = (name) => response.headers.get(`X-Pix2DSLR-${name}`);
    const facts = { camera: header("Camera"), device: header("Device"), tiles: Number(header("Tiles")), timings };
    return { blob: await response.blob(), facts };
  }
}

/** fetch from the service, with the key where one is needed. */
export async function fetchWithKey(path, { headers = {}, ...options } = {}) {
  for (;;) {
    const tried = keyNow();
    const response = await fetch(urlOf(path), { ...options, headers: { ...headers, ...keyHeaders() } });
    if (response.status !== 401) return response;
    await askForKey(tried);
    options.signal?.throwIfAborted();
  }
}

/** POST a form; resolves to an answer that is ok. @throws {Problem|Cancelled} */
export async function request(path, fields, signal, accept = "*/*") {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== "") form.append(name, value);
  }
  const response = await fetchWithKey(path, { method: "POST", body: form, signal, headers: { Accept: accept } }).catch(() => {
    throw signal?.aborted ? new Cancelled() : Problem.unreachable();
  });
  if (!response.ok) throw await Problem.fromResponse(response);
  return response;
}
