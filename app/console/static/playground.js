// The playground: puts the form together, prices it, sends it, and hands what comes of it to the list of runs.

import { api, data, element, gettext as _, language as spoken, number, toast, ApiError } from "./app.js";
import { Fields } from "./fields.js";
import { address, button, icon, preview } from "./icons.js";
import { Inputs } from "./inputs.js";
import { hint, modelPicker } from "./models.js";
import { PromptBox } from "./prompts.js";
import { newKey, post, quoteFor } from "./requests.js";
import { Runs } from "./runs.js";
import { snippet } from "./snippets.js";

const MARK = "✓ "; // before the title of a tab in the background, where something is done
const KEPT = "mediagate.playground";
const PRICE_AFTER_MS = 300;
const UNREACHED = _("The gateway could not be reached. Try again: you are not charged twice.");
const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp" };

const page = data("playground-data");
const at = (id) => document.getElementById(id);
const form = at("play-form");
const go = at("generate");
const models = new Map(page.models.map((model) => [model.id, model]));
const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
const values = kept.values ?? {};
let model = null;
let remix = null;
let credits = page.credits;
let price = null;
let lastPrice = null; // in credits, as the button said it last

const prompt = new PromptBox(() => changed("prompt"));
const fields = new Fields(at("fields"), at("more-fields"), () => changed());
const inputs = new Inputs(at("inputs"), page.limits, () => changed());
const runs = new Runs(at("runs"), at("runs-empty"), {
  title: (id) => models.get(id)?.title ?? id,
  canRemix: (id) => models.get(id)?.operations.includes("video.remix") ?? false,
  use: useResult,
  useBlob,
  remix: beginRemix,
  again,
  ended: () => {
    refreshCredits();
    if (document.hidden) document.title = `${MARK}${document.title.replace(MARK, "")}`;
  },
  say,
});

// --- the form -------------------------------------------------------------------------------------------------------

function choose(next, given = null) {
  if (remix && next.id !== remix.model) endRemix();
  model = next;
  at("model-icon").replaceChildren(icon(model.type));
  at("model-name").textContent = model.title;
  at("model-about").href = `/console/models/${encodeURIComponent(model.id)}`;
  at("model-hint").replaceChildren(model.isServed ? hint(model) : element("span", { class: "chip off" }, _("Not available now")));
  fields.show(model, given ?? values[model.id]);
  inputs.show(model);
  const url = new URL(location.href);
  url.search = "";
  url.searchParams.set("model", model.id);
  history.replaceState(null, "", url);
  document.title = document.title.replace(/^[^·]*/, `${model.title} `);
  changed();
}

function operation() {
  if (remix) return "video.remix";
  return inputs.operation(model.type === "image" ? "image.generate" : "video.generate");
}

function changed(what = null) {
  const now = operation();
  inputs.limit(now);
  fields.limit(operation());
  values[model.id] = fields.values();
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ values, prompt: prompt.area.value, model: model.id, addresses: [...inputs.texts], pictures: inputs.count }));
  } catch (full) {
    sessionStorage.removeItem(KEPT);
  }
  if (what === "prompt") prompt.forgive();
  askPrice(what === "prompt" && price !== null);
  if (at("code").open) showCode();
}

/** What is to be sent: `path`, `json` and `files`, and for the price `tiny` pictures in place of the true ones. */
function request() {
  const now = operation();
  const json = { model: model.id, prompt: prompt.value, ...fields.sent() };
  if (!json.prompt) delete json.prompt;
  if (now === "video.remix") return { path: `videos/${remix.id}/remix`, json, files: [], tiny: {} };
  const files = [];
  const tiny = {};
  for (const { spec, items } of inputs.sent()) {
    if (spec.media !== "image") json[spec.name] = spec.single ? items[0] : items;
    else {
      const field = now === "image.edit" ? "image" : spec.name;
      tiny[field] = spec.single ? items[0].tiny : items.map((item) => item.tiny);
      files.push(...items.map((item) => ({ field, blob: item.blob, isList: !spec.single && (items.length > 1 || now !== "image.edit") })));
    }
  }
  if (now === "image.edit" && inputs.mask) files.push({ field: "mask", blob: inputs.mask.blob, isList: false });
  let count = 0;
  for (const file of files) {
    const ending = ENDINGS[file.blob.type] ?? "png";
    file.name = file.field === "mask" ? "mask.png" : `input${count ? `-${count + 1}` : ""}.${ending}`;
    if (file.field !== "mask") count += 1;
  }
  const path = { "image.generate": "images/generations", "image.edit": "images/edits" }[now] ?? "videos/generations";
  return { path, json, files, tiny };
}

