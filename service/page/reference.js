// The reference: POST /evaluate measures before and after against it, the difference map shows where.

import { drawLegend, drawMap } from "./difference.js";
import { request } from "./socket.js";
import { Cancelled, Problem, number, problemOf } from "./words.js";

const GAP = 8; // white pixels between the pictures that /evaluate lays side by side
const $ = (id) => document.getElementById(id);

export class Reference {
  #compare;
  #optionsOf;
  #photo = null;
  #controller = null;
  #map = false;
  #bitmap = null; // of the photo's reference, laid where `#place` says
  #place = null;

  /** `compare` is the stage; `optionsOf()` gives camera, strength and overlap as they are set. */
  constructor(compare, optionsOf) {
    this.#compare = compare;
    this.#optionsOf = optionsOf;
    drawLegend($("legend").querySelector("canvas"));
    $("choose-reference").onclick = () => $("reference-file").click();
    $("reference-file").onchange = ({ target }) => {
      if (target.files.length) this.choose(target.files[0]);
      target.value = "";
    };
    $("align").onchange = () => this.measure();
    $("drop-reference").onclick = () => {
      this.choose(null);
      $("choose-reference").focus();
    };
    $("difference").onclick = () => this.#showMap(!this.#map);
  }

  choose(file) {
    if (!this.#photo) return;
    this.#photo.reference = file;
    this.measure();
  }

  /** Turn to a photo: {file, reference, state}; null where none is shown. */
  turnTo(photo) {
    this.#photo = photo;
    $("choose-reference").disabled = photo?.state !== "done";
    this.measure();
  }

  /** Measure again, with what is set now. */
  async measure() {
    this.#controller?.abort();
    const controller = (this.#controller = new AbortController());
    const { signal } = controller;
    const photo = this.#photo;
    const file = photo?.reference;
    const ready = Boolean(file) && photo.state === "done";
    $("drop-reference").hidden = !file;
    $("choose-reference").textContent = file ? "Choose another reference" : "Choose a reference";
    if (!ready) {
      this.#reset("");
      return;
    }
    $("reference-note").textContent = "Measuring…";
    const align = $("align").checked;
    const fields = { image: photo.file, reference: file, ...this.#optionsOf(), align: String(align) };
    try {
      const answer = await (await request("evaluate", fields, signal)).json();
      signal.throwIfAborted();
      this.#write(answer);
      [this.#bitmap, this.#place] = align
        ? [await this.#aligned(fields, signal), answer.alignment]
        : [await createImageBitmap(file), { left: 0, top: 0, width: answer.width, height: answer.height }];
      signal.throwIfAborted();
      $("difference").disabled = false;
      if (this.#map) this.#showMap(true);
    } catch (error) {
      if (error instanceof Cancelled || signal.aborted) return;
      this.#reset("");
      const problem = error instanceof DOMException
        ? new Problem("The difference can't be shown", "This browser can't read the reference's format.")
        : problemOf(error);
      $("reference-note").textContent = `${problem.title}. ${problem.detail}`;
    }
  }

  /** The strength is another: the map follows at once, the scores once it rests. */
  strengthMoved() {
    if (this.#map) this.#showMap(true);
  }

  /** Cut the registered reference out of the comparison that /evaluate draws. */
  async #aligned(fields, signal) {
    const picture = await createImageBitmap(await (await request("evaluate", fields, signal, "image/png")).blob());
    const width = (picture.width - 2 * GAP) / 3;
    return createImageBitmap(picture, 2 * (width + GAP), 0, width, picture.height);
  }

  #write({ input, output, alignment }) {
    const rows = { psnr: [input.psnr, output.psnr, 2, 1], ssim: [input.ssim, output.ssim, 4, 1],
      colour: [input.colour_difference, output.colour_difference, 1, -1] };
    for (const [name, [before, after, digits, sign]] of Object.entries(rows)) {
      const shown = (value) => (value === null ? "equal" : number(value, digits));
      $(`${name}-before`).textContent = shown(before);
      const cell = $(`${name}-after`);
      cell.textContent = shown(after);
      const gain = ((after ?? Infinity) - (before ?? Infinity)) * sign || 0;
      cell.classList.toggle("better", gain > 0);
      cell.classList.toggle("worse", gain < 0);
    }
    if ($("scores").hidden) {
      $("scores").hidden = false;
      $("drop-reference").scrollIntoView({ block: "nearest" });
    }
    const gain = (output.psnr ?? Infinity) - (input.psnr ?? Infinity);
    const words = Number.isFinite(gain)
      ? `Enhanced, the photo is ${number(Math.abs(gain), 1)} dB ${gain < 0 ? "farther from" : "nearer to"} the reference.`
      : "Before or after, the photo equals the reference.";
    const where = alignment ? ` Measured where both show the scene, ${alignment.width} × ${alignment.height} pixels.` : "";
    $("reference-note").textContent = words + where;
  }

  #reset(note) {
    this.#bitmap = null;
    $("scores").hidden = true;
    $("reference-note").textContent = note;
    $("difference").disabled = true;
    if (this.#map) this.#showMap(false);
  }

  #showMap(on) {
    this.#map = on;
    $("difference").setAttribute("aria-pressed", String(on));
    $("legend").hidden = !on;
    if (!on) {
      this.#compare.clearMaps();
    } else if (this.#bitmap) {
      const [before, after] = this.#compare.images;
      this.#compare.showMaps((canvas, i) => {
        drawMap(canvas, i ? [before, after] : [before], this.#optionsOf().strength, this.#bitmap, this.#place);
      });
    }
  }
}
