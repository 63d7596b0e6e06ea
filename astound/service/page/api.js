// Requests to the service this page comes from. Addresses are relative: a proxy may add a path.

const KEY = "astound-key";
const MAX_TRIES = 30;
const RETRY_MS = 1000;

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? "The service cannot be reached.");
    this.status = status;
    this.code = body?.code ?? "unreachable";
    this.result = body?.result;
  }
}

export function storedKey() {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
}

export function storeKey(key, isKept) {
  for (const storage of [sessionStorage, localStorage]) storage.removeItem(KEY);
  if (key) (isKept ? localStorage : sessionStorage).setItem(KEY, key);
}

function headers(more = {}) {
  const key = storedKey();
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
}

function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** Repeat a request as long as the service is loading, busy or full. */
async function patiently(send, { signal, onWait = () => {} } = {}) {
  for (let n = 1; ; n += 1) {
    try {
      return await send();
    } catch (error) {
      const mayPass = [429, 503].includes(error.status);
      if (!mayPass || n === MAX_TRIES) throw error;
      onWait(error);
      await wait(RETRY_MS, signal);
    }
  }
}

async function call(method, path, { body, signal, keepalive } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, keepalive,
      headers: headers(body ? { "content-type": "application/json" } : {}),
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

/** Send a clip or a form; fetch cannot report the progress of an upload. */
function upload(path, body, { signal, onProgress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    if (!(body instanceof FormData)) request.setRequestHeader("content-type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status < 300 ? resolve(request.response) : reject(new Problem(request.status, request.response));
    request.onerror = () => reject(new Problem(0, null));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** Query a clip; one that is not usable audio is a result with an error. */
export async function query(clip, parameters, options = {}) {
  const path = `v1/query?${new URLSearchParams(parameters)}`;
  try {
    return await patiently(() => upload(path, clip, options), options);
  } catch (error) {
    if (error.result) return error.result;
    throw error;
  }
}

export function explain(clip, parameters) {
  const path = `v1/explain?${new URLSearchParams(parameters)}`;
  return patiently(() => upload(path, clip));
}

export const tracks = (parameters, signal) =>
  patiently(() => call("GET", `v1/tracks?${new URLSearchParams(parameters)}`, { signal }), { signal });
export const track = (id) => call("GET", `v1/tracks/${id}`);
export const stats = () => call("GET", "v1/stats");
export const recentQueries = (limit) => call("GET", `v1/queries?limit=${limit}`).then((page) => page.queries);
export const update = (id, changes) =>
  patiently(() => call("PATCH", `v1/tracks/${id}`, { body: changes }));
export const remove = (id) => patiently(() => call("DELETE", `v1/tracks/${id}`));
/** Delete a track while the page is being closed. */
export const removeAtLast = (id) => call("DELETE", `v1/tracks/${id}`, { keepalive: true });
export const peaks = (id, nBins, signal) =>
  patiently(() => call("GET", `v1/tracks/${id}/peaks?n-bins=${nBins}`, { signal }), { signal });

/** Address of the audio of a track, which an audio element can load; it sends no key. */
export async function audioAddress(id) {
  const path = `v1/tracks/${id}/audio`;
  if (!storedKey()) return path;
  return URL.createObjectURL(await download(path));
}

async function download(path) {
  const response = await fetch(path, { headers: headers() }).catch(() => null);
  if (!response?.ok) throw new Problem(response?.status ?? 0, await response?.json().catch(() => null));
  return response.blob();
}

export async function metrics() {
  return (await download("metrics")).text();
}

// -- jobs ---------------------------------------------------------------------------------------

/** Create a job; `given` is a form with files, an object with paths, or nothing. */
export function createJob(kind, given, options = {}) {
  const path = `v1/${kind}`;
  const send = given instanceof FormData
    ? () => upload(path, given, options)
    : () => call("POST", path, { body: given, signal: options.signal });
  return patiently(send, options);
}

/** Some entries of a folder below the media folder of the service. */
export const media = (path, cursor = 0) => call("GET", `v1/media?${new URLSearchParams({ path, cursor })}`);
export const jobs = () => patiently(() => call("GET", "v1/jobs?limit=100")).then((page) => page.jobs);
export const job = (id) => patiently(() => call("GET", `v1/jobs/${id}`));
export const cancelJob = (id) => call("DELETE", `v1/jobs/${id}`);
export const timeline = (id, format) => download(`v1/jobs/${id}/timeline?format=${format}`);

export const hasEnded = (job) => ["done", "failed", "cancelled"].includes(job.status);

/** Call `onChange` with the state of a job, without its result, until it has ended. */
export async function follow(id, onChange, signal) {
  let state = null;
  while (!state || !hasEnded(state)) {
    try {
      const response = await fetch(`v1/jobs/${id}/events`, { headers: headers(), signal });
      if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
      await readEvents(response.body, (data) => onChange((state = data)));
    } catch (error) {
      const mayPass = !(error instanceof Problem) || [429, 503].includes(error.status);
      if (error.name === "AbortError" || !mayPass) throw error;
    }
    if (!state || !hasEnded(state)) await wait(RETRY_MS, signal);
  }
}

async function readEvents(stream, onData) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) onData(JSON.parse(data.slice(6)));
    }
  }
}
