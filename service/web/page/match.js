// @ts-check
/** Compares the query with a result: shows the heatmaps of their joint factors in the same colors. */

import { compare } from "./api.js";
import { byId, heatmapOf, make, percent } from "./dom.js";
import { showCallError, showError } from "./errors.js";
import { framed, mark, titleOf } from "./pictures.js";

/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./api.js").Factor} Factor */

const PICTURE_PX = 1024;
const HEATMAP_PX = 512;
const MAX_FACTS = 12;

export class Match {
  /** @param {(name: string) => void} onOpen */
  constructor(onOpen) {
    this.dialog = byId("match");
    byId("match-close").addEventListener("click", () => this.dialog.close());
    byId("match-search").addEventListener("click", () => {
      this.dialog.close();
      if (this.hit) onOpen(this.hit.image.name);
    });
    this.dialog.addEventListener("close", () => this.work?.abort());
    // A click on the backdrop has the dialog itself as its target.
    this.dialog.addEventListener(
      "click",
      (/** @type {MouseEvent} */ event) => event.target === this.dialog && this.dialog.close(),
    );
    byId("match-opacity").addEventListener("input", () => this.#opacity());
    this.#opacity();
  }

  /**
   * @param {import("./api.js").Query} query
   * @param {HTMLElement} queryFrame a separate frame with the query image
   * @param {Hit} hit
   */
  async open(query, queryFrame, hit) {
    this.hit = hit;
    this.work?.abort();
    const work = (this.work = new AbortController());
    const resultFrame = framed(hit.image, { sizePx: PICTURE_PX, signal: work.signal });
    mark(resultFrame, hit.box);
    const figure = (/** @type {HTMLElement} */ frame, /** @type {string} */ caption) =>
      make("figure", {}, make("div", { class: "fit" }, frame), make("figcaption", { class: "quiet" }, caption));
    const score = `${titleOf(hit.image)}, score ${hit.score.toFixed(2)}`;
    byId("match-pictures").replaceChildren(figure(queryFrame, "The query"), figure(resultFrame, score));
    byId("match-title").textContent = `What matched in ${titleOf(hit.image)}`;
    byId("match-factors").replaceChildren(make("span", { class: "quiet" }, "Loading …"));
    byId("match-facts").replaceChildren(...facts(hit.image));
    showError("match-error");
    this.dialog.showModal();
    try {
      const [ofQuery, ofResult] = await compare(
        query,
        { images: [hit.image.name], heatmapSizePx: HEATMAP_PX },
        work.signal,
      );
      const buttons = ofQuery.map((factor, place) =>
        this.#button([queryFrame, resultFrame], factor, ofResult[place]),
      );
      byId("match-factors").replaceChildren(...buttons);
    } catch (error) {
      if (work.signal.aborted) return;
      byId("match-factors").replaceChildren();
      showCallError(error, "match-error");
    }
  }

  /** Makes the button of one shared factor, and its heatmaps.
   * @param {HTMLElement[]} frames @param {Factor} inQuery @param {Factor} inResult */
  #button(frames, inQuery, inResult) {
    const shared = inQuery.share > 0 && inResult.share > 0;
    const heatmaps = [inQuery, inResult].map((factor, place) => {
      const heatmap = heatmapOf(factor);
      frames[place].append(heatmap);
      return heatmap;
    });
    const button = make(
      "button",
      { type: "button", class: "shared-factor", onclick: () => show(button.getAttribute("aria-pressed") !== "true") },
      make("span", { class: "swatch" }),
      make("span", { class: "unseen" }, "Factor "),
      `${inQuery.index}`,
      make("span", { class: "share" }, `${percent(inQuery.share)} | ${percent(inResult.share)}`),
    );
    button.style.setProperty("--color", inQuery.color);
    button.title = `${percent(inQuery.share)} of the query, ${percent(inResult.share)} of the result`;
    const show = (/** @type {boolean} */ shown) => {
      button.setAttribute("aria-pressed", shown);
      heatmaps.forEach((heatmap) => heatmap.classList.toggle("shown", shown));
      for (const frame of frames) frame.classList.toggle("heated", frame.querySelector(".shown") !== null);
    };
    show(shared);
    return button;
  }

  #opacity() {
    byId("match-pictures").style.setProperty("--opacity", String(byId("match-opacity").value / 100));
  }
}

/** Lists the metadata of a stored image. @param {import("./api.js").Image} image */
function facts(image) {
  const known = Object.entries(image.metadata).filter(([, value]) => typeof value !== "object");
  const rows = [["name", image.name], ["uri", image.uri], ["size", `${image.width} × ${image.height} px`], ...known];
  return rows
    .slice(0, MAX_FACTS)
    .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value))));
}
