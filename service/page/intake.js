// How files come in: chosen, dropped or pasted.

const $ = (id) => document.getElementById(id);

/** `onPhotos(files)` gets what came; `onReference(file)`, for one dropped on that box, says whether it was taken. */
export function listenForFiles(onPhotos, onReference) {
  $("choose").onclick = $("add").onclick = () => $("files").click();
  $("files").onchange = ({ target }) => {
    onPhotos(target.files);
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
    if (!event.target.closest("#reference-box") || !onReference(event.dataTransfer.files[0])) onPhotos(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      onPhotos(files);
    }
  });
}
