// @ts-check
/** The page's state, which is one search, and what follows from it. */

import * as api from "./api.js";
import { byId } from "./dom.js";
import { complain, forgive, placeOf, tell, wireErrors } from "./errors.js";
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
/** @type {Promise<import("./api.js").Hit[][]> | null} of each factor of the query */
let similar = null;

const query = new QueryPicture();
const asked = () => query.asked(search);
const openStored = (/** @type {string} */ name) => open({ image: name });
const match = new Match(openStored);
const results = new Results({
  onOpen: openStored,
  onMatch: async (hit) => match.open(await asked(), query.frame(search), hit),
});
const finder = new Finder(results);
const editor = new RegionEditor(byId("surface"), (boxes) => go({ boxes }));
const factors = new FactorPanel({
  onChoice: (choice) => go(choice),
  onOpen: openStored,
  similar: () => (similar ??= findSimilar()),
});

/** Changes the search, as a step that "back" undoes. @param {Partial<Search>} changes */
function go(changes) {
  const next = { ...search, ...changes };
  if (write(next) === write(search) && next.upload === search.upload) return;
  history.pushState({ upload: next.upload }, "", location.pathname + write(next));
  show(next);
}

/** Goes to another query; the options stay. @param {{image?: string, upload?: number}} picture */
function open(picture) {
  go({ image: "", upload: 0, boxes: [], kept: [], avoided: [], ...picture });
  window.scrollTo({ top: 0 });
  byId("query-title").focus({ preventScroll: true });
}

/** Shows a search and carries it out. @param {Search} next @param {boolean} [anew] even with a query that is shown */
async function show(next, anew = false) {
  const other = anew || next.image !== search.image || next.upload !== search.upload;
  search = next;
  forgive();
  showOptions(next);
  editor.set(next.boxes);
  showChoice();
  const asks = Boolean(next.image || next.upload);
  document.body.dataset.view = asks ? "search" : "start";
  if (!asks) return showStart();
  const again = () => show(search, !query.url || factors.rows.size === 0);
  if (other) query.show(next, again);
  const found = finder.find(next, asked, again);
  if (other) explain(next.upload ? found : null); // results first: both need the network for an upload
  await found;
}

function showStart() {
  ["query", "explain"].forEach(api.turn);
  document.title = "whatwhere";
  finder.offer();
}

function showChoice() {
  factors.choose(search.kept, search.avoided);
  factors.allow(hasFactors(search.descriptor));
}

/** Shows what is in the query. @param {Promise<void> | null} before what is waited for */
async function explain(before) {
  const signal = api.turn("explain");
  similar = null;
  factors.clear("Looking …");
  await before;
  try {
    signal.throwIfAborted();
    if (byId("query-error").textContent) return factors.clear(""); // it would only be said twice
    factors.show(await api.explain(await asked(), { heatmapSizePx: HEATMAP_PX }, signal));
    showChoice();
  } catch (error) {
    if (signal.aborted) return;
    const told = placeOf(error) === "query-error";
    factors.clear(told ? "" : "The factors are not available.");
    if (!told) tell(error, "factors-error");
  }
}

/** Finds the similar factors of all factors of the query: one question answers for each. */
async function findSimilar() {
  try {
    const explained = await api.explain(await asked(), { similarCount: SIMILAR }, api.turn("similar"));
    return explained.map((factor) => factor.similar);
  } catch (error) {
    similar = null; // the next press asks again
    throw error;
  }
}

async function describeCollection() {
  try {
    const { imageCount = 0, backbone = "", descriptors = [] } = await api.collection();
    byId("collection").textContent = `${imageCount.toLocaleString("en")} pictures, described by ${backbone}`;
    offerDescriptors(descriptors);
  } catch {
    // Whatever is wrong, the search that is asked beside it will tell.
  }
}

/** Shows what the address says; an upload, which is in no address, is known by its number. @param {boolean} [anew] */
function showAddress(anew) {
  const upload = history.state?.upload ?? 0;
  const lost = upload > 0 && !query.uploads.has(upload);
  show(lost ? NOTHING : { ...read(location.search), upload }, anew);
  if (lost) complain("query-error", "That picture was only in this page's memory: choose it again.");
}

/** Where there is little room, results come before what one may do with them. */
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
    event.preventDefault(); // the address is the search's
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
api.patience.onWait = (waiting) => {
  byId("busy").textContent = waiting ? "The server is busy, trying again …" : "";
};
describeCollection();
showAddress(true);
