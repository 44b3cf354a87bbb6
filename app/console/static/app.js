// What every page does: notices, copying, dialogs, menus, filters, times in the reader's zone. No page needs more
// than this file and htmx to be used; scripts of single pages import what they share from here.

const own = document.querySelector("script[data-texts]");
export const language = own.dataset.language.replace("_", "-");
const texts = (await import(own.dataset.texts)).default;

/** Return a text in the page's language; `{name}` is filled in from `values`. */
export function gettext(message, values = {}) {
  return (texts[message] ?? message).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
const _ = gettext;

export const csrf = () => document.querySelector('meta[name="csrf"]').content;
export const number = (value) => new Intl.NumberFormat(language).format(value);

/** Build an element: `element("p", {class: "muted"}, "text", child)`. Text is never read as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** Ask our API as the person signed in. Returns the JSON; throws an ApiError. */
export async function api(path, { method = "GET", body, headers = {}, signal } = {}) {
  const isForm = body instanceof FormData;
  const response = await fetch(path, {
    method,
    signal,
    headers: {
      accept: "application/json",
      ...(method === "GET" ? {} : { "x-csrf-token": csrf() }),
      ...(body === undefined || isForm ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    body: body === undefined || isForm ? body : JSON.stringify(body),
  });
  if (!response.ok) throw await ApiError.of(response);
  return response.status === 204 ? null : response.json();
}

// Sentences of our API are English. What people meet often is said again, by its reason, in the page's language.
const REASONS = {
  content_policy_violation: _("The content filter refused this request. Change the prompt or the pictures."),
  insufficient_credits: _("There are not enough credits for this."),
  key_budget_exhausted: _("The budget of this key is used up."),
  model_not_found: _("There is no such model."),
  overloaded: _("The gateway is busy. Try again in a moment."),
  provider_unavailable: _("No upstream can make this right now. Try again in a moment."),
  task_not_found: _("There is no such task, or it was deleted."),
  too_many_requests: _("Too many requests. Wait a little, then try again."),
  upstream_error: _("The upstream could not make this. Try again, or choose another model."),
};

/** Return what an error of our API, or of a task, says to the reader; nothing where there is none. */
export function said(error) {
  return language === "en" ? error?.message : REASONS[error?.reason] ?? error?.message;
}

/** What our API refused: its sentence, its reason, and the request's id. */
export class ApiError extends Error {
  static async of(response) {
    let error = {};
    try {
      error = (await response.json()).error ?? {};
    } catch (problem) {
      error = { message: _("The server did not answer as expected.") };
    }
    const made = new ApiError(response.status === 401 ? _("You are signed out.") : said(error));
    if (response.status === 401) signedOut();
    Object.assign(made, { status: response.status, reason: error.reason, param: error.param });
    made.requestId = error.request_id ?? response.headers.get("x-request-id");
    return made;
  }
}

/** Say that the session has ended, once, and where one signs in again: it leads back to this page. */
function signedOut() {
  if (document.getElementById("signed-out")) return;
  const next = encodeURIComponent(location.pathname + location.search);
  const shown = toast(_("You are signed out."), "error");
  shown.id = "signed-out";
  shown.querySelector("span").append(" ", element("a", { href: `/console/login?next=${next}` }, _("Sign in")));
}

/** Show a notice that goes by itself; an error stays until it is closed. Returns the notice. */
export function toast(text, kind = "good", requestId = null) {
  const close = element("button", { type: "button", class: "ghost small", "data-dismiss": true, "aria-label": _("Close") }, "×");
  const shown = element("div", { class: `toast ${kind === "error" ? "bad" : kind}`, "data-toast": true },
    element("span", {}, text, requestId ? element("small", {}, ` ${requestId}`) : null), close);
  document.getElementById("toasts").append(shown);
  if (kind !== "error") setTimeout(() => shown.remove(), 5000);
  return shown;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) { // no secure context, such as plain HTTP in a local network
    const area = element("textarea", { class: "sr" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(_("Copied."));
}

export function localTimes(root) {
  const form = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[data-local]")) {
    time.title = time.dateTime;
    time.textContent = form.format(new Date(time.dateTime));
    time.removeAttribute("data-local");
  }
}

/** Read the data block of a page: see `data_block` in shell.py. */
export function data(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function prepare(root) {
  localTimes(root);
  for (const shown of root.querySelectorAll("[data-toast]:not(.bad)")) setTimeout(() => shown.remove(), 6000);
  for (const dialog of root.querySelectorAll("dialog[data-open]")) if (!dialog.open) dialog.showModal();
  if (root.querySelector("[data-tabs]")) {
    const choice = (() => { try { return localStorage.getItem("mg-tab"); } catch (refused) { return null; } })();
    if (/^[a-z]+$/.test(choice ?? "")) chooseTab(choice);
  }
  if (root.querySelector("[data-chart]")) import("./charts.js").then((charts) => charts.draw(root));
}

/** Choose the same tab in all groups of a page that have it: who reads Python once reads it everywhere. */
function chooseTab(choice) {
  try {
    localStorage.setItem("mg-tab", choice);
  } catch (refused) { /* a browser that keeps nothing */ }
  for (const group of document.querySelectorAll("[data-tabs]")) {
    if (!group.querySelector(`[data-choice="${choice}"]`)) continue;
    for (const tab of group.querySelectorAll("[role=tab]")) {
      const isChosen = tab.dataset.choice === choice;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
  }
}

/** Show what is in a password field, or hide it again. */
function showPassword(button) {
  const field = document.getElementById(button.dataset.shows);
  const isShown = field.type === "password";
  field.type = isShown ? "text" : "password";
  button.setAttribute("aria-pressed", String(isShown));
}

document.addEventListener("click", (event) => {
  const at = (selector) => event.target.closest(selector);
  let found;
  if ((found = at("[data-copy]"))) copy(found.dataset.copy);
  else if ((found = at("[data-copy-block]"))) copy(found.parentElement.querySelector("code").textContent);
  else if ((found = at("[data-dismiss]"))) found.closest("[data-toast]").remove();
  else if ((found = at("[data-opens]"))) document.getElementById(found.dataset.opens).showModal();
  else if ((found = at("[data-closes]"))) found.closest("dialog").close();
  else if ((found = at("[data-tabs] [role=tab]"))) chooseTab(found.dataset.choice);
  else if ((found = at("[data-shows]"))) showPassword(found);
  else if ((found = at("[data-nav]"))) {
    const open = document.getElementById("nav").classList.toggle("is-open");
    found.setAttribute("aria-expanded", String(open));
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    event.stopImmediatePropagation();
    return;
  }
  if (form.method === "post" && !form.hasAttribute("hx-post")) {
    setTimeout(() => { // after the browser has read which button was pressed
      for (const button of form.querySelectorAll("button:not([type=button])")) button.disabled = true;
    });
  }
}, true);
window.addEventListener("pageshow", (event) => { // back from another page: the buttons work again
  if (event.persisted) for (const button of document.querySelectorAll("form button:disabled")) button.disabled = false;
});

let waiting;
window.addEventListener("pageshow", (event) => { // back to a list: its filters are those of the address, not those last chosen
  if (!event.persisted && performance.getEntriesByType("navigation")[0]?.type !== "back_forward") return;
  clearTimeout(waiting);
  for (const form of document.querySelectorAll("form[data-autosubmit]")) form.reset();
});
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-autosubmit]");
  if (!form) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => form.requestSubmit(), event.target.matches("input:not([type=checkbox])") ? 500 : 0);
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    const search = document.querySelector("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
  const tab = event.target.closest("[data-tabs] [role=tab]");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (tab && step) {
    const tabs = [...tab.parentElement.querySelectorAll("[role=tab]")];
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    chooseTab(next.dataset.choice);
    next.focus();
  }
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
});

document.addEventListener("htmx:config:request", (event) => {
  const { request, sourceEvent } = event.detail.ctx;
  if (sourceEvent?.type === "every" || sourceEvent?.type === "load") { // nobody asked: the page did
    if (document.hidden) event.preventDefault();
    request.headers["X-Timer"] = "1";
  }
  if (request.method.toUpperCase() !== "GET") request.headers["X-CSRF-Token"] = csrf();
});
document.addEventListener("htmx:after:swap", () => prepare(document));
document.addEventListener("notice", (event) => toast(event.detail.text, event.detail.kind, event.detail.request_id));

prepare(document);
