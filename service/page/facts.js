// The details of a result.

import { label } from "./cameras.js";
import { bytes, number, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const NAMES = {
  decode: "Decoding", queue: "Waiting for the device", inference: "Generator", blend: "Blending",
  quality: "Measuring", encode: "Encoding", total: "In all, on the server",
};

/** Write what is known of a result: {blob, facts}, or null, of a file. */
export function writeFacts(result, file) {
  const rows = [];
  if (result) {
    const { facts, blob } = result;
    const { width, height } = facts;
    if (width) rows.push(["Size", `${width}\u202f×\u202f${height}`]);
    rows.push(["Tiles", number(facts.tiles)], ["Camera", label(facts.camera)], ["Device", facts.device === "cuda" ? "GPU" : "CPU"]);
    rows.push(["Sent", bytes(file.size)], ["Received", bytes(blob.size)]);
    for (const [name, value] of Object.entries(facts.timings)) rows.push([NAMES[name] ?? name, seconds(value)]);
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
