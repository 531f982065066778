// Two pictures of one size on a stage: a divider between them, zoom, pan; by mouse, touch and keyboard.

import { percent } from "./words.js";

const MOST = 8; // screen pixels a picture's pixel at most
const CLOSE = 2; // from here on its pixels are shown as squares
const STEP = 1.25;
const GRAB = 28; // CSS pixels around the divider that count as it
const PAN = 64;

export class Compare {
  #stage;
  #layers;
  #divider;
  #input;
  #chips;
  #size = null; // the picture's own, in pixels
  #scale = 1; // CSS pixels a picture's pixel
  #x = 0; // where its left top corner lies on the stage
  #y = 0;
  #fitted = true;
  #split = 0.5; // of the part of the picture that can be seen
  #both = false;
  #strength = 1;
  #pointers = new Map();
  #drag = null;

  /** Called after each change of zoom with (share of 100 %, whether it is fitted). */
  onZoom = () => {};

  /** Called when the picture as it came is shown or left. */
  onPeek = () => {};

  constructor(stage) {
    this.#stage = stage;
    this.#layers = ["before", "after"].map((name) => {
      const layer = stage.querySelector(`.${name}`);
      return { layer, img: layer.querySelector("img"), canvas: layer.querySelector("canvas") };
    });
    this.#divider = stage.querySelector(".divider");
    this.#input = this.#divider.querySelector("input");
    this.#chips = [stage.querySelector(".chip.left"), stage.querySelector(".chip.right")];
    this.#input.addEventListener("input", () => this.#moveSplit(this.#input.valueAsNumber / 100));
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.#up(event));
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("dblclick", (event) => {
      if (!this.#size || event.target.closest("button, .card")) return;
      if (this.#fitted) this.zoomTo(this.#full, ...this.#place(event));
      else this.fit();
    });
    stage.addEventListener("keydown", (event) => this.#key(event));
    stage.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "b") this.peek(false); });
    stage.addEventListener("blur", () => this.peek(false), true);
    new ResizeObserver(() => (this.#fitted ? this.fit() : this.#draw())).observe(stage);
  }

  /**
   * Show a picture, or two.
   *
   * @param {string} before URL of the picture as it came
   * @param {?string} after URL of the enhanced one, null while there is none
   * @returns {Promise<void>} once it can be seen; rejects where the browser can't show one of them
   */
  async show(before, after, { keepView = false } = {}) {
    const loaded = await Promise.all([before, after].map(async (url) => {
      if (!url) return null;
      const img = new Image();
      img.src = url;
      await img.decode();
      return img;
    }));
    const size = { width: loaded[0].naturalWidth, height: loaded[0].naturalHeight };
    const same = keepView && this.#size && this.#size.width === size.width && this.#size.height === size.height;
    this.#size = size;
    this.clearMaps();
    for (const [i, { img }] of this.#layers.entries()) {
      img.hidden = !loaded[i];
      if (loaded[i]) {
        img.src = loaded[i].src;
        img.style.width = `${size.width}px`;
        img.style.height = `${size.height}px`;
      } else {
        img.removeAttribute("src");
      }
    }
    this.#both = Boolean(after);
    this.#layers[0].img.alt = after ? "The photo as it came" : "The photo, not enhanced yet";
    this.#layers[1].img.alt = "The photo, enhanced";
    this.#divider.hidden = !after;
    for (const chip of this.#chips) chip.hidden = !after;
    this.#stage.classList.add("loaded");
    this.#stage.tabIndex = 0;
    if (same) this.#draw();
    else this.fit();
  }

  clear() {
    this.#size = null;
    this.#both = false;
    this.clearMaps();
    for (const { img } of this.#layers) {
      img.hidden = true;
      img.removeAttribute("src");
    }
    this.#divider.hidden = true;
    for (const chip of this.#chips) chip.hidden = true;
    this.#stage.classList.remove("loaded", "zoomed", "close");
    this.#stage.tabIndex = -1;
    this.onZoom(null, true);
  }

  /** How much of the enhanced picture is laid over the other one, 0..1: as the service scales its residual. */
  set strength(share) {
    this.#strength = share;
    this.#layers[1].img.style.opacity = String(share);
    this.#draw();
  }

  /** Show maps of the difference in the pictures' places: two canvases, drawn by `draw(canvas, 0 | 1)`. */
  showMaps(draw) {
    for (const [i, { img, canvas }] of this.#layers.entries()) {
      draw(canvas, i);
      canvas.style.width = `${this.#size.width}px`;
      canvas.style.height = `${this.#size.height}px`;
      canvas.hidden = false;
      img.hidden = true;
    }
    this.#draw();
  }

  clearMaps() {
    for (const [i, { img, canvas }] of this.#layers.entries()) {
      canvas.hidden = true;
      canvas.width = canvas.height = 0;
      img.hidden = !this.#size || (i === 1 && !this.#both);
    }
  }

  /** The images that are shown: [before, after]. */
  get images() {
    return this.#layers.map(({ img }) => img);
  }

  peek(on) {
    if (!this.#both || this.#stage.classList.contains("peeking") === on) return;
    this.#stage.classList.toggle("peeking", on);
    this.onPeek(on);
  }

  fit() {
    if (!this.#size) return;
    const { clientWidth, clientHeight } = this.#stage;
    if (!clientWidth || !clientHeight) return;
    this.#scale = this.#fitScale;
    this.#fitted = true;
    this.#draw();
  }

  full() {
    this.zoomTo(this.#full);
  }

  zoomBy(factor) {
    this.zoomTo(this.#scale * factor);
  }

  zoomTo(scale, x = this.#stage.clientWidth / 2, y = this.#stage.clientHeight / 2) {
    if (!this.#size) return;
    const least = Math.min(this.#fitScale, this.#full);
    const next = Math.min(Math.max(scale, least), MOST * this.#full);
    this.#x = x - ((x - this.#x) / this.#scale) * next;
    this.#y = y - ((y - this.#y) / this.#scale) * next;
    this.#scale = next;
    this.#fitted = next === this.#fitScale;
    this.#draw();
  }

  get #full() {
    return 1 / devicePixelRatio; // a picture's pixel is a screen's pixel
  }

  get #fitScale() {
    const { clientWidth, clientHeight } = this.#stage;
    return Math.min(clientWidth / this.#size.width, clientHeight / this.#size.height, MOST * this.#full);
  }

  /** The part of the stage on which the picture can be seen: left and width. */
  get #seen() {
    const left = Math.max(this.#x, 0);
    const right = Math.min(this.#x + this.#size.width * this.#scale, this.#stage.clientWidth);
    return { left, width: Math.max(right - left, 1) };
  }

  #keepInside() {
    const { clientWidth, clientHeight } = this.#stage;
    const inside = (at, length, room) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at)));
    this.#x = inside(this.#x, this.#size.width * this.#scale, clientWidth);
    this.#y = inside(this.#y, this.#size.height * this.#scale, clientHeight);
  }

  #draw() {
    if (!this.#size) return;
    this.#keepInside();
    for (const { img, canvas } of this.#layers) {
      img.style.transform = canvas.style.transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
    }
    this.#stage.classList.toggle("zoomed", this.#scale > this.#fitScale * 1.001);
    this.#stage.classList.toggle("close", this.#scale >= CLOSE * this.#full);
    this.#drawSplit();
    this.onZoom(this.#scale / this.#full, this.#fitted);
  }

  #drawSplit() {
    const { left, width } = this.#seen;
    const at = left + this.#split * width;
    this.#layers[1].layer.style.clipPath = `inset(0 0 0 ${at}px)`;
    // what shines through a transparent picture must not be the other one, unless it is laid over it on purpose
    const alone = this.#both && this.#strength === 1;
    this.#layers[0].layer.style.clipPath = alone ? `inset(0 ${this.#stage.clientWidth - at}px 0 0)` : "none";
    const top = Math.max(this.#y, 0);
    const bottom = Math.min(this.#y + this.#size.height * this.#scale, this.#stage.clientHeight);
    this.#divider.style.transform = `translate(${at}px, ${top}px)`;
    this.#divider.style.height = `${bottom - top}px`;
    this.#input.value = String(Math.round(this.#split * 100));
    this.#input.setAttribute("aria-valuetext", `${percent(this.#split)} before`);
    this.#chips[0].classList.toggle("faint", at < 90);
    this.#chips[1].classList.toggle("faint", at > this.#stage.clientWidth - 80);
  }

  #moveSplit(share) {
    this.#split = Math.min(Math.max(share, 0), 1);
    this.#drawSplit();
  }

  #place(event) {
    const box = this.#stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #down(event) {
    if (!this.#size || event.button > 0 || event.target.closest("button, .card, .working")) return;
    const [x, y] = this.#place(event);
    this.#pointers.set(event.pointerId, { x, y });
    this.#stage.setPointerCapture(event.pointerId);
    if (this.#pointers.size === 2) {
      this.#drag = "pinch";
      return;
    }
    const { left, width } = this.#seen;
    const zoomed = this.#stage.classList.contains("zoomed");
    const near = this.#both && Math.abs(x - left - this.#split * width) < GRAB;
    this.#drag = near || (this.#both && !zoomed) ? "split" : zoomed ? "pan" : null;
    if (this.#drag === "split") {
      this.#input.focus({ preventScroll: true });
      event.preventDefault(); // or the browser would move the focus on
      if (!near) this.#moveSplit((x - left) / width);
    }
    this.#stage.classList.toggle("panning", this.#drag === "pan");
  }

  #move(event) {
    const last = this.#pointers.get(event.pointerId);
    if (!last || !this.#size) return;
    const [x, y] = this.#place(event);
    if (this.#drag === "split") {
      const { left, width } = this.#seen;
      this.#moveSplit((x - left) / width);
    } else if (this.#drag === "pan") {
      this.#x += x - last.x;
      this.#y += y - last.y;
      this.#draw();
    } else if (this.#drag === "pinch" && this.#pointers.size === 2) {
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId)[1];
      const factor = Math.hypot(x - other.x, y - other.y) / Math.max(Math.hypot(last.x - other.x, last.y - other.y), 1);
      this.#x += (x - last.x) / 2;
      this.#y += (y - last.y) / 2;
      this.zoomTo(this.#scale * factor, (x + other.x) / 2, (y + other.y) / 2);
    }
    this.#pointers.set(event.pointerId, { x, y });
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    this.#drag = null;
    this.#stage.classList.remove("panning");
  }

  #wheel(event) {
    if (!this.#size) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.zoomTo(this.#scale * Math.exp((-event.deltaY * lines) / 400), ...this.#place(event));
  }

  #key(event) {
    if (!this.#size || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button")) return;
    const zoomed = this.#stage.classList.contains("zoomed");
    const onStage = event.target === this.#stage;
    const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrows && onStage && zoomed) {
      this.#x += arrows[0] * PAN;
      this.#y += arrows[1] * PAN;
      this.#draw();
    } else if (arrows && onStage && this.#both && arrows[0]) {
      this.#moveSplit(this.#split - arrows[0] * (event.shiftKey ? 0.1 : 0.01));
    } else if (event.key === "+" || event.key === "=") this.zoomBy(STEP);
    else if (event.key === "-") this.zoomBy(1 / STEP);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.full();
    else if (event.key.toLowerCase() === "b") this.peek(true);
    else return;
    event.preventDefault();
  }
}
