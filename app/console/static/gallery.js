// The page of one result: the picture opens large, and the arrow keys go to the results beside it, large or not.

import { data } from "./app.js";
import { open } from "./viewer.js";

const LARGE = "#large";
const { tasks } = data("gallery-data");
const beside = { "-1": document.querySelector("a[rel=prev]"), 1: document.querySelector("a[rel=next]") };

function go(by, isAsking = false, hash = LARGE) {
  const link = beside[by];
  if (link && !isAsking) location.assign(link.href + hash);
  return Boolean(link);
}

function view(opener) {
  open(tasks, 0, null, opener, go);
}

for (const opener of document.querySelectorAll("[data-view]")) opener.addEventListener("click", () => view(opener));
if (location.hash === LARGE) {
  history.replaceState(null, "", location.pathname + location.search); // closed, it stays closed
  view(document.querySelector("[data-view]"));
}
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.closest("video, input, textarea, select, pre, dialog")) return;
  if (go(by, false, "")) event.preventDefault();
});