// --- the price ------------------------------------------------------------------------------------------------------

let priceTimer;
let pricing;

function askPrice(isQuiet = false) {
  clearTimeout(priceTimer);
  pricing?.abort();
  if (!isQuiet) showPrice(null);
  priceTimer = setTimeout(quote, PRICE_AFTER_MS);
}

/** Ask for the price. Returns what kept it from being known, where that was no answer of ours. */
async function quote() {
  clearTimeout(priceTimer);
  pricing?.abort();
  pricing = new AbortController();
  const { signal } = pricing;
  try {
    const found = await quoteFor(request(), signal);
    fields.forgive();
    inputs.forgive();
    showError(null);
    showPrice(found);
  } catch (error) {
    if (signal.aborted) return;
    showPrice(null);
    if (!(error instanceof ApiError)) return error;
    fields.forgive();
    inputs.forgive();
    if (showError(error)) at("price-note").textContent = _("This cannot be made. See the marked field.");
  }
}

/** Return how a price comes about. The API's own words, which are English, say a little more. */
function priceNote(found) {
  if (spoken === "en") return found.explain.replaceAll(" x ", " × ");
  const values = { quantity: number(found.quantity), each: number(found.unit_credits) };
  if (found.unit === "second") return _("{quantity} s × {each} credits", values);
  return found.unit === "image" ? _("{quantity} image × {each} credits", values) : _("{quantity} call × {each} credits", values);
}

function showPrice(found) {
  price = found;
  if (found) lastPrice = found.credits;
  at("generate-text").textContent = found ? (found.credits === 1 ? _("Generate · 1 credit") : _("Generate · {count} credits", { count: number(found.credits) })) : _("Generate");
  at("price-note").textContent = found ? priceNote(found) : "";
  const lacks = found !== null && found.credits > credits;
  at("funds").hidden = !lacks;
  at("funds").classList.toggle("error", lacks);
  if (lacks) at("funds").replaceChildren(_("Your balance of {count} credits is not enough for this.", { count: number(credits) }), " ", redeemLink());
  go.disabled = lacks || page.isSuspended;
}

const redeemLink = () => element("a", { href: "/console/ledger" }, _("Redeem a code"));

/** Show a refusal at the field it names, or, with the request's id, above the button. Returns whether at a field. */
function showError(error) {
  const place = at("form-error");
  place.hidden = true;
  place.replaceChildren();
  if (!error) return false;
  const { param } = error;
  if (param && (fields.refuse(param, error.message) || inputs.refuse(param, error.message))) return true;
  if (param === "prompt") {
    prompt.refuse(error.message);
    return true;
  }
  const id = error.requestId ? element("p", { class: "small" }, `${_("Request id")} `, element("code", {}, error.requestId)) : null;
  place.append(element("div", { class: "alert bad" }, icon("circle-alert"), element("div", {}, element("p", {}, error.message), error.reason === "insufficient_credits" ? redeemLink() : null, id)));
  place.hidden = false;
  return false;
}

async function refreshCredits() {
  document.body.dispatchEvent(new CustomEvent("balance"));
  try {
    credits = (await api("/v1/me", { headers: { "x-timer": "1" } })).credits; // a task has ended: nobody asked
    if (price) showPrice(price);
  } catch (error) { /* the bar at the top still tells it */ }
}

// --- sending --------------------------------------------------------------------------------------------------------

