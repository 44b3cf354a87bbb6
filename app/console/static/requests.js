// What the playground sends to the API: a request with its files, and the question what it would cost.

import { api, csrf, ApiError } from "./app.js";

export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Return the quote for a request; `tiny` pictures stand for the true ones. */
export function quoteFor({ path, json, tiny }, signal) {
  return api("/v1/quote", { method: "POST", body: { endpoint: path, ...json, prompt: json.prompt ?? "-", ...tiny }, signal });
}

/** Send a request once per `key`; it is refused if it costs more than `limit` credits. Returns the task and the request's id. */
export async function post({ path, json, files, key, limit }) {
  const all = { ...json, max_credits: limit, ...(path.startsWith("images/") ? { async: true } : {}) };
  let body = JSON.stringify(all);
  if (files.length) {
    body = new FormData();
    for (const [name, value] of Object.entries(all)) {
      for (const one of Array.isArray(value) ? value : [value]) body.append(Array.isArray(value) ? `${name}[]` : name, String(one));
    }
    for (const file of files) body.append(`${file.field}${file.isList ? "[]" : ""}`, file.blob, file.name);
  }
  const response = await fetch(`/v1/${path}`, {
    method: "POST", body,
    headers: { accept: "application/json", "x-csrf-token": csrf(), "idempotency-key": key, ...(files.length ? {} : { "content-type": "application/json" }) },
  });
  if (!response.ok) throw await ApiError.of(response);
  let task = await response.json();
  if (task.object !== "task") task = await api(`/v1/tasks/${task.id}`); // a remix answers with a video
  return { task, requestId: response.headers.get("x-request-id") };
}
