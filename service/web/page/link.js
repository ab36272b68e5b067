// @ts-check
/** Converts a search to the page's address and back. */

/** @typedef {import("./dom.js").Box} Box */
/**
 * @typedef {object} Search
 * @property {string} image name of a stored image; empty for an upload or without a query
 * @property {number} upload number of an upload in this page's memory; 0 for none
 * @property {Box[]} boxes
 * @property {number[]} kept factors to search by, all when empty
 * @property {number[]} avoided factors to leave out
 * @property {string} descriptor without its prefix, as WHAT; empty for the best
 * @property {number} expansionCount
 * @property {number} localizeCount
 * @property {string} filter
 */

export const MAX_BOXES = 16;
const MAX_COUNT = 20;
/** @type {Search} */
export const NOTHING = {
  ...{ image: "", upload: 0, boxes: [], kept: [], avoided: [] },
  ...{ descriptor: "", expansionCount: 0, localizeCount: 8, filter: "" },
};

/** Reads a search from an address; invalid parts are ignored. @param {string} query @returns {Search} */
export function read(query) {
  const params = new URLSearchParams(query);
  return {
    image: storedName(params.get("image") ?? ""),
    upload: 0,
    boxes: params
      .getAll("box")
      .map(toBox)
      .filter((box) => box !== null)
      .slice(0, MAX_BOXES),
    kept: indexes(params.get("keep")),
    avoided: indexes(params.get("avoid")),
    descriptor: (params.get("by") ?? "").toUpperCase().replace(/\W/g, "_"),
    expansionCount: count(params.get("expansion_count"), NOTHING.expansionCount),
    localizeCount: count(params.get("localize_count"), NOTHING.localizeCount),
    filter: params.get("filter") ?? "",
  };
}

/** @param {Search} search @returns {string} "" or "?…" */
export function write(search) {
  const parts = [];
  const add = (/** @type {string} */ name, /** @type {string} */ value) =>
    parts.push(`${name}=${encodeURIComponent(value).replace(/%2C/g, ",").replace(/%20/g, "+")}`);
  if (search.image) add("image", search.image.replace(/^images\//, ""));
  for (const box of search.boxes) add("box", [box.xMin, box.yMin, box.xMax, box.yMax].map(short).join());
  if (search.kept.length) add("keep", search.kept.join());
  if (search.avoided.length) add("avoid", search.avoided.join());
  if (search.descriptor) add("by", search.descriptor.toLowerCase().replace(/_/g, "-"));
  if (search.expansionCount !== NOTHING.expansionCount) add("expansion_count", `${search.expansionCount}`);
  if (search.localizeCount !== NOTHING.localizeCount) add("localize_count", `${search.localizeCount}`);
  if (search.filter) add("filter", search.filter);
  return parts.length ? `?${parts.join("&")}` : "";
}

/** Returns "images/12" for "images/12" or "12". @param {string} typed */
export function storedName(typed) {
  const id = typed.trim().replace(/^\/?images\//, "");
  return id ? `images/${id}` : "";
}

/** @param {number} fraction */
const short = (fraction) => +fraction.toFixed(4);

/** @param {string} text @returns {Box | null} */
function toBox(text) {
  const [xMin, yMin, xMax, yMax] = text.split(",").map(Number);
  return 0 <= xMin && xMin < xMax && xMax <= 1 && 0 <= yMin && yMin < yMax && yMax <= 1
    ? { xMin, yMin, xMax, yMax }
    : null;
}

/** @param {string | null} text */
const indexes = (text) => [...new Set((text ?? "").match(/\d+/g) ?? [])].map(Number);

/** @param {string | null} text @param {number} otherwise */
function count(text, otherwise) {
  return text !== null && /^\d+$/.test(text) ? Math.min(Number(text), MAX_COUNT) : otherwise;
}
