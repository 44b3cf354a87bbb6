// The list of models to choose from: searched, by type, with what each costs.

import { element, gettext as _, number } from "./app.js";
import { icon } from "./icons.js";

/** Write a model's price: "from 8 credits a second". */
export function hint({ price }) {
  const amount = number(price.least);
  if (price.least === price.most) return price.least === 1 ? _("{count} credit {unit}", { count: amount, unit: price.unit }) : _("{count} credits {unit}", { count: amount, unit: price.unit });
  return _("{count} to {most} credits {unit}", { count: amount, most: number(price.most), unit: price.unit });
}

export function modelPicker(models, chosen, choose) {
  const dialog = document.getElementById("models");
  const list = document.getElementById("model-list");
  const search = document.getElementById("model-search");
  const none = document.getElementById("model-none");
  const kinds = [...dialog.querySelectorAll("[data-kind]")];
  let kind = "";

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = models.filter((model) => (!kind || model.type === kind) && words.every((word) => `${model.title} ${model.id} ${model.description}`.toLowerCase().includes(word)));
    list.replaceChildren(...found.map((model) => {
      const isChosen = model === chosen();
      const one = element("button", { type: "button", class: "model-option", "data-model": model.id, "aria-current": isChosen ? "true" : null },
        icon(model.type), element("span", { class: "model-text" }, element("strong", {}, model.title), element("span", { class: "muted small" }, model.description || model.id), element("span", { class: "small num" }, hint(model)), model.isServed ? null : element("span", { class: "small" }, element("span", { class: "chip off" }, _("Not available now")))), isChosen ? icon("check") : null);
      one.addEventListener("click", () => {
        dialog.close();
        choose(model);
      });
      return element("li", {}, one);
    }));
    none.hidden = found.length > 0;
  }

  for (const button of kinds) {
    button.addEventListener("click", () => {
      kind = button.dataset.kind;
      for (const one of kinds) one.setAttribute("aria-pressed", String(one === button));
      draw();
    });
  }
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    list.querySelector("button")?.click();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const options = [...list.querySelectorAll("button")];
    if (!step || !options.length) return;
    event.preventDefault();
    const at = options.indexOf(document.activeElement);
    if (at + step < 0) search.focus();
    else options[Math.min(options.length - 1, at + step)].focus();
  });
  return () => {
    search.value = "";
    draw();
    dialog.showModal();
    search.focus();
  };
}
