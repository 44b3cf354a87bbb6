// The files and addresses that go with a request: dropped, pasted or chosen, looked at before they are sent.

import { element, gettext as _, toast } from "./app.js";
import { button, bytes, icon } from "./icons.js";

const masks = () => import("./mask.js"); // asked for when somebody paints

const SMALL = 64;

/** Look into a picture: its size in pixels, and a tiny copy by which it is priced. Throws when it is none. */
async function lookInto(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const scale = Math.min(1, SMALL / Math.max(width, height));
  const canvas = element("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return { width, height, tiny: canvas.toDataURL("image/png") };
}

export class Inputs {
  /** `limits` are the gateway's: `fileBytes`, `types`. `changed` is called after each change. */
  constructor(place, limits, changed) {
    this.place = place;
    this.limits = limits;
    this.changed = changed;
    this.files = new Map(); // field -> [{blob, name, url, width, height, tiny, mask}]
    this.texts = new Map(); // field -> what was typed
    this.shown = new Map();
    this.listen();
  }

  show(model) {
    this.model = model;
    const known = new Set(model.inputs.map((one) => one.name));
    for (const [field, items] of this.files) { // a picture is not lost when the next model calls it otherwise
      const target = model.inputs.find((one) => one.media === "image");
      if (!known.has(field) && items.length && target) this.files.set(target.name, [...(this.files.get(target.name) ?? []), ...items]);
      if (!known.has(field)) this.files.delete(field);
    }
    this.shown = new Map(model.inputs.map((spec) => [spec.name, spec.media === "image" ? this.zone(spec) : this.addresses(spec)]));
    this.place.replaceChildren(...[...this.shown.values()].map((one) => one.box));
    for (const spec of model.inputs) if (spec.media === "image") this.draw(spec.name);
  }

  limit(operation) {
    for (const { box, spec } of this.shown.values()) {
      const allowed = spec.operations === null || spec.operations.includes(operation) || spec.becomes !== null;
      box.hidden = !allowed || operation === "video.remix";
    }
  }

  /** The operation that these inputs make of a request. */
  operation(start) {
    for (const { spec, box } of this.shown.values()) {
      if (spec.becomes && !box.hidden && this.list(spec.name).length) return spec.becomes;
    }
    return this.model.type === "image" && this.list("image_urls").length ? "image.edit" : start;
  }

  /** Files or addresses of a field. */
  list(field) {
    const text = this.texts.get(field);
    return text === undefined ? this.files.get(field) ?? [] : text.split("\n").map((line) => line.trim()).filter(Boolean);
  }

  /** [{spec, items}] of what is shown and filled in. */
  sent() {
    return [...this.shown.values()].filter(({ box }) => !box.hidden).map(({ spec }) => ({ spec, items: this.list(spec.name) })).filter(({ items }) => items.length);
  }

  get mask() {
    return this.model.mask ? this.files.get("image_urls")?.[0]?.mask ?? null : null;
  }

  /** Lay a mask that was sent before over the first picture. Returns whether it fits. */
  async restoreMask(blob) {
    const [item] = this.files.get("image_urls") ?? [];
    if (!this.model.mask || !item) return false;
    try {
      item.mask = await (await masks()).readMask(blob, item);
    } catch (broken) {
      return false;
    }
    this.draw("image_urls");
    this.changed();
    return true;
  }

  /** How many pictures are chosen. */
  get count() {
    return [...this.files.values()].reduce((sum, items) => sum + items.length, 0);
  }

  /** Add files to a field, or to the first that takes pictures. Returns how many were taken. */
  async add(blobs, field = null, names = []) {
    const target = this.shown.get(field) ?? [...this.shown.values()].find(({ spec, box }) => spec.media === "image" && !box.hidden);
    if (!target) {
      toast(_("This model takes no pictures."), "error");
      return 0;
    }
    const { spec } = target;
    const items = this.files.get(spec.name) ?? [];
    let taken = 0;
    for (const [at, blob] of [...blobs].entries()) {
      const name = names[at] ?? blob.name ?? "input.png";
      const problem = this.problem(blob, name);
      if (problem) this.refuse(spec.name, problem);
      else if (!spec.single && items.length >= spec.maximum) this.refuse(spec.name, _("At most {count} pictures.", { count: spec.maximum }));
      else {
        try {
          const item = { blob, name, url: URL.createObjectURL(blob), mask: null, ...(await lookInto(blob)) };
          if (spec.single) items.splice(0, items.length, item);
          else items.push(item);
          taken += 1;
          this.forgive(spec.name);
        } catch (broken) {
          this.refuse(spec.name, _("{name} cannot be read as a picture.", { name }));
        }
      }
    }
    this.files.set(spec.name, items);
    this.draw(spec.name);
    if (taken) this.changed();
    return taken;
  }

  problem(blob, name) {
    const { fileBytes, types } = this.limits;
    if (blob.size > fileBytes) return _("{name} is {size}: a file may be at most {limit}. Nothing was sent.", { name, size: bytes(blob.size), limit: bytes(fileBytes) });
    if (blob.size === 0) return _("{name} is empty.", { name });
    if (blob.type && !types.includes(blob.type)) return _("{name} is not a PNG, JPEG or WebP file.", { name });
    return null;
  }

  clear() {
    this.files.clear();
    this.texts.clear();
    this.show(this.model);
  }

  refuse(param, text) {
    for (const { box, spec, error } of this.shown.values()) {
      if (box.hidden || (spec.name !== param && !spec.also.includes(param) && !(param === "mask" && spec.name === "image_urls"))) continue;
      error.textContent = text;
      error.hidden = false;
      box.classList.add("wrong");
      return true;
    }
    return false;
  }

  forgive(field = null) {
    for (const { box, spec, error } of this.shown.values()) {
      if (field !== null && spec.name !== field) continue;
      error.hidden = true;
      box.classList.remove("wrong");
    }
  }

  // --- pictures -----------------------------------------------------------------------------------------------------

  zone(spec) {
    const id = `p-${spec.name}`;
    const picker = element("input", { type: "file", id, class: "sr", accept: this.limits.types.join(","), multiple: !spec.single, "aria-describedby": `h-${spec.name} e-${spec.name}` });
    const hint = _("PNG, JPEG or WebP, at most {limit} each", { limit: bytes(this.limits.fileBytes) });
    const drop = element("label", { for: id, class: "drop" }, icon("upload"), element("span", {}, _("Drop, paste or choose")), element("span", { class: "muted small", id: `h-${spec.name}` }, hint));
    const list = element("ul", { class: "input-list" });
    const count = element("span", { class: "muted small num" });
    const error = element("p", { class: "error", id: `e-${spec.name}`, role: "alert", hidden: true });
    const box = element("div", { class: "field", "data-field": spec.name, role: "group", "aria-label": spec.label },
      element("div", { class: "label-row" }, element("span", { class: "label" }, spec.label, " ", element("span", { class: "optional" }, _("optional"))), count), list, drop, picker, error);
    picker.addEventListener("change", () => {
      this.add([...picker.files], spec.name);
      picker.value = "";
    });
    return { box, spec, error, list, drop, count, picker };
  }

  draw(field) {
    const { list, drop, spec, count } = this.shown.get(field);
    const items = this.files.get(field) ?? [];
    list.replaceChildren(...items.map((item, at) => this.thumb(spec, items, item, at)));
    drop.hidden = !spec.single && items.length >= spec.maximum;
    count.textContent = spec.single ? "" : `${items.length}/${spec.maximum}`;
  }

  thumb(spec, items, item, at) {
    const again = (focus = null) => {
      this.draw(spec.name);
      this.changed();
      (focus ?? this.shown.get(spec.name).picker).focus();
    };
    const move = (by) => {
      items.splice(at + by, 0, ...items.splice(at, 1));
      again(null);
      this.shown.get(spec.name).list.children[at + by].querySelector("button").focus();
    };
    const can = this.model.mask && spec.name === "image_urls" && at === 0;
    const paint = async () => {
      const mask = await (await masks()).paintMask(item);
      if (mask === undefined) return;
      item.mask = mask;
      again();
      this.shown.get(spec.name).list.children[at]?.querySelector(".mask-button")?.focus();
    };
    return element("li", { class: "input-one" },
      element("span", { class: "input-picture" }, element("img", { src: item.url, alt: item.name }), item.mask ? element("img", { class: "input-mask", src: item.mask.preview, alt: _("Mask") }) : null),
      element("span", { class: "muted small num" }, `${item.width}×${item.height}`),
      element("span", { class: "input-tools" },
        at > 0 ? button("chevron-left", _("Move {name} to the front", { name: item.name }), () => move(-1), { small: true }) : null,
        can ? button("brush", item.mask ? _("Change the mask") : _("Paint a mask"), paint, { small: true, quiet: false, class: "small mask-button" }) : null,
        can && item.mask ? button("eraser", _("Remove the mask"), () => { item.mask = item.draft = null; again(); }, { small: true }) : null,
        button("x", _("Remove {name}", { name: item.name }), () => {
          URL.revokeObjectURL(item.url);
          items.splice(at, 1);
          this.forgive(spec.name);
          again();
        }, { small: true })));
  }

  /** Files are dropped anywhere on the form, and pasted anywhere on the page. */
  listen() {
    const area = this.place.closest("form");
    let depth = 0;
    const holds = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    area.addEventListener("dragenter", (event) => { if (holds(event)) { depth += 1; area.classList.add("is-dropping"); } });
    area.addEventListener("dragleave", (event) => { if (holds(event) && --depth <= 0) { depth = 0; area.classList.remove("is-dropping"); } });
    document.addEventListener("dragover", (event) => { if (holds(event)) event.preventDefault(); });
    document.addEventListener("drop", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      depth = 0;
      area.classList.remove("is-dropping");
      this.add([...event.dataTransfer.files], event.target.closest?.("[data-field]")?.dataset.field);
    });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.add(files);
    });
  }

  // --- addresses ----------------------------------------------------------------------------------------------------

  addresses(spec) {
    const id = `p-${spec.name}`;
    const described = { id, "aria-describedby": `h-${spec.name} e-${spec.name}`, placeholder: "https://", spellcheck: "false", autocomplete: "off" };
    const input = spec.single ? element("input", { type: "url", ...described }) : element("textarea", { rows: 2, ...described });
    input.value = this.texts.get(spec.name) ?? "";
    this.texts.set(spec.name, input.value);
    input.addEventListener("input", () => {
      this.texts.set(spec.name, input.value);
      this.changed();
    });
    const more = spec.single ? "" : _("One per line, at most {count}.", { count: spec.maximum });
    const error = element("p", { class: "error", id: `e-${spec.name}`, hidden: true });
    const box = element("div", { class: "field", "data-field": spec.name }, element("label", { for: id }, spec.label, " ", element("span", { class: "optional" }, _("optional"))), input,
      element("p", { class: "help", id: `h-${spec.name}` }, `${spec.help} ${more}`.trim()), error);
    return { box, spec, error };
  }
}
