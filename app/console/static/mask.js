// The mask brush: what is painted over a picture may change. It gives a PNG of the picture's size, transparent there.

import { element, gettext as _, toast } from "./app.js";
import { button } from "./icons.js";

const EDGE = 2048; // painted at most this large; the PNG has the picture's own size
const PAINT = "#8b5cf6";
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Let somebody paint. Resolves with {blob, preview, steps}, null for no mask, or undefined when it was given up. */
export function paintMask(picture) {
  return new Promise((resolve) => new Brush(picture, resolve));
}

/** Read a mask that was sent before. Returns what `paintMask` gives; throws when it is no mask of this picture. */
export async function readMask(blob, { width, height }) {
  const bitmap = await createImageBitmap(blob);
  if (bitmap.width !== width || bitmap.height !== height) throw new Error("of another size");
  const drawn = element("canvas", { width, height });
  const context = drawn.getContext("2d");
  context.fillStyle = PAINT;
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { blob, preview: small(drawn), steps: [{ kind: "picture", drawn }] };
}

function small(drawn) {
  const made = element("canvas", { width: 128, height: Math.max(1, Math.round((128 * drawn.height) / drawn.width)) });
  made.getContext("2d").drawImage(drawn, 0, 0, made.width, made.height);
  return made.toDataURL("image/png");
}

class Brush {
  constructor(picture, done) {
    this.picture = picture;
    const scale = Math.min(1, EDGE / Math.max(picture.width, picture.height));
    this.width = Math.max(1, Math.round(picture.width * scale));
    this.height = Math.max(1, Math.round(picture.height * scale));
    this.steps = [...(picture.draft ?? picture.mask?.steps ?? [])];
    this.undone = [];
    this.erasing = false;
    this.size = Math.round(Math.max(this.width, this.height) / 12);
    this.cursor = { x: this.width / 2, y: this.height / 2 };
    this.build(done);
    this.redraw();
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.canvas.focus();
  }

