// Shows results large: zoom and pan of pictures, films, the way from one to the next, and what each was made from.

import { copy, element, gettext as _, number, said } from "./app.js";
import { address, button, bytes, icon, moment } from "./icons.js";

const MOST = 8;
const STEP = 1.25;

/** Open the viewer at one of these tasks. `hooks` are what one can do with it; none: only look. `beyond(by)` goes on
 * to what lies before the first (-1) or after the last (1); asked with `isAsking` it only says whether there is. */
export function open(tasks, at, hooks = null, opener = null, beyond = () => false) {
  new Viewer(tasks, at, hooks, opener, beyond);
}

class Viewer {
  constructor(tasks, at, hooks, opener, beyond) {
    Object.assign(this, { tasks, at, hooks, opener, beyond, pointers: new Map() });
    this.stage = element("div", { class: "viewer-stage", tabindex: "0" });
    this.facts = element("div", { class: "viewer-facts" });
    this.title = element("h2", { id: "viewer-title", class: "clip" });
    this.zoomText = element("output", { class: "num small" });
    const small = { small: true };
    this.zooms = element("div", { class: "row viewer-zoom" }, button("zoom-out", _("Smaller"), () => this.zoom(1 / STEP), small), this.zoomText, button("zoom-in", _("Larger"), () => this.zoom(STEP), small),
      button("maximize", _("Fit"), () => this.fit(), small), button("image", "100 %", () => this.zoomTo(1), { class: "ghost small" }));
    this.previous = button("chevron-left", _("Previous"), () => this.go(-1), small);
    this.next = button("chevron-right", _("Next"), () => this.go(1), small);
    this.dialog = element("dialog", { class: "viewer", "aria-labelledby": "viewer-title" },
      element("header", { class: "viewer-bar" }, this.previous, this.next, this.title, element("span", { class: "grow" }), this.zooms, button("x", _("Close"), () => this.dialog.close(), small)),
      element("div", { class: "viewer-body" }, this.stage, this.facts));
    this.dialog.addEventListener("close", () => {
      this.dialog.remove();
      this.opener?.focus();
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.down(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    this.stage.addEventListener("dblclick", (event) => (this.scale > this.least * 1.01 ? this.fit() : this.zoomTo(1, this.point(event))));
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.show();
    this.stage.focus();
  }

  get task() { return this.tasks[this.at]; }
  get isVideo() { return this.task.type.startsWith("video"); }

  go(by) {
    const at = this.at + by;
    if (at < 0 || at >= this.tasks.length) {
      this.beyond(by);
      return;
    }
    this.at = at;
    this.show();
  }

  show() {
    const { task } = this;
    const one = (task.result.images ?? task.result.videos)[0];
    this.pointers.clear();
    this.title.textContent = task.prompt || _("No prompt");
    this.previous.disabled = this.at === 0 && !this.beyond(-1, true);
    this.next.disabled = this.at === this.tasks.length - 1 && !this.beyond(1, true);
    this.zooms.hidden = this.isVideo;
    this.stage.classList.toggle("is-video", this.isVideo);
    this.width = one.width || 1024;
    this.height = one.height || 1024;
    if (this.isVideo) {
      this.media = element("video", { src: address(task), poster: one.thumbnail_url ? address(task, "thumbnail") : null, controls: true, loop: true, playsinline: true, "aria-label": task.prompt || _("Video") });
      this.stage.setAttribute("aria-label", _("Video"));
    } else {
      this.media = element("img", { src: address(task), alt: task.prompt || _("Picture"), draggable: "false", width: this.width, height: this.height });
      this.stage.setAttribute("aria-label", _("Picture. Plus and minus zoom, 0 fits, 1 shows 100 %, Shift and arrow keys move it, arrow keys go to the next result."));
    }
    this.stage.replaceChildren(this.media);
    if (!this.isVideo) this.fit();
    this.tell(one);
  }

  tell(one) {
    const { task } = this;
    const row = (name, ...value) => [element("dt", {}, name), element("dd", {}, ...value)];
    const facts = [
      ...row(_("Model"), task.model),
      ...row(_("Size"), `${this.width}×${this.height} · ${bytes(one.size_bytes)}`),
      ...(one.duration ? row(_("Duration"), _("{count} s", { count: number(one.duration) })) : []),
      ...(task.quality ? row(_("Quality"), task.quality) : []),
      ...(task.resolution ? row(_("Resolution"), task.resolution) : []),
      ...(task.aspect_ratio ? row(_("Shape"), task.aspect_ratio) : []),
      ...(task.seed != null ? row(_("Seed"), String(task.seed)) : []),
      ...row(_("Cost"), task.credits === 1 ? _("{count} credit", { count: 1 }) : _("{count} credits", { count: number(task.credits) })),
      ...row(_("Made"), moment(task.created_at)),
      ...(task.expires_at ? row(_("Kept until"), moment(task.expires_at)) : []),
      ...row(_("Task"), element("a", { href: `/console/gallery/${task.id}` }, task.id)),
    ];
    const act = (name, text, action) => button(name, text, () => { this.opener = null; this.dialog.close(); action(); }, { class: "small" });
    const { hooks } = this;
    this.facts.replaceChildren(
      element("div", { class: "row" },
        element("a", { class: "button primary small", href: address(task), download: task.id }, icon("download"), _("Download")),
        hooks && !this.isVideo ? act("image", _("Use as input"), () => hooks.use(task)) : null,
        hooks && this.isVideo && hooks.canRemix(task.model) ? act("sparkles", _("Remix"), () => hooks.remix(task)) : null,
        hooks && this.isVideo ? button("image", _("Use this frame"), () => this.frame(), { class: "small" }) : null,
        hooks ? act("refresh-cw", _("Use these settings"), () => hooks.again({ task, isForm: true })) : null),
      element("div", {}, element("div", { class: "label-row" }, element("h3", {}, _("Prompt")), button("copy", _("Copy"), () => copy(task.prompt), { class: "ghost small" })), element("p", { class: "prompt-text", lang: "" }, task.prompt || _("No prompt"))),
      element("dl", { class: "facts" }, ...facts),
      ...(task.warnings.length ? [element("p", { class: "small muted" }, task.warnings.map((message) => said({ message })).join(" "))] : []));
  }

  /** Take the frame that is seen now, as a picture to go on from. */
  async frame() {
    const { media, hooks, task } = this;
    if (media.readyState < 2) return;
    const canvas = element("canvas", { width: media.videoWidth, height: media.videoHeight });
    canvas.getContext("2d").drawImage(media, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    this.opener = null;
    this.dialog.close();
    hooks.useBlob(blob, `${task.id}-frame.png`);
  }

  // --- zoom and pan -------------------------------------------------------------------------------------------------

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    this.least = Math.min(clientWidth / this.width, clientHeight / this.height, 1) || 1;
    this.scale = this.least;
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.place();
  }

  zoom(by, around) { this.zoomTo(this.scale * by, around); }

  /** Zoom; the point `around` (the middle, where none is given) stays where it is. */
  zoomTo(scale, around = { x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 }) {
    const next = Math.min(MOST, Math.max(this.least, scale));
    this.x = around.x - ((around.x - this.x) * next) / this.scale;
    this.y = around.y - ((around.y - this.y) * next) / this.scale;
    this.scale = next;
    this.place();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.place();
  }

  place() {
    const keep = (at, size, room) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, at)));
    this.x = keep(this.x, this.width * this.scale, this.stage.clientWidth);
    this.y = keep(this.y, this.height * this.scale, this.stage.clientHeight);
    this.media.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.zoomText.textContent = `${Math.round(this.scale * 100)} %`;
    this.stage.classList.toggle("is-large", this.scale > this.least * 1.01);
  }

  point(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  wheel(event) {
    if (this.isVideo) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), this.point(event));
  }

  down(event) {
    if (this.isVideo || event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.point(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.point(event);
    if (this.pointers.size === 2) { // a pinch: the other finger's place is where it was
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const far = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      this.zoom(far(now) / far(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    } else this.pan(now.x - before.x, now.y - before.y);
    this.pointers.set(event.pointerId, now);
  }

  key(event) {
    if (event.target.closest("video") || event.ctrlKey || event.metaKey || event.altKey) return;
    const pans = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.shiftKey && pans[event.key] && !this.isVideo) this.pan(...pans[event.key]);
    else if (event.key === "ArrowLeft") this.go(-1);
    else if (event.key === "ArrowRight") this.go(1);
    else if (this.isVideo) return;
    else if (event.key === "+" || event.key === "=") this.zoom(STEP);
    else if (event.key === "-") this.zoom(1 / STEP);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoomTo(1);
    else return;
    event.preventDefault();
  }
}
