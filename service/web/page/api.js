// @ts-check
/** The server's methods as JSON over HTTP: tokens, patience with a busy server, errors by their reason. */

/** @typedef {import("./dom.js").Box} Box */
/** @typedef {{name: string, uri: string, width: number, height: number, metadata: Record<string, any>}} Image */
/** @typedef {{image: Image, score: number, box: Box | null}} Hit */
/** @typedef {{index: number, share: number, colour: string, png: string, similar: Hit[]}} Factor */
/** @typedef {{name?: string, base64?: string}} Query a stored picture by its name, or an upload's bytes */

const MOST_PICTURES_AT_ONCE = 4; // so that thumbnails never stand in the way of a search
const MOST_TRIES = 4;
const LONGEST_WAIT_S = 8;
const TOKEN_KEY = "whatwhere-token";

/** An answer that is none. `reason` is the server's stable name for it; UNREACHABLE where there was no answer. */
export class ApiError extends Error {
  /** @param {string} message @param {{reason: string, status?: number, field?: string, waitS?: number}} facts */
  constructor(message, { reason, status = 0, field = "", waitS = 0 }) {
    super(message);
    Object.assign(this, { reason, status, field, waitS });
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY) ?? "",
  /** @param {string} value */
  set: (value) => sessionStorage.setItem(TOKEN_KEY, value.trim()),
};

/** `onWait` is told how many requests wait for a busy server. */
export const patience = { waiting: 0, onWait: /** @param {number} waiting */ (waiting) => void waiting };

/** @type {Record<string, AbortController>} */
const turns = {};

/** Begins a turn of requests about something, and ends the one before, whose answers nobody wants any more.
 * @param {string} about @returns {AbortSignal} */
export function turn(about) {
  turns[about]?.abort();
  turns[about] = new AbortController();
  return turns[about].signal;
}

