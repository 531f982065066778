// The buttons under the stage.

import { percent } from "./words.js";

const $ = (id) => document.getElementById(id);

export function connectToolbar(compare) {
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
}
