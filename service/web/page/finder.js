// @ts-check
/** Searches: the first page, then its boxes, then further pages. */

import { sample, search as ask, turn } from "./api.js";
import { announce, byId } from "./dom.js";
import { report, tell } from "./errors.js";

/** @typedef {import("./link.js").Search} Search */
/** @typedef {import("./api.js").Query} Query */

const PAGE_SIZE = 24;
const OFFERED = 12;

/** The request of a search, but for the page. @param {Search} search */
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

/** Says what was searched by.
 * @param {Search} search @param {{hits: any[], regionFallback: boolean, keptFactorCount: number}} found */
function describe(search, { hits, regionFallback, keptFactorCount }) {
  if (!hits.length) return search.filter ? "No picture matches the filter." : "Nothing found.";
  const parted = search.boxes.length || search.kept.length || search.avoided.length;
  if (!parted || !keptFactorCount) return "";
  const count = `Searched by ${keptFactorCount} factor${keptFactorCount === 1 ? "" : "s"}`;
  return regionFallback ? `${count}, the nearest: none lies inside.` : `${count}.`;
}

export class Finder {
  pageToken = "";

  /** @param {import("./results.js").Results} results */
  constructor(results) {
    this.results = results;
    this.more = byId("more");
    this.more.addEventListener("click", () => this.#next());
    // Scrolling near the button is as good as pressing it.
    const near = (/** @type {any[]} */ [more]) => more.isIntersecting && this.#next();
    this.reaching = new IntersectionObserver(near, { rootMargin: "600px" });
  }

  /**
   * Shows the first page, and lets the boxes come after.
   * @param {Search} search
   * @param {() => Promise<Query>} query
   * @param {() => Promise<void> | void} again what is done when it is asked for once more
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
      byId("results-note").textContent = "Nothing was searched.";
      report(error, again);
    }
  }

  /** Offers pictures of the collection while there is no query. */
  async offer() {
    const signal = this.#begin("Or start with one of these", "");
    this.results.clear();
    try {
      this.results.offer(await sample(OFFERED, "", signal));
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
    return turn("search");
  }

  /** Asks for a part of the search. @param {object} page */
  async #ask(page) {
    const { signal } = this;
    const found = await ask(await this.query(), { ...this.fields, ...page }, signal);
    signal.throwIfAborted(); // the answer may have been there already
    return found;
  }

  /** @param {{hits: import("./api.js").Hit[], nextPageToken: string}} page */
  #showPage({ hits, nextPageToken }) {
    this.results.append(hits);
    this.pageToken = nextPageToken;
    this.more.hidden = !nextPageToken;
    byId("end").hidden = Boolean(nextPageToken) || this.results.count === 0;
    this.reaching.unobserve(this.more);
    this.reaching.observe(this.more); // tells anew whether it is near, were the page too short to move it away
  }

  /** @param {number} count of the first results */
  async #drawBoxes(count) {
    const { signal } = this;
    try {
      const { hits } = await this.#ask({ pageSize: count, localizeCount: count });
      announce(`Boxes on ${this.results.drawBoxes(hits)} results.`);
    } catch (error) {
      if (!signal.aborted) tell(error, "localize-error");
    }
  }

  async #next() {
    const { pageToken, signal } = this;
    if (!pageToken) return;
    this.pageToken = ""; // a page is asked for once
    const held = document.activeElement === this.more ? this.results.count : -1;
    byId("results-error").hidden = true;
    try {
      const page = await this.#ask({ pageSize: PAGE_SIZE, pageToken });
      this.#showPage(page);
      announce(`${page.hits.length} more results, ${this.results.count} in all.`);
      if (held >= 0) this.results.focus(held); // to read on where the list ended
    } catch (error) {
      if (signal.aborted) return;
      if (error.reason === "PAGE_TOKEN_EXPIRED") return this.#renew();
      report(error, () => {
        this.pageToken = pageToken;
        this.#next();
      });
    }
  }

  /** The collection is another one by now, and so are the results from the first page on. */
  async #renew() {
    await this.again();
    byId("results-note").textContent = "The collection has changed: these results are new.";
    announce("The collection has changed: these results are new.");
  }
}