/** @param {string} path @param {RequestInit} options @returns {Promise<Response>} */
async function once(path, options) {
  const headers = new Headers(options.headers);
  if (token.get()) headers.set("Authorization", `Bearer ${token.get()}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new ApiError("The server cannot be reached.", { reason: "UNREACHABLE" });
  }
  if (response.ok) return response;
  throw await failure(response);
}

/** Reads a google.rpc.Status; whatever else stands in between may answer too. @param {Response} response */
async function failure(response) {
  const { error = {} } = await response.json().catch(() => ({}));
  const details = error.details ?? [];
  const reason = details.find((detail) => detail.reason)?.reason ?? error.status ?? "UNKNOWN";
  const field = details.find((detail) => detail.fieldViolations)?.fieldViolations[0]?.field ?? "";
  const id = response.status >= 500 && response.headers.get("X-Request-Id"); // as the server's log names it
  const message = error.message ?? `the server answered with status ${response.status}`;
  const waitS = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(sentence(id ? `${message} (request ${id})` : message), {
    reason,
    status: response.status,
    field,
    waitS,
  });
}

/** As a sentence; what begins with a name, such as images/12, keeps it. @param {string} words */
function sentence(words) {
  const begun = /^[a-z]+[\s,:]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Asks, and asks again as often as a busy server may hope for. @param {string} path @param {RequestInit} options */
async function patiently(path, options) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(path, options);
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt === MOST_TRIES) throw error;
      await pause(Math.min(error.waitS || attempt, LONGEST_WAIT_S), options.signal);
    }
  }
}

/** @param {number} seconds @param {AbortSignal | null | undefined} signal */
async function pause(seconds, signal) {
  patience.onWait((patience.waiting += 1));
  try {
    await new Promise((resolve, reject) => {
      setTimeout(resolve, seconds * 1000);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  } finally {
    patience.onWait((patience.waiting -= 1));
  }
}

/** @param {string} path @param {AbortSignal} [signal] */
const get = async (path, signal) => (await patiently(path, { signal })).json();

/** @param {string} method @param {Query | null} query @param {object} fields @param {AbortSignal} [signal] */
async function post(method, query, fields, signal) {
  const json = JSON.stringify(query?.name ? { image: query.name, ...fields } : fields);
  // In parts: an upload's base64, which needs no escaping, is not copied into yet another string of its length.
  const comma = json === "{}" ? "" : ",";
  const body = query?.base64 ? new Blob(['{"imageContent":"', query.base64, `"${comma}`, json.slice(1)]) : json;
  const headers = { "Content-Type": "application/json" };
  return (await patiently(`v1/images:${method}`, { method: "POST", headers, body, signal })).json();
}

// What is 0 or empty is not in the JSON.

/** @returns {Box | null} */
const toBox = (box) => (box ? { xMin: 0, yMin: 0, xMax: 0, yMax: 0, ...box } : null);

/** @returns {Image} */
const toImage = ({ name, uri = "", widthPx = 1, heightPx = 1, metadata = {} }) => ({
  name,
  uri,
  width: widthPx,
  height: heightPx,
  metadata,
});

/** @returns {Hit} */
const toHit = ({ image, score = 0, box }) => ({ image: toImage(image), score, box: toBox(box) });

/** @param {any} factor @returns {Factor} */
const toFactor = ({ index = 0, energyShare = 0, colour = "#888888", heatmap = {}, similar = [] }) => ({
  index,
  share: energyShare,
  colour,
  png: heatmap.png ?? "",
  similar: similar.map(toHit),
});

/** @param {Query} query @param {object} fields @param {AbortSignal} signal */
export async function search(query, fields, signal) {
  const {
    hits = [],
    nextPageToken = "",
    regionFallback = false,
    keptFactorCount = 0,
  } = await post("search", query, fields, signal);
  return { hits: hits.map(toHit), nextPageToken, regionFallback, keptFactorCount };
}

/** @param {Query} query @param {object} fields @param {AbortSignal} signal @returns {Promise<Factor[]>} */
export async function explain(query, fields, signal) {
  return ((await post("explain", query, fields, signal)).factors ?? []).map(toFactor);
}

/** The factors of the query and of a stored picture, joint.
 * @param {Query} query @param {object} fields @param {AbortSignal} signal */
export async function compare(query, fields, signal) {
  const { images } = await post("compare", query, fields, signal);
  return images.map(({ factors = [] }) => /** @type {Factor[]} */ (factors.map(toFactor)));
}

/** @param {number} count @param {string} filter @param {AbortSignal} [signal] */
export async function sample(count, filter, signal) {
  const { images = [] } = await post("sample", null, { count, filter }, signal);
  return /** @type {Image[]} */ (images.map(toImage));
}

/** @param {string} name @param {AbortSignal} [signal] */
export const image = async (name, signal) => toImage((await get(`v1/${path(name)}`, signal)).image);

/** @param {AbortSignal} [signal] */
export const collection = async (signal) => (await get("v1/collection", signal)).collection;

/** "images/12" as a path, whatever a person typed. @param {string} name */
const path = (name) => `images/${encodeURIComponent(name.replace(/^images\//, ""))}`;

let pictures = 0;
/** @type {(() => void)[]} */
const queue = [];

/** A stored picture's thumbnail as the address of a blob, since an <img> could send no token.
 * @param {string} name @param {number} sizePx @param {AbortSignal} [signal] */
export async function picture(name, sizePx, signal) {
  if (pictures >= MOST_PICTURES_AT_ONCE) await new Promise((resolve) => queue.push(() => resolve(null)));
  pictures += 1;
  try {
    signal?.throwIfAborted();
    const response = await patiently(`v1/${path(name)}/content?sizePx=${sizePx}`, { signal });
    return URL.createObjectURL(await response.blob());
  } finally {
    pictures -= 1;
    queue.shift()?.();
  }
}

/** A file's bytes in base64. @param {Blob} file @returns {Promise<string>} */
export function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] ?? "");
    reader.onerror = () => reject(new ApiError("The file cannot be read.", { reason: "UNREADABLE_IMAGE" }));
    reader.readAsDataURL(file);
  });
}
