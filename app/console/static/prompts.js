// The prompt box: its counter, and the prompts that were used in this browser.

import { element, gettext as _, number } from "./app.js";

const KEPT = "mediagate.prompts";
const MOST = 30;
const WARN = 30000;

export class PromptBox {
  constructor(changed) {
    this.area = document.getElementById("prompt");
    this.count = document.getElementById("prompt-count");
    this.error = document.getElementById("e-prompt");
    this.dialog = document.getElementById("history");
    this.area.addEventListener("input", () => {
      this.tell();
      changed();
    });
    document.getElementById("history-button").addEventListener("click", () => this.show());
    document.getElementById("history-clear").addEventListener("click", () => {
      localStorage.removeItem(KEPT);
      this.draw();
    });
    this.changed = changed;
    this.tell();
  }

  get value() { return this.area.value.trim(); }

  set value(text) {
    this.area.value = text;
    this.tell();
  }

  tell() {
    const length = [...this.area.value].length;
    this.count.textContent = `${number(length)} / ${number(32000)}`;
    this.count.classList.toggle("near", length > WARN);
  }

  refuse(text) {
    this.error.textContent = text;
    this.error.hidden = false;
    this.area.setAttribute("aria-invalid", "true");
    this.area.closest(".field").classList.add("wrong");
  }

  forgive() {
    this.error.hidden = true;
    this.area.removeAttribute("aria-invalid");
    this.area.closest(".field").classList.remove("wrong");
  }

  remember() {
    if (!this.value) return;
    try {
      localStorage.setItem(KEPT, JSON.stringify([this.value, ...known().filter((one) => one !== this.value)].slice(0, MOST)));
    } catch (full) {
      localStorage.removeItem(KEPT);
    }
  }

  show() {
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const prompts = known();
    document.getElementById("history-none").hidden = prompts.length > 0;
    document.getElementById("history-clear").hidden = prompts.length === 0;
    document.getElementById("history-list").replaceChildren(...prompts.map((text) => {
      const one = element("button", { type: "button", class: "history-one", title: _("Use this prompt") }, text);
      one.addEventListener("click", () => {
        this.dialog.close();
        this.value = text;
        this.area.focus();
        this.changed();
      });
      return element("li", {}, one);
    }));
  }
}

function known() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(found) ? found.filter((one) => typeof one === "string") : [];
  } catch (broken) {
    return [];
  }
}
