// @ts-check
/** Shows stored images in frames of their shape; fetches them when they come into view. */

import { picture } from "./api.js";
import { make, place } from "./dom.js";

/** @typedef {import("./dom.js").Box} Box */
/** @typedef {import("./api.js").Image} Image */

/** @type {Box} */
const WHOLE = { xMin: 0, yMin: 0, xMax: 1, yMax: 1 };
const MARGIN = 0.4; // around a crop's box, as a fraction of it
/** @type {WeakMap<Element, () => void>} */
const fetches = new WeakMap();
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      fetches.get(target)?.();
    }
  },
  { rootMargin: "400px" },
);

/**
 * Makes a frame that has its final size before the picture is loaded.
 * @param {Image} image
 * @param {{sizePx: number, signal: AbortSignal, part?: Box}} options `part`: the visible part
 */
export function framed(image, { sizePx, signal, part = WHOLE }) {
  const shown = make("img", { alt: "", draggable: "false" });
  const frame = make("span", { class: "frame" }, shown);
  const [width, height] = [part.xMax - part.xMin, part.yMax - part.yMin];
  const ratio = (image.width * width) / (image.height * height);
  frame.style.setProperty("--ratio", `${ratio}`);
  place(shown, within(WHOLE, part));
  fetches.set(frame, () => fill(frame, shown, image, sizePx, signal));
  near.observe(frame);
  return frame;
}

/** Fetches a frame's picture.
 * @param {HTMLElement} frame @param {any} shown @param {Image} image
 * @param {number} sizePx @param {AbortSignal} signal */
async function fill(frame, shown, image, sizePx, signal) {
  try {
    const url = await picture(image.name, sizePx, signal);
    shown.onload = () => {
      URL.revokeObjectURL(url); // the picture is decoded: its bytes are no longer needed
      frame.classList.add("here");
    };
    shown.src = url;
  } catch (error) {
    if (!signal.aborted) frame.append(make("span", { class: "absent" }, "No picture"));
  }
}

/** Marks a box on a frame, in place of the previous one.
 * @param {HTMLElement} frame @param {Box | null} box @param {Box} [part] */
export function mark(frame, box, part = WHOLE) {
  frame.querySelector(".mark")?.remove();
  if (box) frame.append(marked(within(box, part)));
}

/** @param {Box} box @param {string} [kind] @returns {HTMLElement} */
export function marked(box, kind = "") {
  const made = make("span", { class: `mark ${kind}`, "aria-hidden": "true" });
  place(made, box);
  return made;
}

/** @param {Box} box @param {Box} part @returns {Box} the box in fractions of the part */
function within(box, part) {
  const [width, height] = [part.xMax - part.xMin, part.yMax - part.yMin];
  return {
    xMin: (box.xMin - part.xMin) / width,
    yMin: (box.yMin - part.yMin) / height,
    xMax: (box.xMax - part.xMin) / width,
    yMax: (box.yMax - part.yMin) / height,
  };
}

/** Returns a square around a box, with a margin, within the image. @param {Image} image @param {Box} box */
export function around(image, box) {
  const size = Math.max((box.xMax - box.xMin) * image.width, (box.yMax - box.yMin) * image.height) * (1 + MARGIN);
  const [left, right] = span(box.xMin, box.xMax, size / image.width);
  const [top, bottom] = span(box.yMin, box.yMax, size / image.height);
  return { xMin: left, yMin: top, xMax: right, yMax: bottom };
}

/** @param {number} low @param {number} high @param {number} length all in fractions of a side */
function span(low, high, length) {
  const start = Math.min(Math.max((low + high - length) / 2, 0), Math.max(1 - length, 0));
  return [start, Math.min(start + length, 1)];
}

/** Returns an image's file name. @param {Image} image */
export function titleOf(image) {
  const last = image.uri.split("/").pop() || image.name;
  try {
    return decodeURIComponent(last);
  } catch {
    return last; // a percent sign that encodes nothing
  }
}
