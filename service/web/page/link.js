// @ts-check
/** A search as the address of the page, and back. */

/** @typedef {import("./dom.js").Box} Box */
/**
 * @typedef {object} Search
 * @property {string} image name of a stored picture; empty for an upload, or before there is a query
 * @property {number} upload number of a picture in this page's memory; 0 for none
 * @property {Box[]} boxes
 * @property {number[]} kept factors to search by, all when empty
 * @property {number[]} avoided factors to leave out
 * @property {string} descriptor without its prefix, as WHAT; empty for the best
 * @property {number} expansionCount
 * @property {number} localizeCount
 * @property {string} filter
 */

export const MOST_BOXES = 16;
const MOST_RESULTS = 20;
/** @type {Search} */
export const NOTHING = {
  ...{ image: "", upload: 0, boxes: [], kept: [], avoided: [] },
  ...{ descriptor: "", expansionCount: 0, localizeCount: 8, filter: "" },
};

/** Reads a search from an address; invalid parts are ignored. @param {string} query @returns {Search} */
export function read(query) {
  const said = new URLSearchParams(query);
  return {
    image: storedName(said.get("image") ?? ""),
    upload: 0,
    boxes: said
      .getAll("box")
      .map(toBox)
      .filter((box) => box !== null)
      .slice(0, MOST_BOXES),
    kept: indexes(said.get("keep")),
    avoided: indexes(said.get("avoid")),
    descriptor: (said.get("by") ?? "").toUpperCase().replace(/\W/g, "_"),
    expansionCount: count(said.get("expansion_count"), NOTHING.expansionCount),
    localizeCount: count(said.get("localize_count"), NOTHING.localizeCount),
    filter: said.get("filter") ?? "",
  };
}

/** @param {Search} search @returns {string} "" or "?…" */
export function write(search) {
  const said = [];
  const say = (/** @type {string} */ name, /** @type {string} */ value) =>
    said.push(`${name}=${encodeURIComponent(value).replace(/%2C/g, ",").replace(/%20/g, "+")}`);
  if (search.image) say("image", search.image.replace(/^images\//, ""));
  for (const box of search.boxes) say("box", [box.xMin, box.yMin, box.xMax, box.yMax].map(short).join());
  if (search.kept.length) say("keep", search.kept.join());
  if (search.avoided.length) say("avoid", search.avoided.join());
  if (search.descriptor) say("by", search.descriptor.toLowerCase().replace(/_/g, "-"));
  if (search.expansionCount !== NOTHING.expansionCount) say("expansion_count", `${search.expansionCount}`);
  if (search.localizeCount !== NOTHING.localizeCount) say("localize_count", `${search.localizeCount}`);
  if (search.filter) say("filter", search.filter);
  return said.length ? `?${said.join("&")}` : "";
}

/** "images/12" of that or of "12". @param {string} typed */
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
  return text !== null && /^\d+$/.test(text) ? Math.min(Number(text), MOST_RESULTS) : otherwise;
}
