// The ways in which images are given: dropped, pasted, chosen, photographed.

import { at } from "./view.js";

export function listen(take) {
  const drop = at("drop");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  for (const id of ["choose", "photograph"]) {
    const chosen = () => { take([...at(id).files]); at(id).value = ""; };
    at(id).addEventListener("change", chosen);
    // Some were chosen before this ran.
    chosen();
  }
}
