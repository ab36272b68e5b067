// @ts-check
/** Draws, moves and resizes boxes on the query image with a pointer or with keys. */

import { announce, byId, make, place } from "./dom.js";
import { MAX_BOXES } from "./link.js";

/** @typedef {import("./dom.js").Box} Box */

const EDGES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const MIN_SIDE = 0.02; // as a fraction of the picture's side
const STEP = 0.01;
const KEY_DEBOUNCE_MS = 500; // one search after a held key, not one per repeat
const DRAG_THRESHOLD_PX = 5; // a tap draws no box
const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @param {Box} box @param {number} dx @param {number} dy @returns {Box} */
function moved(box, dx, dy) {
  const x = clamp(dx, -box.xMin, 1 - box.xMax);
  const y = clamp(dy, -box.yMin, 1 - box.yMax);
  return { xMin: box.xMin + x, yMin: box.yMin + y, xMax: box.xMax + x, yMax: box.yMax + y };
}

/** Moves the given edges. @param {Box} box @param {string} edges @param {number} dx @param {number} dy */
function resized(box, edges, dx, dy) {
  const next = { ...box };
  if (edges.includes("w")) next.xMin = clamp(box.xMin + dx, 0, box.xMax - MIN_SIDE);
  if (edges.includes("e")) next.xMax = clamp(box.xMax + dx, box.xMin + MIN_SIDE, 1);
  if (edges.includes("n")) next.yMin = clamp(box.yMin + dy, 0, box.yMax - MIN_SIDE);
  if (edges.includes("s")) next.yMax = clamp(box.yMax + dy, box.yMin + MIN_SIDE, 1);
  return next;
}

