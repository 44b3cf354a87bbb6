// What an error says to the reader, as app/console/refusals.py does it on our pages: that gives us the sentences of
// our services with their values, as regular expressions, and each one in the page's language.

const own = document.querySelector("script[data-texts]");
const { refusals } = await import(own.dataset.texts);
const number = new Intl.NumberFormat(own.dataset.language.replace("_", "-"));
const [sentences, phrases, rest] = ["sentences", "phrases", "rest"].map((name) => refusals[name].map(([pattern, text]) => [new RegExp(`^${pattern}$`), text]));

/** Return what an error of our API, or of a task, says to the reader; nothing where there is none. */
export function said(error) {
  if (!error?.message) return error?.message;
  return fill(error.message, sentences) ?? refusals.reasons[error.reason] ?? fill(error.message, rest) ?? error.message;
}

/** Return what an upstream or a vendor said in words of their own; null where `said` tells all of it. */
export function foreign(error) {
  if (!error?.message || fill(error.message, sentences) !== undefined || !refusals.reasons[error.reason]) return null;
  return error.message.replace(refusals.free, "").trim() || null;
}

function fill(message, shapes) {
  for (const [pattern, text] of shapes) {
    const found = pattern.exec(message);
    if (found) return text.replace(/%\((\w+)\)s/g, (whole, name) => shown(name, found.groups[name]));
  }
  return undefined;
}

function shown(name, value) {
  if (name === "field" || name === "other") return label(value);
  if (name === "fields") return value.replace(/'([^']+)'/g, (whole, field) => refusals.quoted.replace("%(name)s", () => label(field))).replaceAll(" or ", refusals.or);
  if (refusals.phrased.includes(name)) {
    const parts = name === "reasons" ? value.split("; ") : [value];
    return parts.map((part) => fill(part, phrases) ?? part).join("; ");
  }
  return !refusals.names.includes(name) && /^-?[0-9]+(,[0-9]{3})*$/.test(value) ? number.format(BigInt(value.replaceAll(",", ""))) : value;
}

function label(name) {
  const place = /^(\w+)\[([0-9]+)\]$/.exec(name);
  return place ? `${label(place[1])} ${Number(place[2]) + 1}` : Object.hasOwn(refusals.labels, name) ? refusals.labels[name] : name;
}
