// @ts-check
/** Shows the grid of results. */

import { byId, make } from "./dom.js";
import { framed, mark, titleOf } from "./pictures.js";

/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./api.js").Image} Image */

const THUMBNAIL_PX = 400;

export class Results {
  /** @param {{onOpen: (name: string) => void, onMatch: (hit: Hit) => void}} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.list = byId("hits");
    this.clear();
  }

  get count() {
    return this.shown.size;
  }

  clear() {
    this.pictures?.abort();
    this.pictures = new AbortController();
    /** @type {Map<string, {hit: Hit, frame: HTMLElement}>} by image name */
    this.shown = new Map();
    this.list.replaceChildren();
    this.busy(false);
  }

  /** Puts the focus on a result. @param {number} index */
  focus(index) {
    this.list.children[index]?.querySelector("button").focus();
  }

  /** Dims the previous results. @param {boolean} busy */
  busy(busy) {
    this.list.setAttribute("aria-busy", busy);
  }

  /** @param {Hit[]} hits */
  append(hits) {
    this.list.append(...hits.map((hit) => this.#card(hit, hit.score.toFixed(2))));
  }

  /** Shows images to start with. @param {Image[]} images */
  offer(images) {
    this.list.append(...images.map((image) => this.#card({ image, score: 0, box: null }, null)));
  }

  /** Draws boxes on the shown results. @param {Hit[]} hits @returns {number} number of boxes */
  drawBoxes(hits) {
    for (const { image, box } of hits) {
      const shown = this.shown.get(image.name);
      if (!shown) continue;
      shown.hit.box = box;
      mark(shown.frame, box);
    }
    return hits.filter((hit) => hit.box).length;
  }

  /** @param {Hit} hit @param {string | null} score null for an image to start with */
  #card(hit, score) {
    const { image } = hit;
    const title = titleOf(image);
    const frame = framed(image, { sizePx: THUMBNAIL_PX, signal: this.pictures.signal });
    mark(frame, hit.box);
    this.shown.set(image.name, { hit, frame });
    const rest = (/** @type {string} */ words) => make("span", { class: "unseen" }, words);
    const open = () => this.handlers.onOpen(image.name);
    const match = () => this.handlers.onMatch(hit);
    const onclick = score === null ? open : match; // pointer shortcut: the buttons below do the same
    return make(
      "li",
      { class: "hit" },
      make("div", { class: "hit-picture", onclick }, frame),
      make(
        "div",
        { class: "hit-text" },
        make("span", { class: "hit-name", title: `${image.name}\n${image.uri}` }, title),
        score && make("span", { class: "hit-score", title: "Cosine similarity" }, rest("score "), score),
      ),
      make(
        "div",
        { class: "hit-actions" },
        score &&
          make(
            "button",
            { type: "button", class: "match", "aria-haspopup": "dialog", onclick: match },
            "What matched",
            rest(` in ${title}`),
          ),
        make("button", { type: "button", class: "open", onclick: open }, "Search by this", rest(`: ${title}`)),
      ),
    );
  }
}
