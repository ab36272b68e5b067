// @ts-check
/** Lists the query's factors: their heatmaps, the choice of factors to search by, and similar factors. */

import { byId, heatmapOf, make, percent } from "./dom.js";
import { showCallError, showError } from "./errors.js";
import { around, framed, mark, titleOf } from "./pictures.js";

/** @typedef {import("./api.js").Factor} Factor */
/** @typedef {import("./api.js").Hit} Hit */

const CROP_PX = 400;

export class FactorPanel {
  /**
   * @param {object} handlers
   * @param {(choice: {kept: number[], avoided: number[]}) => void} handlers.onChoice
   * @param {() => Promise<Hit[][]>} handlers.similar for each factor
   * @param {(name: string) => void} handlers.onOpen
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.list = byId("factor-list");
    this.layers = byId("heatmaps");
    this.surface = byId("surface");
    /** @type {Map<number, any>} */
    this.rows = new Map();
    /** @type {{kept: number[], avoided: number[]}} */
    this.choice = { kept: [], avoided: [] };
    byId("opacity").addEventListener("input", () => this.#opacity());
    byId("show-all").addEventListener("click", () => this.#showAll());
    this.#opacity();
    this.clear("");
  }

  /** @param {string} note shown in place of the factors; if empty, the panel is hidden */
  clear(note) {
    byId("factors").hidden = note === "";
    this.pictures?.abort();
    this.pictures = new AbortController();
    this.rows.clear();
    this.list.replaceChildren();
    this.layers.replaceChildren();
    byId("factors-note").textContent = note;
    byId("factors-tools").hidden = true;
    showError("factors-error");
    this.#refresh();
  }

  /** @param {Factor[]} factors of the query, strongest first */
  show(factors) {
    this.clear("Show the heatmap of each factor. Keep factors to search by them alone, or leave some out.");
    const largest = Math.max(...factors.map((factor) => factor.share));
    for (const factor of factors) this.list.append(this.#row(factor, largest));
    byId("factors-tools").hidden = false;
  }

  /** Shows which factors are chosen. @param {number[]} kept @param {number[]} avoided */
  choose(kept, avoided) {
    this.choice = { kept, avoided };
    for (const [index, row] of this.rows) {
      row.keep.setAttribute("aria-pressed", kept.includes(index));
      row.avoid.setAttribute("aria-pressed", avoided.includes(index));
    }
  }

  /** Enables the choice of factors. If disabled, a choice can still be undone. @param {boolean} possible */
  allow(possible) {
    for (const { keep, avoid } of this.rows.values()) {
      for (const button of [keep, avoid])
        button.disabled = !possible && button.getAttribute("aria-pressed") === "false";
    }
  }

  /** @param {Factor} factor @param {number} largest */
  #row(factor, largest) {
    const number = `${factor.index}`;
    const unseen = (/** @type {string} */ words) => make("span", { class: "unseen" }, words);
    const show = make(
      "button",
      { type: "button", class: "show", "aria-pressed": "false" },
      make("span", { class: "swatch" }),
      unseen("Heatmap of factor "),
      number,
      make("span", { class: "share" }, percent(factor.share)),
      make("span", { class: "bar" }),
    );
    const button = (/** @type {string} */ words, /** @type {string} */ rest, /** @type {object} */ attributes) =>
      make("button", { type: "button", ...attributes }, words, unseen(rest));
    const about = ` factor ${number}`;
    const off = { "aria-pressed": "false" };
    const keep = button("Keep", about, { ...off, class: "keep", onclick: () => this.#toggle(factor.index, "kept") });
    const avoid = button("Leave out", about, {
      ...off,
      class: "avoid",
      onclick: () => this.#toggle(factor.index, "avoided"),
    });
    const like = button("Similar", ` to${about}`, {
      class: "like",
      "aria-expanded": "false",
      onclick: () => this.#similar(row),
    });
    const drawer = make("div", { class: "similar", hidden: true });
    const item = make("li", { class: "factor" }, make("div", { class: "factor-row" }, show, keep, avoid, like), drawer);
    item.style.setProperty("--color", factor.color);
    show.querySelector(".bar").style.width = `${(factor.share / largest) * 100}%`;

    const heatmap = heatmapOf(factor);
    const row = { factor, show, keep, avoid, like, drawer, heatmap };
    this.layers.append(heatmap);
    this.rows.set(factor.index, row);
    show.addEventListener("click", () => this.#press(row, show.getAttribute("aria-pressed") !== "true"));
    // Hovering over a factor previews its heatmap; touch has no hover.
    show.addEventListener("pointerenter", (/** @type {PointerEvent} */ event) =>
      this.#preview(row, event.pointerType === "mouse"),
    );
    show.addEventListener("pointerleave", () => this.#preview(row, false));
    return item;
  }

  /** @param {any} row @param {boolean} shown */
  #press(row, shown) {
    row.show.setAttribute("aria-pressed", shown);
    row.heatmap.classList.toggle("shown", shown);
    this.#refresh();
  }

  /** @param {any} row @param {boolean} shown */
  #preview(row, shown) {
    row.heatmap.classList.toggle("preview", shown);
    this.#refresh();
  }

  #showAll() {
    const shown = byId("show-all").getAttribute("aria-pressed") !== "true";
    for (const row of this.rows.values()) this.#press(row, shown);
  }

  #refresh() {
    this.surface.classList.toggle("heated", this.layers.querySelector(".shown, .preview") !== null);
    const rows = [...this.rows.values()];
    const all = rows.length > 0 && rows.every((row) => row.heatmap.classList.contains("shown"));
    byId("show-all").setAttribute("aria-pressed", all);
  }

  #opacity() {
    this.layers.style.setProperty("--opacity", String(byId("opacity").value / 100));
  }

  /** @param {number} index @param {"kept" | "avoided"} list */
  #toggle(index, list) {
    const without = (/** @type {number[]} */ indexes) => indexes.filter((other) => other !== index);
    const next = { kept: without(this.choice.kept), avoided: without(this.choice.avoided) };
    if (!this.choice[list].includes(index)) next[list].push(index);
    this.handlers.onChoice(next);
  }

  /** @param {any} row */
  async #similar({ factor, like, drawer }) {
    const open = like.getAttribute("aria-expanded") !== "true";
    like.setAttribute("aria-expanded", open);
    drawer.hidden = !open;
    if (!open || drawer.children.length) return;
    drawer.textContent = "Loading …";
    showError("factors-error");
    try {
      const hits = (await this.handlers.similar())[factor.index] ?? [];
      drawer.replaceChildren(...hits.map((hit) => this.#crop(hit)));
      if (!hits.length) drawer.textContent = "No similar factors.";
    } catch (error) {
      drawer.replaceChildren();
      drawer.hidden = true;
      like.setAttribute("aria-expanded", "false");
      if (!this.pictures.signal.aborted) showCallError(error, "factors-error");
    }
  }

  /** @param {Hit} hit */
  #crop({ image, score, box }) {
    const part = box ? around(image, box) : undefined;
    const frame = framed(image, { sizePx: CROP_PX, signal: this.pictures.signal, part });
    mark(frame, box, part);
    const label = `Search by ${titleOf(image)}, similarity ${score.toFixed(2)}`;
    return make(
      "button",
      { type: "button", title: label, "aria-label": label, onclick: () => this.handlers.onOpen(image.name) },
      frame,
    );
  }
}
