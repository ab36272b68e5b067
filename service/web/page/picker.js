// @ts-check
/** Chooses a query: a file (picked, dropped or pasted), a stored image by its name, or a random one. */

import { sample, supersede } from "./api.js";
import { byId } from "./dom.js";
import { report, showError } from "./errors.js";
import { storedName } from "./link.js";

/** @typedef {{onFile: (file: File) => void, onStored: (name: string) => void, filter: () => string}} Handlers */

/** @param {Handlers} handlers */
export function wirePicker(handlers) {
  const take = (/** @type {File | undefined} */ file) => file && accept(file, handlers.onFile);
  wireFile(take);
  wireDrop(take);
  byId("random").addEventListener("click", () => draw(handlers));
  byId("stored-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    handlers.onStored(storedName(byId("stored").value));
  });
}

/** Rejects an empty file or another type before the upload. @param {File} file @param {(file: File) => void} onFile */
function accept(file, onFile) {
  if (file.size === 0) showError("query-error", `${file.name} is empty: choose another file.`);
  else if (file.type && !file.type.startsWith("image/"))
    showError("query-error", `${file.name} is not an image: choose an image file.`);
  else onFile(file);
}

/** @param {Handlers} handlers */
async function draw({ onStored, filter }) {
  const signal = supersede("random");
  showError("query-error");
  try {
    const [image] = await sample(1, filter(), signal);
    if (image) onStored(image.name);
    else showError("query-error", "No picture matches the filter.");
  } catch (error) {
    if (!signal.aborted) report(error, () => byId("random").click());
  }
}

/** @param {(file: File | undefined) => void} take */
function wireFile(take) {
  const input = byId("file");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return; // text, for the field that has the focus
    event.preventDefault();
    take(file);
  });
}

/** @param {(file: File | undefined) => void} take */
function wireDrop(take) {
  const mark = (/** @type {boolean} */ shown) => byId("drop").classList.toggle("shown", shown);
  window.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // or the browser would open the file in place of this page
    mark(true);
  });
  window.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  window.addEventListener("drop", (event) => {
    mark(false);
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}
