// What every page does: notices, copying, dialogs, menus, filters, times in the reader's zone. No page needs more
// than this file and htmx to be used; scripts of single pages import what they share from here.

import { said } from "./refusals.js";
export { said };

const own = document.querySelector("script[data-texts]");
export const language = own.dataset.language.replace("_", "-");
const texts = (await import(own.dataset.texts)).default;

/** Return a text in the page's language; `{name}` is filled in from `values`. */
export function gettext(message, values = {}) {
  return (texts[message] ?? message).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
const _ = gettext;

const held = document.querySelector('meta[name="csrf"]');
export const csrf = () => held.content;

// What a browser keeps of one person (prompts, drafts) is not for the next one who signs in with it.
const OWNER = "mediagate.account";
if (held.dataset.account) {
  for (const store of ["localStorage", "sessionStorage"]) {
    try {
      if (window[store].getItem(OWNER) === held.dataset.account) continue;
      window[store].clear();
      window[store].setItem(OWNER, held.dataset.account);
    } catch (refused) { /* a browser that keeps nothing */ }
  }
}
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

// --- the session ends while a page is open --------------------------------------------------------------------------

/** Say that the session has ended, once, and where one signs in again. What was typed stays: another tab opens then. */
function signedOut() {
  if (!csrf() || document.getElementById("signed-out")) return;
  const next = encodeURIComponent(location.pathname + location.search);
  const isTyped = hasTyped();
  const shown = toast(_("You are signed out."), "error");
  shown.id = "signed-out";
  const kept = isTyped ? _("What you typed is still here.") : "";
  shown.querySelector("span").append(" ", kept, " ",
    element("a", { href: `/console/login?next=${next}`, target: isTyped ? "_blank" : null }, _("Sign in again")));
}

function hasTyped() {
  const fields = document.querySelectorAll("main form:not([data-autosubmit]) :is(input:not([type=hidden]), textarea), main textarea");
  return [...fields].some((field) => field.files?.length || (field.value !== field.defaultValue && !field.readOnly));
}

/** Ask whether this page's person is still signed in. Who signed in again meanwhile gives the page its new token. */
async function isSignedIn() {
  let now;
  try {
    now = await api("/console/session", { headers: { "x-timer": "1" }, signal: AbortSignal.timeout(3000) });
  } catch (error) {
    return error.status !== 401; // when nobody answers, nothing is known
  }
  const notice = document.getElementById("signed-out");
  if (now.account !== held.dataset.account) {
    notice?.remove();
    const shown = toast(_("Somebody else is signed in now."), "error");
    shown.id = "signed-out";
    shown.querySelector("span").append(" ", element("a", { href: location.href }, _("Load the page again")));
    return false;
  }
  if (notice) {
    notice.remove();
    toast(_("You are signed in again."));
    document.dispatchEvent(new Event("signed-in"));
  }
  held.content = now.csrf;
  for (const field of document.querySelectorAll("input[name=csrf]")) field.value = now.csrf;
  return true;
}

let askedAt = performance.now();
for (const [target, event] of [[document, "visibilitychange"], [window, "focus"]]) {
  target.addEventListener(event, () => { // back to a page that was left: it may have ended meanwhile, or begun anew
    if (!csrf() || document.hidden || performance.now() - askedAt < 1000) return;
    askedAt = performance.now();
    isSignedIn();
  });
}
window.addEventListener("pageshow", async (event) => { // a page that the browser kept shows nothing after a sign-out
  if (event.persisted && csrf() && !(await isSignedIn())) location.reload();
});
document.addEventListener("signed-out", signedOut);

const place = document.getElementById("toasts");
const lift = () => ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(place);
// Nothing outside of an open dialog is read out or can be pressed: notices are shown in it, and leave it before it goes.
document.addEventListener("close", (event) => event.target.contains(place) && document.body.append(place), true);

/** Show a notice that goes by itself; an error stays until it is closed. Returns the notice. */
export function toast(text, kind = "good", requestId = null) {
  const close = element("button", { type: "button", class: "ghost small", "data-dismiss": true, "aria-label": _("Close") }, element("span", { "aria-hidden": "true" }, "×"));
  const shown = element("div", { class: `toast ${kind === "error" ? "bad" : kind}`, "data-toast": true },
    element("span", {}, text, requestId ? element("small", {}, ` ${requestId}`) : null), close);
  lift();
  place.append(shown);
  if (kind !== "error") setTimeout(() => shown.remove(), 5000);
  return shown;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) { // no secure context, such as plain HTTP in a local network
    const before = document.activeElement;
    const area = element("textarea", { class: "sr" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    before?.focus();
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

/** On a phone: lay the list of pages over the page, which rests meanwhile, or take it away. */
function showPages(isOpen) {
  document.getElementById("nav").classList.toggle("is-open", isOpen);
  document.getElementById("main").inert = isOpen;
  document.querySelector("[data-nav]").setAttribute("aria-expanded", String(isOpen));
}
window.matchMedia("(max-width: 860px)").addEventListener("change", () => document.querySelector("[data-nav]") && showPages(false));

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
  else if ((found = at("[data-nav]"))) showPages(found.getAttribute("aria-expanded") !== "true");
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

const asking = new Set(), allowed = new WeakSet();

/** Send a form when its person is still signed in; otherwise its page, with what was typed, stays. */
async function sendSignedIn(form, submitter) {
  if (asking.has(form)) return;
  asking.add(form);
  submitter?.setAttribute("aria-busy", "true");
  const isAllowed = await isSignedIn();
  submitter?.removeAttribute("aria-busy");
  asking.delete(form);
  if (!isAllowed || !form.isConnected) return;
  allowed.add(form);
  try {
    form.requestSubmit(form.contains(submitter) ? submitter : null); // a page that is alive may have taken it away
  } finally {
    allowed.delete(form); // where a field was refused, nothing was sent
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  const isAllowed = allowed.has(form);
  const question = isAllowed ? null : event.submitter?.dataset.confirm ?? form.dataset.confirm;
  const isRefused = question && !window.confirm(question);
  if (isRefused || (!isAllowed && form.method === "post" && form.elements.csrf?.value && form.getAttribute("action") !== "/console/logout")) {
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!isRefused) sendSignedIn(form, event.submitter);
    return;
  }
  if (form.method === "post" && !form.hasAttribute("hx-post")) {
    setTimeout(() => { // after the browser has read which button was pressed
      for (const button of form.querySelectorAll("button:not([type=button])")) button.disabled = true;
      event.submitter?.setAttribute("aria-busy", "true");
    });
  }
}, true);
window.addEventListener("pageshow", (event) => { // back from another page: the buttons work again
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("form button:disabled")) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
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
    const opener = document.querySelector('[data-nav][aria-expanded="true"]');
    if (opener) {
      showPages(false);
      opener.focus();
    }
  }
});

document.addEventListener("htmx:config:request", (event) => {
  const { request, sourceEvent } = event.detail.ctx;
  if (["every", "load", "balance"].includes(sourceEvent?.type)) { // nobody asked: the page did
    if (sourceEvent.type !== "balance" && (document.hidden || document.getElementById("signed-out"))) event.preventDefault();
    request.headers["X-Timer"] = "1";
  }
  if (request.method.toUpperCase() !== "GET") request.headers["X-CSRF-Token"] = csrf();
});
document.addEventListener("htmx:after:swap", () => prepare(document));
document.addEventListener("notice", (event) => toast(event.detail.text, event.detail.kind, event.detail.request_id));

prepare(document);
document.querySelector(".side [aria-current]")?.scrollIntoView({ block: "nearest" }); // the menu may be longer than the window
