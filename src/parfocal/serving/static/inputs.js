// The ways to add images: drop, paste, choose files, take a photograph.

import { byId } from "./view.js";

export function listenForImages(addFiles) {
  const dropZone = byId("drop-zone");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); dropZone.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropZone.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropZone.classList.remove("over");
    addFiles([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => addFiles([...event.clipboardData.files]));
  for (const id of ["choose-files", "take-photo"]) {
    const addChosen = () => { addFiles([...byId(id).files]); byId(id).value = ""; };
    byId(id).addEventListener("change", addChosen);
    // The user may have chosen files before this script ran.
    addChosen();
  }
}