async function generate() {
  prompt.forgive();
  if (!prompt.value && !model.promptOptionalWith.some((name) => inputs.list(name).length)) {
    prompt.refuse(_("Say what you want to see."));
    prompt.area.focus();
    return;
  }
  const promised = lastPrice;
  if (!price) {
    if (go.hasAttribute("aria-busy")) return; // pressed already: once is meant
    go.setAttribute("aria-busy", "true");
    const lost = await quote();
    go.removeAttribute("aria-busy");
    if (!price && lost) offerAgain(UNREACHED, "refresh-cw", _("Try again"), generate);
    if (!price) return;
  }
  if (promised === null || price.credits > promised) { // it was not on the button yet
    toast(_("This costs {count} credits. Press again to make it.", { count: number(price.credits) }));
    return;
  }
  prompt.remember();
  await send({ ...request(), limit: price.credits }, { type: operation().replace(".generate", ".generation"), aspect_ratio: fields.ratio(), size: fields.pixels(fields.ratio()) });
}

async function send(sent, sketch) {
  sent.key ??= newKey();
  const run = runs.begin({ ...sent, sketch }, { model: sent.json.model, prompt: sent.json.prompt ?? "", ...sketch });
  go.setAttribute("aria-busy", "true");
  say(_("Sent."));
  try {
    const { task, requestId } = await post(sent);
    runs.accepted(run, task, requestId);
    showError(null);
    refreshCredits();
  } catch (error) {
    runs.drop(run);
    if (!(error instanceof ApiError)) showUnsent(sent, sketch);
    else if (error.reason === "price_above_max") await showRisen(sent, sketch);
    else if (showError(error)) form.querySelector(".wrong")?.scrollIntoView({ block: "center" });
  } finally {
    go.removeAttribute("aria-busy");
  }
}

/** The answer was lost: sent again under the same key, the request is done once. */
const showUnsent = (sent, sketch) => offerAgain(UNREACHED, "refresh-cw", _("Try again"), () => send(sent, sketch));

/** The price went up after the button had said it: nothing was made, and what it costs now is asked for first. */
async function showRisen(sent, sketch) {
  await quote();
  try {
    const { credits: limit } = await quoteFor(sent);
    offerAgain(_("The price has gone up meanwhile. Nothing was made, and nothing was charged."), "sparkles", _("Generate · {count} credits", { count: number(limit) }), () => send({ ...sent, limit, key: null }, sketch));
  } catch (error) {
    if (error instanceof ApiError) showError(error);
    else showUnsent(sent, sketch);
  }
}

function offerAgain(text, sign, label, begin) {
  const place = at("form-error");
  place.replaceChildren(element("div", { class: "alert bad" }, icon("circle-alert"), element("div", {}, element("p", {}, text), button(sign, label, () => {
    showError(null);
    begin();
  }, { class: "small" }))));
  place.hidden = false;
}

// --- going on from a result -----------------------------------------------------------------------------------------

/** Do it again: a request of this page as it was, another one through the form. */
function again({ request: sent, task, isForm = false }) {
  if (sent && !isForm) send({ ...sent, key: null }, sent.sketch);
  else location.assign(`/console/playground?from=${task.id}`);
}

async function useResult(task) {
  if (task.type.startsWith("video")) {
    const poster = task.result?.videos?.[0]?.thumbnail_url ? "thumbnail" : null;
    if (poster) await useAddress(address(task, poster), `${task.id}.jpg`);
    else toast(_("This video has no cover picture. Open it and use one of its frames."), "error");
  } else await useAddress(address(task), `${task.id}.png`);
}

async function useAddress(url, name, field = null) {
  try {
    const response = await fetch(url);
    if (!response.ok) throw await ApiError.of(response);
    return await useBlob(await response.blob(), name, field);
  } catch (error) {
    toast(error.message || _("The file could not be loaded."), "error", error.requestId);
    return false;
  }
}

async function restoreMask(one) {
  try {
    const response = one ? await fetch(one.url) : null;
    return response?.ok ? await inputs.restoreMask(await response.blob()) : false;
  } catch (unreachable) {
    return false;
  }
}

