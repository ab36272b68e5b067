// @ts-check
/** Calls the server's methods as JSON over HTTP: bearer token, retries, errors by reason. */

/** @typedef {import("./dom.js").Box} Box */
/** @typedef {{name: string, uri: string, width: number, height: number, metadata: Record<string, any>}} Image */
/** @typedef {{image: Image, score: number, box: Box | null}} Hit */
/** @typedef {{index: number, share: number, color: string, png: string, similar: Hit[]}} Factor */
/** @typedef {{name?: string, base64?: string}} Query a stored image by name, or an upload's bytes */

const MAX_CONCURRENT_PICTURES = 4; // thumbnails must not delay a search
const MAX_ATTEMPTS = 4;
const MAX_WAIT_S = 8;
const TOKEN_KEY = "whatwhere-token";

/** A failed call. `reason` is the server's stable name of the error, or UNREACHABLE if there was no response.
 * `token` is the one that was sent. */
export class ApiError extends Error {
  /** @param {string} message
   * @param {{reason: string, status?: number, field?: string, waitS?: number, token?: string}} facts */
  constructor(message, { reason, status = 0, field = "", waitS = 0, token: sent = "" }) {
    super(message);
    Object.assign(this, { reason, status, field, waitS, token: sent });
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY) ?? "",
  /** @param {string} value */
  set: (value) => sessionStorage.setItem(TOKEN_KEY, value.trim()),
};

/** `onWait` receives the number of requests that wait for a retry. */
export const retries = { waiting: 0, onWait: /** @param {number} waiting */ (waiting) => void waiting };

/** @type {Record<string, AbortController>} */
const controllers = {};

/** Aborts the previous requests of a topic, and returns the signal of the next ones.
 * @param {string} topic @returns {AbortSignal} */
export function supersede(topic) {
  controllers[topic]?.abort();
  controllers[topic] = new AbortController();
  return controllers[topic].signal;
}

/** @param {string} path @param {RequestInit} options @returns {Promise<Response>} */
async function request(path, options) {
  const headers = new Headers(options.headers);
  const sent = token.get();
  if (sent) headers.set("Authorization", `Bearer ${sent}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new ApiError("The server cannot be reached.", { reason: "UNREACHABLE" });
  }
  if (response.ok) return response;
  throw await failure(response, sent);
}

/** Reads a google.rpc.Status; a proxy's error may be anything else.
 * @param {Response} response @param {string} sent the token of the request */
async function failure(response, sent) {
  const { error = {} } = await response.json().catch(() => ({}));
  const details = error.details ?? [];
  const reason = details.find((detail) => detail.reason)?.reason ?? error.status ?? "UNKNOWN";
  const field = details.find((detail) => detail.fieldViolations)?.fieldViolations[0]?.field ?? "";
  const id = response.status >= 500 && response.headers.get("X-Request-Id"); // the same id as in the server's log
  const message = error.message ?? `the server answered with status ${response.status}`;
  const waitS = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(sentence(id ? `${message} (request ${id})` : message), {
    reason,
    status: response.status,
    field,
    waitS,
    token: sent,
  });
}

/** Formats a message as a sentence. A first word such as images/12 keeps its case. @param {string} words */
function sentence(words) {
  const begun = /^[a-z]+[\s,:]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Retries while the server is busy (429, 503). @param {string} path @param {RequestInit} options */
async function withRetries(path, options) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await request(path, options);
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt === MAX_ATTEMPTS) throw error;
      await pause(Math.min(error.waitS || attempt, MAX_WAIT_S), options.signal);
    }
  }
}

/** @param {number} seconds @param {AbortSignal | null | undefined} signal */
async function pause(seconds, signal) {
  retries.onWait((retries.waiting += 1));
  try {
    await new Promise((resolve, reject) => {
      setTimeout(resolve, seconds * 1000);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  } finally {
    retries.onWait((retries.waiting -= 1));
  }
}

/** @param {string} path @param {AbortSignal} [signal] */
const get = async (path, signal) => (await withRetries(path, { signal })).json();

/** @param {string} method @param {Query | null} query @param {object} fields @param {AbortSignal} [signal] */
async function post(method, query, fields, signal) {
  const json = JSON.stringify(query?.name ? { image: query.name, ...fields } : fields);
  // A Blob of parts: base64 needs no escaping, and an upload is not copied into another string of its length.
  const comma = json === "{}" ? "" : ",";
  const body = query?.base64 ? new Blob(['{"imageContent":"', query.base64, `"${comma}`, json.slice(1)]) : json;
  const headers = { "Content-Type": "application/json" };
  return (await withRetries(`v1/images:${method}`, { method: "POST", headers, body, signal })).json();
}

// The JSON lacks fields that are 0 or empty.

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
const toFactor = ({ index = 0, energyShare = 0, colour: color = "#888888", heatmap = {}, similar = [] }) => ({
  index,
  share: energyShare,
  color,
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

/** Returns the joint factors of the query and of a stored image.
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

/** Encodes "images/12" or any other input as a path. @param {string} name */
const path = (name) => `images/${encodeURIComponent(name.replace(/^images\//, ""))}`;

let pictures = 0;
/** @type {(() => void)[]} */
const queue = [];

/** Fetches a stored image's thumbnail as a blob URL, because an <img> cannot send a token.
 * @param {string} name @param {number} sizePx @param {AbortSignal} [signal] */
export async function picture(name, sizePx, signal) {
  if (pictures >= MAX_CONCURRENT_PICTURES) await new Promise((resolve) => queue.push(() => resolve(null)));
  pictures += 1;
  try {
    signal?.throwIfAborted();
    const response = await withRetries(`v1/${path(name)}/content?sizePx=${sizePx}`, { signal });
    return URL.createObjectURL(await response.blob());
  } finally {
    pictures -= 1;
    queue.shift()?.();
  }
}

/** Encodes a file in base64. @param {Blob} file @returns {Promise<string>} */
export function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] ?? "");
    reader.onerror = () => reject(new ApiError("The file cannot be read.", { reason: "UNREADABLE_IMAGE" }));
    reader.readAsDataURL(file);
  });
}
