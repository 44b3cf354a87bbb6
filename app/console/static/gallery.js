// The page of one result: the picture opens large.

import { data } from "./app.js";
import { open } from "./viewer.js";

const { tasks } = data("gallery-data");
for (const opener of document.querySelectorAll("[data-view]")) opener.addEventListener("click", () => open(tasks, 0, null, opener));
