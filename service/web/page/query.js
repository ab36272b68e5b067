// @ts-check
/** Shows the query: a stored image, or an upload that is kept in this page's memory only. */

import { base64Of, image, picture, supersede } from "./api.js";
import { byId, make } from "./dom.js";
import { report } from "./errors.js";
import { marked, titleOf } from "./pictures.js";

/** @typedef {import("./link.js").Search} Search */

const PICTURE_PX = 1024;
const MAX_UPLOADS = 8; // reachable by the browser's back and forward buttons

export class QueryPicture {
  /** @type {Map<number, {file: File, url: string}>} by their numbers */
  uploads = new Map();
  /** @type {{upload: number, base64: Promise<string> | null}} of the last upload only: it is as large as the file */
  encoded = { upload: 0, base64: null };
  url = "";
  fetched = false; // whether `url` is of a stored image

  constructor() {
    this.shown = byId("query-picture");
    this.shown.addEventListener("load", () => this.#shape(this.shown.naturalWidth / this.shown.naturalHeight));
    this.shown.addEventListener("error", () =>
      this.#hide("This browser cannot show this picture. The server may read it."),
    );
  }

  /** Keeps an upload. @param {File} file @returns {number} its number */
  keep(file) {
    const number = Date.now();
    this.uploads.set(number, { file, url: URL.createObjectURL(file) });
    if (this.uploads.size > MAX_UPLOADS) {
      const [oldest, { url }] = [...this.uploads][0];
      URL.revokeObjectURL(url);
      this.uploads.delete(oldest);
    }
    return number;
  }

  /** Returns the query for a request. @param {Search} search @returns {Promise<import("./api.js").Query>} */
  async toRequest({ image: name, upload }) {
    if (!upload) return { name };
    if (this.encoded.upload !== upload) this.encoded = { upload, base64: base64Of(this.uploads.get(upload).file) };
    return { base64: await this.encoded.base64 };
  }

  /** @param {Search} search @param {() => void} again the action of "Try again" */
  async show(search, again) {
    const signal = supersede("query");
    if (this.fetched) URL.revokeObjectURL(this.url);
    Object.assign(this, { url: "", fetched: false });
    this.shown.removeAttribute("src");
    this.#hide("");
    const upload = this.uploads.get(search.upload);
    this.#name(upload?.file.name || search.image);
    try {
      if (upload) this.url = upload.url;
      else await this.#fetch(search.image, signal);
      this.shown.src = this.url;
    } catch (error) {
      if (signal.aborted) return;
      if (error.reason === "SOURCE_UNAVAILABLE") this.#hide(error.message);
      else report(error, again);
    }
  }

  /** @param {string} name @param {AbortSignal} signal */
  async #fetch(name, signal) {
    const fetching = picture(name, PICTURE_PX, signal);
    fetching.catch(() => {}); // awaited below, unless the next line fails
    const stored = await image(name, signal);
    this.#shape(stored.width / stored.height);
    this.#name(titleOf(stored));
    Object.assign(this, { url: await fetching, fetched: true });
  }

  /** Makes a second frame of the picture, with the boxes of a search. @param {Search} search @returns {HTMLElement} */
  frame({ boxes }) {
    const shown = make("img", { alt: "", src: this.url || null, draggable: "false" });
    const frame = make("span", { class: "frame here" }, shown, ...boxes.map((box) => marked(box, "asked")));
    frame.style.setProperty("--ratio", this.ratio ?? 1);
    return frame;
  }

  /** @param {number} ratio width over height */
  #shape(ratio) {
    this.ratio = ratio;
    byId("surface").style.setProperty("--ratio", `${ratio}`);
  }

  /** @param {string} title */
  #name(title) {
    byId("query-title").textContent = title;
    this.shown.alt = `Query: ${title}`;
    document.title = `${title} – whatwhere`;
  }

  /** Hides the picture and shows the reason; an empty reason shows the picture. @param {string} why */
  #hide(why) {
    byId("editor").classList.toggle("blind", why !== "");
    byId("editor-note").textContent = why;
  }
}