async function useBlob(blob, name, field = null) {
  if (remix) endRemix();
  const taken = await inputs.add([blob], field, [name]);
  if (taken) {
    say(_("{name} was added to the inputs.", { name }));
    form.scrollIntoView({ block: "start" });
    prompt.area.focus({ preventScroll: true });
  }
  return taken > 0;
}

function beginRemix(task) {
  remix = task;
  choose(models.get(task.model), { size: task.aspect_ratio, resolution: task.resolution });
  const poster = task.result?.videos?.[0]?.thumbnail_url;
  at("remix-source").replaceChildren(
    element("span", { class: "remix-picture" }, poster ? element("img", { src: preview(task), alt: "", decoding: "async" }) : icon("video")),
    element("span", { class: "grow" }, element("strong", {}, _("Remix")), element("span", { class: "small muted clip" }, task.prompt)),
    button("x", _("No remix"), () => { endRemix(); changed(); }, { small: true }));
  at("remix-source").hidden = false;
  prompt.area.focus();
}

function endRemix() {
  remix = null;
  at("remix-source").hidden = true;
}

// --- code -----------------------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("[data-code]")];
let language = localStorage.getItem("mediagate.code") ?? "curl";

function showCode() {
  if (!tabs.some((tab) => tab.dataset.code === language)) language = "curl";
  for (const tab of tabs) {
    const isChosen = tab.dataset.code === language;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
  }
  const shown = request();
  shown.json = { ...shown.json, prompt: shown.json.prompt ?? _("Your prompt") };
  at("code-panel").setAttribute("aria-labelledby", `code-tab-${language}`);
  at("code-text").querySelector("code").textContent = snippet(language, shown, page.baseUrl);
  at("code-note").textContent = shown.files.length ? _("It reads {files} from the folder it runs in.", { files: shown.files.map((file) => file.name).join(", ") }) : "";
}

at("open-code").addEventListener("click", () => {
  showCode();
  at("code").showModal();
});
for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    language = tab.dataset.code;
    localStorage.setItem("mediagate.code", language);
    showCode();
  });
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(index + by + tabs.length) % tabs.length];
    next.click();
    next.focus();
  });
}

// --- beginning ------------------------------------------------------------------------------------------------------

function say(text) {
  at("said").textContent = text;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!go.disabled) generate();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  if (!go.disabled) generate();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.title = document.title.replace(MARK, "");
});
for (const example of document.querySelectorAll("[data-example]")) {
  example.addEventListener("click", () => {
    prompt.value = example.textContent.trim();
    changed("prompt");
    prompt.area.focus();
  });
}
at("model-button").addEventListener("click", modelPicker(page.models, () => model, (next) => choose(next)));

const { start } = page;
const first = page.model ?? kept.model ?? page.defaultModel;
prompt.value = start.prompt ?? kept.prompt ?? "";
runs.restore(page.runs);
if (first === kept.model && !start.model) inputs.texts = new Map(kept.addresses);
const lostPictures = kept.pictures ?? 0;
choose(models.get(first) ?? page.models[0], start.values ?? null);
if (start.isLost) toast(_("That task no longer exists, or cannot be used here."), "error");
if (start.remix) {
  beginRemix(start.remix);
}
if (start.use) {
  if (model.type !== "image" && start.use.type.startsWith("image") && !page.model) choose(models.get(page.defaultModel) ?? model);
  await useResult(start.use);
}
if (lostPictures && !start.model && !start.use && !start.remix) toast(_("Pictures are not kept when the page is loaded again. Choose them again."), "info");
if (start.inputs?.length) {
  for (const one of start.inputs.filter(({ field }) => field !== "mask")) await useAddress(one.url, `${one.field}.${ENDINGS[one.mime] ?? "png"}`, one.field);
}
if (start.hasMask && !(await restoreMask(start.inputs.find(({ field }) => field === "mask")))) toast(_("The mask is not restored: brush it again."), "info");
document.body.dataset.ready = "playground";
