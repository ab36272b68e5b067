// @ts-check
/** Creates elements. Text is always set as text, so that data never becomes markup. */

/** @typedef {{xMin: number, yMin: number, xMax: number, yMax: number}} Box fractions of the upright picture */

/** @param {string} id */
export const byId = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * Makes an element. Attributes that are false or null are left out; functions are listeners ("onclick").
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Positions an element over a part of its parent. @param {HTMLElement} element @param {Box} box */
export function place(element, box) {
  element.style.left = `${box.xMin * 100}%`;
  element.style.top = `${box.yMin * 100}%`;
  element.style.width = `${(box.xMax - box.xMin) * 100}%`;
  element.style.height = `${(box.yMax - box.yMin) * 100}%`;
}

/** Makes the <img> of a heatmap, to overlay on a photograph. @param {{png: string}} factor */
export const heatmapOf = (factor) =>
  make("img", { class: "heatmap", alt: "", src: `data:image/png;base64,${factor.png}`, draggable: "false" });

/** @param {number} share of 1 */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** Announces a message to screen readers. The delay makes them repeat an unchanged message. @param {string} words */
export function announce(words) {
  const announcer = byId("announcer");
  announcer.textContent = "";
  setTimeout(() => (announcer.textContent = words), 60);
}
