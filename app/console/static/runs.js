// The tasks of this page, newest first: each is watched until it has ended, by events or, where they fail, by asking.

import { api, element, gettext as _, number, said, toast } from "./app.js";
import { foreign } from "./refusals.js";
import { address, button, icon, preview, recent } from "./icons.js";

const STREAMS = 2; // a browser opens six connections to a host; the others of these ask every other second
const ASK_MS = 2000;
const MOST = 60;
const ROW = 8; // of the grid: see `pack`
const GAP = 16;
const STATES = {
  sending: [_("Sending"), "send", "run"],
  queued: [_("Queued"), "clock", "wait"],
  in_progress: [_("In progress"), "loader-circle", "run"],
  completed: [_("Succeeded"), "circle-check", "good"],
  failed: [_("Failed"), "circle-x", "bad"],
  cancelled: [_("Cancelled"), "ban", "off"],
};
const IDS = "mediagate.requests";

/** Write how long something takes, or took: "8 s", "2 min 5 s". */
function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? _("{count} s", { count: number(whole) }) : _("{minutes} min {seconds} s", { minutes: number(Math.floor(whole / 60)), seconds: whole % 60 });
}

const isOver = (task) => ["completed", "failed", "cancelled"].includes(task.status);

export class Runs {
  /** `hooks`: titles (model -> title), use(task), useBlob(blob, name), remix(task), canRemix(model), again(run), ended(task), say(text). */
  constructor(place, empty, hooks) {
    this.place = place;
    this.empty = empty;
    this.hooks = hooks;
    this.runs = [];
    this.streams = 0;
    this.sizes = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach(({ target }) => this.pack(target))));
    setInterval(() => this.runs.forEach((run) => run.bar && !isOver(run.task) && this.note(run)), 1000);
    document.addEventListener("signed-in", () => { // those that nobody could ask about meanwhile
      for (const run of this.runs) if (run.task.id && !isOver(run.task) && !run.source && !run.askers) this.watch(run);
    });
    this.emptyNote();
  }

  /** Let a card take as many rows of the grid as it is high: below a low one there is no hole. */
  pack(card) {
    card.style.gridRowEnd = `span ${Math.ceil((card.offsetHeight + GAP) / ROW)}`;
  }

  /** Show tasks that the page knew already. */
  restore(tasks) {
    for (const task of [...tasks].reverse()) this.add({ task });
  }

  /** Show a request that is on its way. Returns the run: give it its task with `accepted`, or `drop` it. */
  begin(request, sketch) {
    return this.add({ request, task: { id: null, status: "sending", progress: 0, credits: 0, warnings: [], ...sketch } });
  }

  add(run) {
    run.began = run.task.created_at ? run.task.created_at * 1000 : Date.now();
    run.card = element("article", { class: "play-run card flush", tabindex: "-1" });
    this.runs.unshift(run);
    this.place.prepend(run.card);
    while (this.runs.length > MOST) this.drop(this.runs.at(-1));
    this.draw(run);
    this.sizes.observe(run.card);
    this.emptyNote();
    if (run.task.id && !isOver(run.task)) this.watch(run);
    return run;
  }

  accepted(run, task, requestId) {
    run.task = task;
    run.requestId = requestId;
    const known = JSON.parse(sessionStorage.getItem(IDS) ?? "[]");
    sessionStorage.setItem(IDS, JSON.stringify([[task.id, requestId], ...known].slice(0, 50)));
    this.draw(run);
    if (isOver(task)) this.hooks.ended(task);
    else this.watch(run);
  }

  drop(run) {
    run.close?.();
    this.sizes.unobserve(run.card);
    this.runs = this.runs.filter((one) => one !== run);
    run.card.remove();
    this.emptyNote();
  }

  emptyNote() {
    this.empty.hidden = this.runs.length > 0;
  }

  // --- watching -----------------------------------------------------------------------------------------------------

  watch(run) {
    if (this.streams >= STREAMS || !window.EventSource) {
      this.ask(run);
      return;
    }
    this.streams += 1;
    const source = run.source = new EventSource(`/v1/tasks/${run.task.id}/events`);
    run.card.dataset.stream = "";
    const close = run.close = () => {
      if (run.source !== source) return;
      source.close();
      run.source = null;
      this.streams -= 1;
      delete run.card.dataset.stream;
    };
    source.addEventListener("task.updated", (event) => {
      const { task } = JSON.parse(event.data);
      if (isOver(task)) close();
      this.update(run, task);
    });
    source.addEventListener("error", () => { // while it is connecting, the browser tries again by itself
      if (source.readyState !== EventSource.CLOSED) return;
      close();
      if (!isOver(run.task)) this.ask(run);
    });
    this.askPlace(run);
  }

  async ask(run) {
    run.askers = (run.askers ?? 0) + 1;
    await this.askUntilOver(run);
    run.askers -= 1;
  }

  async askUntilOver(run) {
    while (!isOver(run.task) && this.runs.includes(run) && !run.source) {
      await new Promise((resolve) => setTimeout(resolve, ASK_MS));
      if (this.streams < STREAMS && window.EventSource && !run.isAsking) {
        run.isAsking = true; // once: where events do not work, asking does
        this.watch(run);
        return;
      }
      try {
        this.update(run, await api(`/v1/tasks/${run.task.id}`, { headers: { "x-timer": "1" } }));
      } catch (error) {
        if (error.status === 404) this.drop(run);
        if (error.status === 401) return;
      }
    }
  }

  /** Say how many wait before a queued task. */
  async askPlace(run) {
    while (run.task.status === "queued" && this.runs.includes(run)) {
      try {
        const { ahead, isMore } = await api(`/console/playground/${run.task.id}/ahead`, { headers: { "x-timer": "1" } });
        run.ahead = ahead;
        run.isMoreAhead = isMore;
        this.note(run);
      } catch (error) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, ASK_MS));
    }
  }

  update(run, task) {
    const isNews = task.status !== run.task.status;
    const wasOver = isOver(run.task);
    run.task = task;
    if (isNews) this.draw(run);
    else this.note(run);
    if (isOver(task) && !wasOver) {
      this.hooks.ended(task);
      run.warning?.remove();
      if (run.warning && task.status === "cancelled") toast(_("The task was cancelled."));
      run.warning = null;
      const title = this.hooks.title(task.model);
      if (task.status === "completed") this.hooks.say(task.type.startsWith("video") ? _("The video of {model} is ready.", { model: title }) : _("The picture of {model} is ready.", { model: title }));
      else this.hooks.say(task.status === "failed" ? _("{model} failed: {error}", { model: title, error: said(task.error) ?? "" }) : _("The task was cancelled."));
    } else if (isNews) this.hooks.say(`${this.hooks.title(task.model)}: ${STATES[task.status][0]}`);
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

  draw(run) {
    const { task, card } = run;
    const hadFocus = card.contains(document.activeElement);
    card.dataset.task = task.id ?? "";
    card.dataset.status = task.status;
    card.setAttribute("aria-label", `${this.hooks.title(task.model)}: ${task.prompt}`);
    const [text, drawing, tone] = STATES[task.status];
    card.replaceChildren(this.media(run), element("div", { class: "run-body" },
      element("div", { class: "row run-head" }, element("span", { class: `chip ${tone}` }, icon(drawing), text), element("span", { class: "grow" }), this.cost(task)),
      run.note = element("p", { class: "small muted run-note", hidden: true }),
      element("p", { class: "run-prompt", lang: "" }, task.prompt || _("No prompt")),
      task.warnings.length ? element("p", { class: "small muted" }, task.warnings.map((message) => said({ message })).join(" ")) : null,
      element("p", { class: "small muted" }, this.hooks.title(task.model), " · ", recent(task.created_at ?? Date.now() / 1000), task.status === "completed" && task.completed_at > task.created_at ? ` · ${lasting(task.completed_at - task.created_at)}` : null),
      element("div", { class: "row run-tools" }, ...this.tools(run))));
    this.note(run);
    this.pack(card);
    if (hadFocus) card.focus();
  }

  cost(task) {
    const amount = task.status === "completed" ? task.credits : task.credits_held;
    if (task.status === "completed" || amount) return element("span", { class: "small num muted", title: task.status === "completed" ? _("Charged") : _("Held") }, icon("coins"), ` ${number(amount)}`);
    return isOver(task) ? element("span", { class: "small muted" }, _("Not charged")) : null;
  }

  media(run) {
    const { task } = run;
    const frame = element("div", { class: "run-media" });
    const [width, height] = (task.size ?? "").split("x").map(Number);
    const [w, h] = (task.aspect_ratio ?? "").split(":").map(Number);
    frame.style.aspectRatio = width && height ? `${width} / ${height}` : w && h ? `${w} / ${h}` : "1 / 1";
    if (task.status === "completed" && task.result) {
      const video = task.result.videos?.[0];
      const shown = video && !video.thumbnail_url
        ? element("video", { src: address(task), preload: "metadata", muted: true, playsinline: true, tabindex: "-1", "aria-hidden": "true" })
        : element("img", { src: preview(task), alt: task.prompt, width: width || null, height: height || null, loading: "lazy", decoding: "async" });
      const opens = element("button", { type: "button", class: "run-open", "aria-label": `${_("Show large")}: ${task.prompt}` }, shown, video ? element("span", { class: "run-play" }, icon("play")) : null);
      opens.addEventListener("click", () => this.open(run));
      frame.append(opens);
    } else if (isOver(task)) {
      frame.classList.add("run-none");
      frame.style.aspectRatio = "";
      if (task.status === "completed") frame.append(icon("clock"), element("p", {}, _("The result is no longer kept.")));
      else if (task.status === "failed") frame.append(this.failure(run));
      else frame.append(icon("ban"), element("p", {}, said(task.error) ?? _("The task was cancelled.")));
    } else {
      run.bar = element("progress", { max: 100, "aria-label": _("Progress") });
      run.percent = element("span", { class: "num small" });
      frame.classList.add("skeleton");
      frame.append(element("div", { class: "run-progress" }, run.percent, run.bar));
    }
    return frame;
  }

  failure(run) {
    const { error, id } = run.task;
    const known = Object.fromEntries(JSON.parse(sessionStorage.getItem(IDS) ?? "[]"));
    const requestId = error?.request_id ?? run.task.request_id ?? run.requestId ?? known[id];
    const line = (name, text) => (text ? element("p", { class: "small run-id" }, element("span", {}, name), element("code", {}, text), element("button", { type: "button", class: "ghost small", "data-copy": text, "aria-label": `${_("Copy")} ${text}` }, icon("copy"))) : null);
    return element("div", { class: "alert bad" }, icon("circle-alert"), element("div", {}, element("p", {}, said(error) ?? _("The task failed.")), foreign(error) ? element("p", { class: "small" }, foreign(error)) : null, element("p", { class: "small" }, error?.reason ?? ""), line(_("Request id"), requestId), line(_("Task"), id)));
  }

  tools(run) {
    const { task } = run;
    if (task.status === "sending") return [];
    if (!isOver(task)) return [button("ban", _("Cancel"), (event) => this.cancel(run, event.currentTarget), { class: "small" })];
    const again = (how) => button("refresh-cw", task.status === "failed" ? _("Try again") : _("Again"), () => this.hooks.again(run), how);
    if (task.status !== "completed" || !task.result) return [again({ class: task.status === "failed" ? "small primary" : "small" })];
    const isVideo = task.type.startsWith("video");
    return [
      isVideo ? null : button("image", _("Use as input"), () => this.hooks.use(task), { class: "small" }),
      isVideo && this.hooks.canRemix(task.model) ? button("sparkles", _("Remix"), () => this.hooks.remix(task), { class: "small" }) : null,
      element("span", { class: "grow" }),
      again({ small: true }),
      element("a", { class: "button ghost small", href: address(task), download: task.id, "aria-label": _("Download"), title: _("Download") }, icon("download")),
    ].filter(Boolean);
  }

  note(run) {
    const { task } = run;
    if (run.bar && !isOver(task)) {
      if (task.progress > 0) run.bar.value = task.progress;
      run.percent.textContent = [task.progress > 0 ? `${task.progress} %` : null, lasting((Date.now() - run.began) / 1000)].filter(Boolean).join(" · ");
    }
    if (!run.note) return;
    const isQueued = task.status === "queued" && run.ahead != null;
    run.note.hidden = !isQueued;
    if (isQueued) run.note.textContent = run.ahead === 0 ? _("Next in the queue") : run.isMoreAhead ? _("More than {count} ahead of it in the queue", { count: number(run.ahead) }) : _("{count} ahead of it in the queue", { count: number(run.ahead) });
  }

  // --- what one can do ----------------------------------------------------------------------------------------------

  async cancel(run, pressed) {
    pressed.disabled = true;
    try {
      const task = await api(`/v1/tasks/${run.task.id}/cancel`, { method: "POST" });
      this.update(run, task);
      if (!isOver(task)) run.warning = toast(_("Cancellation requested. What an upstream has begun may still be finished, and charged."), "info");
    } catch (error) {
      pressed.disabled = false;
      toast(error.message, "error", error.requestId);
    }
  }

  async open(run) {
    const { open: view } = await import("./viewer.js"); // asked for when it is needed: most looks at this page open nothing
    const shown = this.runs.filter(({ task }) => task.status === "completed" && task.result);
    view(shown.map(({ task, request }) => ({ seed: request?.json.seed, ...task })), shown.indexOf(run), this.hooks, run.card.querySelector(".run-open"));
  }
}