export class RegionEditor {
  /** @param {HTMLElement} surface exactly as large as the picture @param {(boxes: Box[]) => void} onChange */
  constructor(surface, onChange) {
    this.surface = surface;
    this.onChange = onChange;
    /** @type {Box[]} */
    this.boxes = [];
    /** @type {any[]} */
    this.elements = [];
    /** @type {any} */
    this.drag = null;
    this.clear = byId("clear-boxes");
    this.clear.addEventListener("click", () => this.#removeAll());
    byId("add-box").addEventListener("click", () => this.add());
    surface.addEventListener("pointerdown", (event) => this.#down(event));
    surface.addEventListener("pointermove", (event) => this.#move(event));
    surface.addEventListener("pointerup", () => this.#up());
    surface.addEventListener("pointercancel", () => this.#cancel());
    surface.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Replaces the boxes. @param {Box[]} boxes */
  set(boxes) {
    clearTimeout(this.timer);
    this.drag = null;
    if (JSON.stringify(boxes) === JSON.stringify(this.boxes)) return; // keep the focus
    this.elements.forEach((element) => element.remove());
    this.elements = [];
    this.boxes = [...boxes];
    this.boxes.forEach(() => this.#element());
    this.#draw();
  }

  /** Adds a box in the middle and focuses it, for use without a pointer. */
  add() {
    if (this.#full()) return;
    const shift = (this.boxes.length % 4) * 0.05;
    this.boxes.push({ xMin: 0.3 + shift, yMin: 0.3 + shift, xMax: 0.7 + shift, yMax: 0.7 + shift });
    this.#element().focus();
    this.#draw();
    this.#notify();
  }

  /** @param {number} index */
  remove(index) {
    this.boxes.splice(index, 1);
    this.elements.splice(index, 1)[0].remove();
    this.#draw();
    (this.elements[Math.min(index, this.elements.length - 1)] ?? byId("add-box")).focus();
    announce(`Box removed. ${this.boxes.length} left.`);
    this.#notify();
  }

  #removeAll() {
    this.set([]);
    byId("add-box").focus(); // the pressed button is hidden now
    announce("All boxes removed.");
    this.#notify();
  }

  #full() {
    if (this.boxes.length < MAX_BOXES) return false;
    announce(`There can be at most ${MAX_BOXES} boxes.`);
    return true;
  }

  #element() {
    const element = make(
      "div",
      // role=application: screen readers pass the arrow keys on.
      {
        class: "region",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "box",
        "aria-describedby": "box-keys",
      },
      ...EDGES.map((edges) => make("span", { class: `handle ${edges}`, "data-edges": edges })),
      make("span", { class: "number", "aria-hidden": "true" }),
      make(
        "button",
        { type: "button", class: "remove", onclick: () => this.remove(this.elements.indexOf(element)) },
        "×",
      ),
    );
    this.elements.push(element);
    this.surface.append(element);
    return element;
  }

  #draw() {
    this.surface.dataset.count = String(this.boxes.length);
    this.clear.hidden = this.boxes.length === 0;
    this.boxes.forEach((box, index) => {
      const element = this.elements[index];
      place(element, box);
      const [left, top, width, height] = [box.xMin, box.yMin, box.xMax - box.xMin, box.yMax - box.yMin].map((part) =>
        Math.round(part * 100),
      );
      const where = `${left} % from the left, ${top} % from the top, ${width} % wide, ${height} % high`;
      element.setAttribute("aria-label", `Box ${index + 1} of ${this.boxes.length}: ${where}`);
      element.querySelector(".number").textContent = this.boxes.length > 1 ? index + 1 : "";
      element.querySelector(".remove").setAttribute("aria-label", `Remove box ${index + 1}`);
    });
  }

  #notify() {
    clearTimeout(this.timer);
    this.onChange([...this.boxes]);
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const frame = this.surface.getBoundingClientRect();
    return {
      x: clamp((event.clientX - frame.left) / frame.width, 0, 1),
      y: clamp((event.clientY - frame.top) / frame.height, 0, 1),
    };
  }

  /** @param {PointerEvent} event */
  #down(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.button !== 0 || !event.isPrimary || target.closest(".remove")) return;
    event.preventDefault();
    const element = /** @type {HTMLElement | null} */ (target.closest(".region"));
    const index = element ? this.elements.indexOf(element) : -1;
    const edges = target.dataset.edges ?? "";
    element?.focus({ preventScroll: true });
    if (!element) /** @type {any} */ (document.activeElement)?.blur?.();
    this.drag = { index, edges, from: this.#point(event), box: this.boxes[index], x: event.clientX, y: event.clientY };
    this.surface.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const { drag } = this;
    if (!drag) return;
    if (!drag.begun && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_THRESHOLD_PX) return;
    drag.begun = true;
    const { x, y } = this.#point(event);
    if (drag.index < 0) {
      if (this.#full()) return this.#cancel();
      drag.index = this.boxes.length;
      drag.drawn = true;
      this.boxes.push({ xMin: 0, yMin: 0, xMax: 0, yMax: 0 });
      this.#element();
    }
    const { from } = drag;
    if (drag.drawn) {
      const [xMin, xMax] = [Math.min(x, from.x), Math.max(x, from.x)];
      const [yMin, yMax] = [Math.min(y, from.y), Math.max(y, from.y)];
      this.boxes[drag.index] = { xMin, yMin, xMax, yMax };
    } else if (drag.edges) {
      this.boxes[drag.index] = resized(drag.box, drag.edges, x - from.x, y - from.y);
    } else {
      this.boxes[drag.index] = moved(drag.box, x - from.x, y - from.y);
    }
    this.#draw();
  }

  #up() {
    const { drag } = this;
    this.drag = null;
    if (!drag?.begun) return;
    const box = this.boxes[drag.index];
    if (drag.drawn && (box.xMax - box.xMin < MIN_SIDE || box.yMax - box.yMin < MIN_SIDE)) {
      this.#undo(drag);
      return;
    }
    this.elements[drag.index].focus({ preventScroll: true });
    this.#notify();
  }

  #cancel() {
    const { drag } = this;
    this.drag = null;
    if (drag?.begun && drag.index >= 0) this.#undo(drag);
  }

  /** @param {any} drag */
  #undo(drag) {
    if (drag.drawn) {
      this.boxes.pop();
      this.elements.pop().remove();
    } else {
      this.boxes[drag.index] = drag.box;
    }
    this.#draw();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === "Escape" && this.drag) return this.#cancel();
    const index = this.elements.indexOf(event.target);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.remove(index);
    } else if (event.key in KEYS) {
      event.preventDefault();
      const [dx, dy] = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
      const box = this.boxes[index];
      this.boxes[index] = event.shiftKey ? resized(box, "es", dx, dy) : moved(box, dx, dy);
      this.#draw();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        announce(this.elements[index]?.getAttribute("aria-label") ?? "");
        this.#notify();
      }, KEY_DEBOUNCE_MS);
    }
  }
}
