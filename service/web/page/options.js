// @ts-check
/** Handles the options of a search: descriptor, query expansion, boxes on results, filter. */

import { byId, make } from "./dom.js";

/** @typedef {import("./link.js").Search} Search */

const DESCRIPTORS = {
  WHAT: "What: the same kind of thing",
  WHAT_AND_WHERE: "What and where: the same instance",
  ...{ MAC: "MAC", R_MAC: "R-MAC", CROW: "CroW", GEM: "GeM" },
};
const OF_FACTORS = ["", "WHAT", "WHAT_AND_WHERE", "FUSED"];
const COUNTS = ["expansionCount", "localizeCount"];

/** Returns whether a descriptor is made of factors; "" is the best descriptor. @param {string} descriptor */
export const hasFactors = (descriptor) => OF_FACTORS.includes(descriptor);

/** @param {(changes: Partial<Search>) => void} onChange */
export function wireOptions(onChange) {
  const on = (/** @type {string} */ id, /** @type {string} */ event, /** @type {(value: string) => void} */ then) =>
    byId(id).addEventListener(event, () => then(byId(id).value));
  on("descriptor", "change", (descriptor) => onChange({ descriptor }));
  for (const name of COUNTS) {
    on(name, "input", () => showCount(name));
    on(name, "change", (value) => onChange({ [name]: Number(value) }));
  }
  on("filter", "change", (filter) => onChange({ filter: filter.trim() }));
  on("filter", "search", (filter) => onChange({ filter: filter.trim() })); // × clears it without a change event
  byId("options").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
}

/** Offers the descriptors that a collection has. @param {string[]} has as the server names them */
export function offerDescriptors(has) {
  const offered = Object.entries(DESCRIPTORS).filter(([name]) => has.includes(`DESCRIPTOR_${name}`));
  const options = [["", "Best"], ...offered].map(([value, words]) => make("option", { value }, words));
  const chosen = byId("descriptor").value;
  byId("descriptor").replaceChildren(...options);
  choose(chosen);
}

/** Puts a search into the controls. @param {Search} search */
export function showOptions(search) {
  choose(search.descriptor);
  byId("filter").value = search.filter;
  for (const name of COUNTS) {
    byId(name).value = search[/** @type {"expansionCount" | "localizeCount"} */ (name)];
    showCount(name);
  }
}

/** Selects a descriptor. A link may name an unknown one: the server reports it. @param {string} descriptor */
function choose(descriptor) {
  const select = byId("descriptor");
  const known = [...select.options].some(({ value }) => value === descriptor);
  if (!known) select.append(make("option", { value: descriptor }, descriptor || "Best"));
  select.value = descriptor;
}

/** Shows the value of a slider, a number of results. @param {string} name */
function showCount(name) {
  const count = Number(byId(name).value);
  byId(`${name}-value`).textContent = count ? `first ${count}` : "off";
  byId(name).setAttribute("aria-valuetext", count ? `first ${count} results` : "off");
}
