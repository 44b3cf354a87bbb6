// The parameters of a model as controls. What a model takes is data of the page; nothing here knows a model.

import { element, gettext as _ } from "./app.js";
import { shape } from "./icons.js";

const FIRST = ["size", "quality", "resolution", "duration", "generate_audio", "audio_setting", "generation_type", "raw"];
const FEW = 5;
const SLIDER = 60;

export class Fields {
  /** `changed` is called after each change. */
  constructor(main, more, changed) {
    this.main = main;
    this.more = more;
    this.box = more.closest("details");
    this.changed = changed;
    this.shown = new Map();
  }

  /** Build the controls of a model, with these values in them where they fit. */
  show(model, values = {}) {
    this.model = model;
    this.shown = new Map();
    const order = (one) => (FIRST.includes(one.name) ? FIRST.indexOf(one.name) : FIRST.length);
    this.main.replaceChildren();
    this.more.replaceChildren();
    for (const one of [...model.parameters].sort((a, b) => order(a) - order(b))) {
      const made = this.build(one, values[one.name] ?? one.default);
      this.shown.set(one.name, made);
      (FIRST.includes(one.name) ? this.main : this.more).append(made.box);
    }
    this.notePixels();
  }

  /** Show only what has a meaning for this operation. */
  limit(operation) {
    for (const { box, spec, isFixed } of this.shown.values()) {
      box.hidden = (spec.operations !== null && !spec.operations.includes(operation)) || (isFixed && operation === "video.remix");
    }
    this.box.hidden = ![...this.more.children].some((box) => !box.hidden);
  }

  /** What is set: the shape, the tier and the length always, of the rest what differs from the default. */
  sent() {
    const found = {};
    for (const [name, { spec, box, read, isFixed }] of this.shown) {
      const value = read();
      if (box.hidden || isFixed || value === null) continue;
      if (["size", this.model.tier, "duration"].includes(name) || value !== spec.default) found[name] = value;
    }
    return found;
  }

  /** Everything as it stands, to be kept. */
  values() {
    return Object.fromEntries([...this.shown].map(([name, { read }]) => [name, read()]).filter(([, value]) => value !== null));
  }

  /** Say what is wrong at the field of this name. Returns whether there is one. */
  refuse(param, text) {
    for (const { box, spec, error } of this.shown.values()) {
      if (box.hidden || (spec.name !== param && !spec.also.includes(param))) continue;
      error.textContent = text;
      error.hidden = false;
      box.classList.add("wrong");
      for (const input of box.querySelectorAll("input, select")) input.setAttribute("aria-invalid", "true");
      if (this.more.contains(box)) this.box.open = true;
      return true;
    }
    return false;
  }

  forgive() {
    for (const { box, error } of this.shown.values()) {
      error.hidden = true;
      box.classList.remove("wrong");
      for (const input of box.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    }
  }

  /** The pixels of a shape, once the tier is known. */
  pixels(ratio) {
    const tier = this.shown.get(this.model.tier)?.read();
    return this.model.pixels[ratio]?.[tier] ?? null;
  }

  ratio() {
    const found = this.shown.get("size")?.read();
    return found?.includes(":") ? found : null;
  }

  build(spec, value) {
    const error = element("p", { class: "error", id: `e-${spec.name}`, hidden: true });
    const made = this.control(spec, value, { "aria-describedby": `h-${spec.name} e-${spec.name}` });
    const help = element("p", { class: "help", id: `h-${spec.name}` }, spec.help);
    made.box.append(help, error);
    made.box.dataset.field = spec.name;
    made.box.addEventListener("input", () => {
      this.notePixels();
      this.changed();
    });
    return { ...made, spec, error, help };
  }

  control(spec, value, described) {
    const id = `p-${spec.name}`;
    if (spec.kind === "boolean") {
      const input = element("input", { type: "checkbox", id, checked: value === true, ...described });
      return { box: element("div", { class: "field check" }, element("label", { for: id }, input, element("span", {}, spec.label))), read: () => input.checked };
    }
    if (spec.kind === "integer") return this.whole(spec, value, id, described);
    if (spec.values.length === 1) {
      const only = spec.values[0];
      return { box: element("div", { class: "field" }, element("span", { class: "label" }, spec.label), element("span", {}, only.text)), read: () => only.value, isFixed: true };
    }
    const isShape = spec.kind === "size";
    const isOptional = spec.default == null;
    if (isShape || (spec.values.length <= FEW && !isOptional)) return this.radios(spec, value, described, isShape);
    const select = element("select", { id, ...described },
      isOptional ? element("option", { value: "" }, _("Model's choice")) : null,
      ...spec.values.map((one) => element("option", { value: one.value, selected: one.value === value }, one.text)));
    return { box: element("div", { class: "field" }, element("label", { for: id }, spec.label), select), read: () => select.value || null };
  }

  radios(spec, value, described, isShape) {
    const known = spec.values.some((one) => one.value === value) ? value : spec.default ?? spec.values[0].value;
    const inputs = spec.values.map((one) => element("input", { type: "radio", name: `p-${spec.name}`, value: one.value, checked: one.value === known }));
    const box = element("fieldset", { class: `field segmented ${isShape ? "shapes" : ""}`, role: "radiogroup", ...described },
      element("legend", {}, spec.label),
      element("div", { class: "choices" }, ...spec.values.map((one, at) => element("label", {}, inputs[at], isShape ? shape(one.value) : null, element("span", {}, one.text)))));
    return { box, read: () => inputs.find((input) => input.checked)?.value ?? null };
  }

  whole(spec, value, id, described) {
    const { minimum, maximum } = spec;
    const label = element("label", { for: id }, spec.label);
    const written = (count) => (spec.name === "duration" ? _("{count} s", { count }) : String(count));
    if (minimum === maximum) {
      return { box: element("div", { class: "field" }, element("span", { class: "label" }, spec.label), element("span", {}, written(minimum))), read: () => minimum, isFixed: true };
    }
    if (spec.default != null && maximum - minimum <= SLIDER) {
      const input = element("input", { type: "range", id, min: minimum, max: maximum, value: value ?? spec.default, ...described });
      const shown = element("output", { for: id, class: "num" }, written(input.value));
      input.addEventListener("input", () => { shown.textContent = written(input.value); });
      return { box: element("div", { class: "field" }, element("div", { class: "label-row" }, label, shown), input), read: () => Number(input.value) };
    }
    const input = element("input", { type: "number", id, min: minimum, max: maximum, step: 1, value: value ?? "", inputmode: "numeric", placeholder: `${minimum}–${maximum}`, ...described });
    return { box: element("div", { class: "field" }, label, input), read: () => (input.value === "" ? null : Number(input.value)) };
  }

  notePixels() {
    const size = this.shown.get("size");
    const found = size && this.pixels(size.read());
    if (size) size.help.textContent = found ? _("{pixels} pixels", { pixels: found.replace("x", " × ") }) : size.spec.help;
  }
}
