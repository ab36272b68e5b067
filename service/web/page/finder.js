// @ts-check
/** Runs a search: the first page, then its boxes, then further pages. */

import { sample, search as ask, supersede } from "./api.js";
import { announce, byId } from "./dom.js";
import { report, showCallError } from "./errors.js";

/** @typedef {import("./link.js").Search} Search */
/** @typedef {import("./api.js").Query} Query */

const PAGE_SIZE = 24;
const SAMPLE_SIZE = 12;

/** Returns the request fields of a search, without those of the page. @param {Search} search */
function fieldsOf({ boxes, kept, avoided, descriptor, expansionCount, filter }) {
  const [region, ...moreRegions] = boxes;
  return {
    ...(region && { region, moreRegions }),
    ...(kept.length && { concepts: kept }),
    ...(avoided.length && { avoidedConcepts: avoided }),
    ...(descriptor && { descriptor: `DESCRIPTOR_${descriptor}` }),
    ...{ expansionCount, filter },
  };
}

/** Describes which factors the search used.
 * @param {Search} search @param {{hits: any[], regionFallback: boolean, keptFactorCount: number}} found */
function describe(search, { hits, regionFallback, keptFactorCount }) {
  if (!hits.length) return search.filter ? "No picture matches the filter." : "No results.";
  const partial = search.boxes.length || search.kept.length || search.avoided.length;
  if (!partial || !keptFactorCount) return "";
  const count = `Searched by ${keptFactorCount} factor${keptFactorCount === 1 ? "" : "s"}`;
  return regionFallback ? `${count}, the nearest: no factor is inside the box.` : `${count}.`;
}

export class Finder {
  pageToken = "";

  /** @param {import("./results.js").Results} results */
  constructor(results) {
    this.results = results;
    this.more = byId("more");
    this.more.addEventListener("click", () => this.#next());
    // Scrolling near the button presses it.
    const near = (/** @type {any[]} */ [more]) => more.isIntersecting && this.#next();
    this.reaching = new IntersectionObserver(near, { rootMargin: "600px" });
  }

  /**
   * Shows the first page, then adds the boxes.
   * @param {Search} search
   * @param {() => Promise<Query>} query
   * @param {() => Promise<void> | void} again the action of "Try again"
   */
  async find(search, query, again) {
    const signal = (this.signal = this.#begin("Results", "Searching …"));
    this.fields = fieldsOf(search);
    this.query = query;
    this.again = again;
    this.results.busy(true);
    try {
      const found = await this.#ask({ pageSize: PAGE_SIZE });
      this.results.clear();
      this.#showPage(found);
      byId("results-note").textContent = describe(search, found);
      announce(`${found.hits.length} results.`);
      if (search.localizeCount && found.hits.length) this.#drawBoxes(search.localizeCount);
    } catch (error) {
      if (signal.aborted) return;
      this.results.clear();
      byId("results-note").textContent = "The search failed.";
      report(error, again);
    }
  }

  /** Shows random stored images as a start, without a query. */
  async offer() {
    const signal = this.#begin("Or start with one of these", "");
    this.results.clear();
    try {
      this.results.offer(await sample(SAMPLE_SIZE, "", signal));
    } catch (error) {
      if (!signal.aborted) report(error, () => this.offer());
    }
  }

  /** @param {string} title @param {string} note */
  #begin(title, note) {
    this.pageToken = "";
    byId("results-title").textContent = title;
    byId("results-note").textContent = note;
    this.more.hidden = byId("end").hidden = true;
    return supersede("search");
  }

  /** Requests one page of the search. @param {object} page */
  async #ask(page) {
    const { signal } = this;
    const found = await ask(await this.query(), { ...this.fields, ...page }, signal);
    signal.throwIfAborted(); // it may have been aborted after the response arrived
    return found;
  }

  /** @param {{hits: import("./api.js").Hit[], nextPageToken: string}} page */
  #showPage({ hits, nextPageToken }) {
    this.results.append(hits);
    this.pageToken = nextPageToken;
    this.more.hidden = !nextPageToken;
    byId("end").hidden = Boolean(nextPageToken) || this.results.count === 0;
    this.reaching.unobserve(this.more);
    this.reaching.observe(this.more); // reports again if a short page leaves the button in view
  }

  /** @param {number} count of the first results */
  async #drawBoxes(count) {
    const { signal } = this;
    try {
      const { hits } = await this.#ask({ pageSize: count, localizeCount: count });
      announce(`Boxes on ${this.results.drawBoxes(hits)} results.`);
    } catch (error) {
      if (!signal.aborted) showCallError(error, "localize-error");
    }
  }

  async #next() {
    const { pageToken, signal } = this;
    if (!pageToken) return;
    this.pageToken = ""; // each page is requested once
    const held = document.activeElement === this.more ? this.results.count : -1;
    byId("results-error").hidden = true;
    try {
      const page = await this.#ask({ pageSize: PAGE_SIZE, pageToken });
      this.#showPage(page);
      announce(`${page.hits.length} more results, ${this.results.count} in all.`);
      if (held >= 0) this.results.focus(held); // reading continues at the end of the list
    } catch (error) {
      if (signal.aborted) return;
      if (error.reason === "PAGE_TOKEN_EXPIRED") return this.#renew();
      report(error, () => {
        this.pageToken = pageToken;
        this.#next();
      });
    }
  }

  /** Searches again from the first page, because the server has a newer generation. */
  async #renew() {
    await this.again();
    byId("results-note").textContent = "The collection has changed: these results are new.";
    announce("The collection has changed: these results are new.");
  }
}
