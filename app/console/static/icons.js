// Small things that several scripts of the playground show: icons, shapes, sizes, times, where a result is.

import { element, language } from "./app.js";

/** Where a result's file is: the session opens it, and the address does not run out. */
export const address = (task, kind = task.type.split(".")[0]) => `/api/jobs/${task.id}/${kind}`;
/** Where a small picture of a finished task is: enough for a list. */
export const preview = (task) => `/console/preview/${task.id}/0`;
export const moment = (seconds) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(seconds * 1000));
/** Write a moment of today as its time, and others with their date too; all of it stands in the title. */
export function recent(seconds) {
  const at = new Date(seconds * 1000);
  const isToday = at.toDateString() === new Date().toDateString();
  const form = new Intl.DateTimeFormat(language, isToday ? { timeStyle: "short" } : { month: "short", day: "numeric", hour: "numeric", minute: "numeric" });
  return element("time", { datetime: at.toISOString(), title: moment(seconds) }, form.format(at));
}

/** Return a copy of an icon: decoration, beside words. */
export function icon(name) {
  const found = document.getElementById("icons")?.content.querySelector(`[data-icon="${name}"] svg`);
  return found ? found.cloneNode(true) : element("span", { "aria-hidden": "true" });
}

/** Build a button with an icon; `text` is seen, or, for a small one, only said. */
export function button(name, text, action, { small = false, quiet = small, kind = "", ...more } = {}) {
  const made = element("button", { type: "button", class: `${kind} ${small ? "ghost small" : ""}`.trim() || null,
    ...(quiet ? { "aria-label": text, title: text } : {}), ...more }, icon(name), quiet ? null : element("span", {}, text));
  made.addEventListener("click", action);
  return made;
}

/** Draw a shape such as 16:9 in a square of 20. */
export function shape(ratio) {
  const [width, height] = ratio.split(":").map(Number);
  const long = Math.max(width, height) || 1;
  const space = "http://www.w3.org/2000/svg";
  const drawn = document.createElementNS(space, "svg");
  const rect = document.createElementNS(space, "rect");
  const [w, h] = width && height ? [(16 * width) / long, (16 * height) / long] : [14, 14];
  for (const [key, value] of Object.entries({ width: 20, height: 20, viewBox: "0 0 20 20", "aria-hidden": "true", class: "shape" })) drawn.setAttribute(key, value);
  for (const [key, value] of Object.entries({ x: 10 - w / 2, y: 10 - h / 2, width: w, height: h, rx: 1.5 })) rect.setAttribute(key, value);
  if (!width || !height) rect.setAttribute("stroke-dasharray", "2 2");
  drawn.append(rect);
  return drawn;
}

/** Write a size in bytes. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}
