// Draws the charts of a page with uPlot: `<figure data-chart="ID">` beside a data block of that id. Each has a table
// with the same figures, so that nothing is said by a picture alone.

import { data, element, number } from "./app.js";

await new Promise((resolve, reject) => { // a classic script: it sets window.uPlot
  const script = element("script", { src: new URL("./vendor/uplot-1.6.32.min.js", import.meta.url).href });
  script.onload = resolve;
  script.onerror = reject;
  document.head.append(
    element("link", { rel: "stylesheet", href: new URL("./vendor/uplot-1.6.32.min.css", import.meta.url).href }), script);
});

const drawn = new Map();
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (index, tone) => style(tone === "off" ? "--line-strong" : tone ? `--${tone}` : `--chart-${(index % 6) + 1}`);

/** Draw every chart below `root` that is not drawn yet; with `anew` the others too. */
export function draw(root, anew = false) {
  for (const [figure, plot] of drawn) {
    if (figure.isConnected) continue; // a part of the page was replaced
    plot.destroy();
    drawn.delete(figure);
  }
  for (const figure of root.querySelectorAll("[data-chart]")) {
    if (drawn.has(figure) && !anew) continue;
    drawn.get(figure)?.destroy();
    drawn.set(figure, chart(figure, data(figure.dataset.chart)));
  }
}

/** Days of one year are told without it: there is room for more of them. */
function shortened(labels) {
  const isDays = labels.every((label) => /^\d{4}-\d\d-\d\d$/.test(label));
  return isDays && new Set(labels.map((label) => label.slice(0, 4))).size === 1 ? labels.map((label) => label.slice(5)) : labels;
}

function widest(labels, font) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = font;
  return Math.max(0, ...labels.map((label) => pen.measureText(label).width));
}

function chart(figure, { x, series, kind, unit, tones = [] }) {
  const place = figure.querySelector(".plot");
  place.replaceChildren();
  figure.querySelector(".legend")?.remove();
  const isStacked = kind === "stacked";
  const isBars = isStacked || kind === "bars";
  const sums = x.map(() => 0);
  // Stacked: each series is drawn as the sum up to it, the highest first, so that the lower ones cover it.
  const heights = series.map((one) => one.values.map((value, at) => (isStacked ? (sums[at] += value ?? 0) : value)));
  const order = series.map((_one, index) => index);
  if (isStacked) order.reverse();
  const bars = window.uPlot.paths.bars({ size: [0.7, 40], radius: isStacked && series.length > 1 ? 0 : 0.15 });
  const font = "12px system-ui, sans-serif";
  const labels = shortened(x);
  const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font };
  const plot = new window.uPlot({
    width: Math.max(place.clientWidth, 200),
    height: 220,
    cursor: { y: false, drag: { x: false, y: false }, points: { show: !isBars, size: 6 } },
    legend: { show: false },
    scales: {
      x: { time: false, range: isBars ? (_plot, low, high) => [low - 0.6, high + 0.6] : undefined },
      y: { range: (_plot, _low, high) => [0, (high || 1) * 1.1] },
    },
    axes: [
      { ...axis, size: 30, grid: { show: false }, incrs: [1, 2, 5, 7, 10, 14, 30, 60, 90, 180], space: widest(labels, font) + 16, values: (_plot, ticks) => ticks.map((tick) => labels[tick] ?? "") },
      { ...axis, size: 64, values: (_plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) || kind === "lines" ? number(tick) : "")) },
    ],
    series: [{}, ...order.map((index) => ({
      label: series[index].name,
      stroke: colour(index, tones[index]),
      width: isBars ? 0 : 2,
      fill: isBars ? colour(index, tones[index]) : undefined,
      paths: isBars ? bars : undefined,
      points: { show: false },
    }))],
    hooks: { setCursor: [(self) => tell(self.cursor.idx)] },
  }, [x.map((_label, index) => index), ...order.map((index) => heights[index])], place);
  const tip = element("p", { class: "muted small num" });
  const tell = (at) => {
    const told = at == null ? [] : series.filter((one) => series.length === 1 || one.values[at]);
    tip.textContent = at == null ? "\u00a0" : [x[at], ...told.map((one) => `${one.name}: ${number(one.values[at] ?? 0)}`)].join(" · ") + (told.length && unit ? ` ${unit}` : "");
  };
  tell(null);
  place.append(tip);
  if (series.length > 1) {
    place.after(element("ul", { class: "legend" }, ...series.map((one, index) =>
      element("li", {}, element("span", { class: `swatch ${tones[index] ? `tone-${tones[index]}` : `c${(index % 6) + 1}`}` }), one.name))));
  }
  return plot;
}

const again = () => draw(document, true);
let resized;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(again, 150);
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
