// @ts-check
/** Shows each error beside the control it belongs to. */

import { token } from "./api.js";
import { byId } from "./dom.js";

const PLACES = ["query-error", "region-error", "factors-error", "descriptor-error", "localize-error", "filter-error"];
let retry = () => {};

/** Shows an error; an empty message clears it. @param {string} id @param {string} [words] */
export function showError(id, words = "") {
  byId(id).textContent = words;
  const control = document.querySelector(`[aria-describedby="${id}"]`);
  if (words) control?.setAttribute("aria-invalid", "true");
  else control?.removeAttribute("aria-invalid");
}

/** Clears all errors before a new search. */
export function clearErrors() {
  PLACES.forEach((id) => showError(id));
  byId("results-error").hidden = true;
}

/** Returns the id of the element for an error, "" if it concerns the whole search. @param {any} error */
export function placeOf({ reason = "", field = "" }) {
  const [top] = field.split(/[.[]/);
  if (reason === "INVALID_FILTER" || top === "filter") return "filter-error";
  if (/REGION/.test(reason) || /region/.test(top)) return "region-error";
  if (/concepts/.test(top)) return "factors-error";
  if (reason === "DESCRIPTOR_NOT_INDEXED" || top === "descriptor") return "descriptor-error";
  if (/IMAGE/.test(reason) || ["image", "image_content", "name"].includes(top)) return "query-error";
  return "";
}

/** Shows an error of a search. @param {any} error @param {() => void} again the action of "Try again" */
export function report(error, again) {
  retry = again;
  if (needsToken(error)) return askForToken(error);
  const place = placeOf(error);
  if (place) return showError(place, error.message);
  byId("results-error").firstElementChild.textContent = error.message;
  byId("results-error").hidden = false;
}

/** Shows an error of another call in the given element. @param {any} error @param {string} id */
export function showCallError(error, id) {
  if (needsToken(error)) askForToken(error);
  else showError(id, error.message);
}

/** @param {any} error */
const needsToken = ({ status }) => status === 401 || status === 403;

/** @param {any} error */
function askForToken(error) {
  if (error.token !== token.get()) return; // of a request from before this one was entered
  const form = byId("token-form");
  if (token.get()) byId("token-note").textContent = `The token was refused. ${error.message}`;
  if (!form.hidden) return;
  form.hidden = false;
  byId("token").focus();
}

/** @param {() => void} onToken */
export function wireErrors(onToken) {
  byId("results-error")
    .querySelector("button")
    .addEventListener("click", () => retry());
  byId("token-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    token.set(byId("token").value);
    byId("token-form").hidden = true;
    onToken();
  });
}