  build(done) {
    this.canvas = element("canvas", { width: this.width, height: this.height, tabindex: "0", class: "mask-canvas", role: "application",
      "aria-label": _("Painting area. Arrow keys move the brush, Space paints, E erases, [ and ] change the size, Ctrl+Z undoes.") });
    this.context = this.canvas.getContext("2d");
    this.ring = element("span", { class: "mask-ring", "aria-hidden": "true", hidden: true });
    this.stage = element("div", { class: "mask-stage" }, element("img", { src: this.picture.url, alt: "", draggable: "false" }), this.canvas, this.ring);
    this.stage.style.aspectRatio = `${this.width} / ${this.height}`;
    this.stage.style.maxWidth = `max(120px, (100dvh - var(--mask-frame)) * ${this.width / this.height})`; // all of it is seen at once
    this.range = element("input", { type: "range", min: 4, max: Math.round(Math.max(this.width, this.height) / 2), value: this.size, id: "mask-size" });
    this.range.addEventListener("input", () => this.resize(Number(this.range.value)));
    this.paintButton = button("brush", _("Paint"), () => this.use(false), { "aria-pressed": "true" });
    this.eraseButton = button("eraser", _("Erase"), () => this.use(true), { "aria-pressed": "false" });
    this.undoButton = button("undo-2", _("Undo"), () => this.undo(), { quiet: true });
    this.redoButton = button("redo-2", _("Redo"), () => this.redo(), { quiet: true });
    const invert = button("refresh-cw", _("Invert"), () => this.step({ kind: "invert" }));
    const clear = button("trash-2", _("Clear"), () => this.step({ kind: "clear" }));
    this.said = element("span", { class: "muted small", role: "status" });
    let isDone = false;
    const finish = async (isKept) => {
      if (isDone) return;
      isDone = true;
      const hadSteps = this.picture.mask?.steps ?? [];
      const isNew = this.steps.length !== hadSteps.length || this.steps.some((step, at) => step !== hadSteps[at]);
      this.picture.draft = !isKept && isNew ? this.steps : null; // there the next time it is opened
      if (this.picture.draft?.length) toast(_("The mask is as it was. What you painted is there when you open the brush again."), "info");
      const made = isKept ? await this.made() : undefined;
      this.dialog.close();
      done(made);
    };
    this.dialog = element("dialog", { class: "wide mask-dialog", "aria-labelledby": "mask-title" },
      element("div", { class: "dialog-head" }, element("div", {}, element("h2", { id: "mask-title" }, _("Paint what may change")), element("p", { class: "muted small" }, _("Only the violet part is made again; the rest stays as it is."))),
        button("x", _("Close"), () => finish(false), { small: true })),
      element("div", { class: "row mask-tools" }, this.paintButton, this.eraseButton,
        element("label", { class: "row mask-size", for: "mask-size" }, element("span", { class: "small" }, _("Brush size")), this.range), this.undoButton, this.redoButton, invert, clear),
      element("div", { class: "mask-place" }, this.stage),
      element("div", { class: "dialog-foot" }, this.said, element("span", { class: "grow" }), button("x", _("Cancel"), () => finish(false)), button("check", _("Use this mask"), () => finish(true), { kind: "primary" })));
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); finish(false); });
    this.dialog.addEventListener("close", () => {
      this.dialog.remove();
      finish(false); // a browser may close it without asking
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, (event) => { if (event.isPrimary) this.stroke = null; });
    this.canvas.addEventListener("pointerleave", () => { this.ring.hidden = document.activeElement !== this.canvas; });
    this.canvas.addEventListener("focus", () => this.aim());
    this.canvas.addEventListener("blur", () => { this.ring.hidden = true; });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * this.width) / box.width, y: ((event.clientY - box.top) * this.height) / box.height };
  }

  down(event) {
    if (event.button !== 0 || !event.isPrimary) return; // a second finger, or the palm, paints nothing
    this.canvas.setPointerCapture(event.pointerId);
    const point = this.at(event);
    this.stroke = { kind: "stroke", isEraser: this.erasing, size: this.size, points: [point] };
    this.cursor = point;
    this.step(this.stroke);
  }

  move(event) {
    if (!event.isPrimary) return;
    this.cursor = this.at(event);
    this.aim();
    if (!this.stroke) return;
    for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      const point = this.at(one);
      draw(this.context, { ...this.stroke, points: [this.stroke.points.at(-1), point] });
      this.stroke.points.push(point);
    }
  }

  key(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (isCommand && key === "z") event.shiftKey ? this.redo() : this.undo();
    else if (isCommand && key === "y") this.redo();
    else if (event.target !== this.canvas || isCommand) return;
    else if (KEYS[event.key]) {
      const by = event.shiftKey ? this.size : Math.max(1, this.size / 4);
      const [x, y] = KEYS[event.key];
      this.cursor = { x: Math.min(this.width, Math.max(0, this.cursor.x + x * by)), y: Math.min(this.height, Math.max(0, this.cursor.y + y * by)) };
      this.aim();
    } else if (event.key === " " || event.key === "Enter") this.step({ kind: "stroke", isEraser: this.erasing, size: this.size, points: [{ ...this.cursor }] });
    else if (key === "e") this.use(!this.erasing);
    else if (key === "[") this.resize(this.size * 0.8);
    else if (key === "]") this.resize(this.size * 1.25);
    else return;
    event.preventDefault();
  }

  use(erasing) {
    this.erasing = erasing;
    this.paintButton.setAttribute("aria-pressed", String(!erasing));
    this.eraseButton.setAttribute("aria-pressed", String(erasing));
  }

  resize(size) {
    this.size = Math.round(Math.min(Number(this.range.max), Math.max(4, size)));
    this.range.value = this.size;
    this.aim();
  }

  aim() {
    const scale = this.canvas.getBoundingClientRect().width / this.width;
    Object.assign(this.ring.style, { width: `${this.size * scale}px`, height: `${this.size * scale}px`, left: `${this.cursor.x * scale}px`, top: `${this.cursor.y * scale}px` });
    this.ring.hidden = false;
  }

  step(step) {
    this.steps.push(step);
    this.undone = [];
    if (step.kind === "stroke") {
      draw(this.context, step);
      this.tell();
    } else this.redraw();
  }

  undo() {
    if (this.steps.length) this.undone.push(this.steps.pop());
    this.redraw();
  }

  redo() {
    if (this.undone.length) this.steps.push(this.undone.pop());
    this.redraw();
  }

  redraw() {
    this.context.clearRect(0, 0, this.width, this.height);
    for (const step of this.steps) draw(this.context, step);
    this.tell();
  }

  tell() {
    this.undoButton.disabled = !this.steps.length;
    this.redoButton.disabled = !this.undone.length;
    this.said.textContent = this.steps.length ? _("{width} × {height} pixels, like the picture", { width: this.picture.width, height: this.picture.height }) : _("Nothing is painted yet.");
  }

  /** The mask as the API wants it: opaque is kept, transparent may change. Null when nothing is painted. */
  async made() {
    const pixels = this.context.getImageData(0, 0, this.width, this.height).data;
    let isEmpty = true;
    for (let at = 3; at < pixels.length && isEmpty; at += 4) isEmpty = pixels[at] === 0;
    if (isEmpty) return null;
    const { width, height } = this.picture;
    const mask = element("canvas", { width, height });
    const context = mask.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.canvas, 0, 0, width, height);
    const blob = await new Promise((resolve) => mask.toBlob(resolve, "image/png"));
    return { blob, preview: small(this.canvas), steps: this.steps };
  }
}

function draw(context, step) {
  const { width, height } = context.canvas;
  if (step.kind === "clear") {
    context.clearRect(0, 0, width, height);
    return;
  }
  if (step.kind === "picture") {
    context.drawImage(step.drawn, 0, 0, width, height);
    return;
  }
  context.save();
  context.fillStyle = context.strokeStyle = PAINT;
  if (step.kind === "invert") {
    context.globalCompositeOperation = "source-out";
    context.fillRect(0, 0, width, height);
  } else {
    context.globalCompositeOperation = step.isEraser ? "destination-out" : "source-over";
    context.lineWidth = step.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.arc(step.points[0].x, step.points[0].y, step.size / 2, 0, 2 * Math.PI); // a line without length is not drawn
    context.fill();
    context.beginPath();
    context.moveTo(step.points[0].x, step.points[0].y);
    for (const point of step.points) context.lineTo(point.x, point.y);
    context.stroke();
  }
  context.restore();
}
