// @ts-check
/** Holds the page's state, which is one search, and updates the page when it changes. */

import * as api from "./api.js";
import { byId } from "./dom.js";
import { clearErrors, placeOf, showCallError, showError, wireErrors } from "./errors.js";
import { FactorPanel } from "./factors.js";
import { Finder } from "./finder.js";
import { NOTHING, read, write } from "./link.js";
import { Match } from "./match.js";
import { hasFactors, offerDescriptors, showOptions, wireOptions } from "./options.js";
import { wirePicker } from "./picker.js";
import { QueryPicture } from "./query.js";
import { RegionEditor } from "./regions.js";
import { Results } from "./results.js";

/** @typedef {import("./link.js").Search} Search */

const SIMILAR = 5;
const HEATMAP_PX = 512;

/** @type {Search} */
let search = NOTHING;
/** @type {Promise<import("./api.js").Hit[][]> | null} hits for each factor of the query */
let similar = null;

const query = new QueryPicture();
const currentQuery = () => query.toRequest(search);
const openStored = (/** @type {string} */ name) => open({ image: name });
const match = new Match(openStored);
const results = new Results({
  onOpen: openStored,
  onMatch: async (hit) => match.open(await currentQuery(), query.frame(search), hit),
});
const finder = new Finder(results);
const editor = new RegionEditor(byId("surface"), (boxes) => go({ boxes }));
const factors = new FactorPanel({
  onChoice: (choice) => go(choice),
  onOpen: openStored,
  similar: () => (similar ??= findSimilar()),
});

/** Changes the search and adds it to the browser's history. @param {Partial<Search>} changes */
function go(changes) {
  const next = { ...search, ...changes };
  if (write(next) === write(search) && next.upload === search.upload) return;
  history.pushState({ upload: next.upload }, "", location.pathname + write(next));
  show(next);
}

/** Opens another query and keeps the options. @param {{image?: string, upload?: number}} picture */
function open(picture) {
  go({ image: "", upload: 0, boxes: [], kept: [], avoided: [], ...picture });
  window.scrollTo({ top: 0 });
  byId("query-title").focus({ preventScroll: true });
}

/** Shows and runs a search. @param {Search} next @param {boolean} [reload] reload the query even if it is the same */
async function show(next, reload = false) {
  const other = reload || next.image !== search.image || next.upload !== search.upload;
  search = next;
  clearErrors();
  showOptions(next);
  editor.set(next.boxes);
  showChoice();
  const hasQuery = Boolean(next.image || next.upload);
  document.body.dataset.view = hasQuery ? "search" : "start";
  if (!hasQuery) return showStart();
  const again = () => show(search, !query.url || factors.rows.size === 0);
  if (other) query.show(next, again);
  const found = finder.find(next, currentQuery, again);
  if (other) explain(next.upload ? found : null); // results first: for an upload, both run the network
  await found;
}

function showStart() {
  ["query", "explain"].forEach(api.supersede);
  document.title = "whatwhere";
  finder.offer();
}

function showChoice() {
  factors.choose(search.kept, search.avoided);
  factors.allow(hasFactors(search.descriptor));
}

/** Shows the factors of the query. @param {Promise<void> | null} before runs first */
async function explain(before) {
  const signal = api.supersede("explain");
  similar = null;
  factors.clear("Looking …");
  await before;
  try {
    signal.throwIfAborted();
    if (byId("query-error").textContent) return factors.clear(""); // the error is shown already
    factors.show(await api.explain(await currentQuery(), { heatmapSizePx: HEATMAP_PX }, signal));
    showChoice();
  } catch (error) {
    if (signal.aborted) return;
    const shown = placeOf(error) === "query-error";
    factors.clear(shown ? "" : "The factors are not available.");
    if (!shown) showCallError(error, "factors-error");
  }
}

/** Finds the factors similar to each factor of the query in one call. */
async function findSimilar() {
  try {
    const explained = await api.explain(await currentQuery(), { similarCount: SIMILAR }, api.supersede("similar"));
    return explained.map((factor) => factor.similar);
  } catch (error) {
    similar = null; // the next click tries again
    throw error;
  }
}

async function describeCollection() {
  try {
    const { imageCount = 0, backbone = "", descriptors = [] } = await api.collection();
    byId("collection").textContent = `${imageCount.toLocaleString("en")} pictures, described by ${backbone}`;
    offerDescriptors(descriptors);
  } catch {
    // The search that runs at the same time shows the error.
  }
}

/** Shows the search of the address. An upload is identified by its number in the history. @param {boolean} [reload] */
function showAddress(reload) {
  const upload = history.state?.upload ?? 0;
  const lost = upload > 0 && !query.uploads.has(upload);
  show(lost ? NOTHING : { ...read(location.search), upload }, reload);
  if (lost) showError("query-error", "That picture was only in this page's memory: choose it again.");
}

/** Folds the tools on narrow screens, so that results are visible. */
function wireFolds() {
  const roomy = matchMedia("(min-width: 960px)");
  const fold = () => document.querySelectorAll(".fold").forEach((part) => part.toggleAttribute("open", roomy.matches));
  roomy.addEventListener("change", fold);
  fold();
}

function wireNavigation() {
  window.addEventListener("popstate", () => showAddress());
  byId("home").addEventListener("click", (/** @type {MouseEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(NOTHING);
  });
  byId("skip").addEventListener("click", (/** @type {Event} */ event) => {
    event.preventDefault(); // a fragment would change the search's address
    byId("results-title").focus();
  });
}

wirePicker({ onFile: (file) => open({ upload: query.keep(file) }), onStored: openStored, filter: () => search.filter });
wireOptions(go);
wireErrors(() => {
  describeCollection();
  show(search, true);
});
wireFolds();
wireNavigation();
api.retries.onWait = (waiting) => {
  byId("busy").textContent = waiting ? "The server is busy, trying again …" : "";
};
describeCollection();
showAddress(true);
