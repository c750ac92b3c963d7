// The metrics of one job, or of several over each other, as small plots: zoom by dragging or by typing, smoothing, a log scale, live points.
// The series comes once, thinned by the server; what happens next arrives as events.

const GROUPS = [
  ["Loss", ["loss", "validation/loss"]],
  ["Implicit accuracy", ["implicit_accuracy", "validation/implicit_accuracy"]],
  ["Margin", ["margin", "validation/margin"]],
  ["Chosen and rejected gain", ["chosen_gain", "rejected_gain"]],
  ["Reward", ["reward"]],
  ["Drift", /^(ref|policy)_drift_/],
  ["Distance from the reference", ["kl", "approx_kl"]],
];
const FIRST = new Set(GROUPS.map(([title]) => title)); // with the gains of rewards; the rest is folded
const MOST_PLOTS = 24;

export function showCurves() {
  const place = document.getElementById("curves");
  if (!place || !window.uPlot) return;
  const controls = document.getElementById("curve-controls");
  const board = new Board(place);
  controls.hidden = false;
  document.getElementById("smoothing").addEventListener("input", (event) => board.smooth(Number(event.target.value)));
  document.getElementById("log-scale").addEventListener("change", (event) => board.scale(event.target.checked));
  const ends = ["first-step", "last-step"].map((id) => document.getElementById(id));
  for (const end of ends) end.addEventListener("input", () => board.zoom(...ends.map((one) => one.valueAsNumber)));
  board.load().then(() => board.draw());
  new ResizeObserver(() => board.resize()).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => board.draw());
  document.body.addEventListener("attune:step", (event) => board.add(event.detail));
}

class Board {
  constructor(place) {
    this.place = place;
    this.urls = (place.dataset.urls || place.dataset.url).split(" ");
    this.names = (place.dataset.names || "").split(" ");
    this.series = []; // of each job: Map from metric to [steps, values]
    this.early = []; // points that came before the series
    this.range = [NaN, NaN]; // the first and the last step that are shown, where the reader has said so
    this.plots = [];
    this.smoothing = 0;
    this.isLog = false;
    this.isDue = false;
    this.isOpen = false;
  }

  async load() {
    const answers = await Promise.all(this.urls.map((url) => fetch(url, { credentials: "same-origin" })));
    this.series = await Promise.all(answers.map(async (answer) => (answer.ok ? byMetric((await answer.json()).data) : new Map())));
    this.early.splice(0).forEach((point) => this.add(point));
  }

  add({ step, metrics }) {
    const known = this.series[0];
    if (!known) return void this.early.push({ step, metrics });
    for (const [name, value] of Object.entries(metrics)) {
      if (!known.has(name)) known.set(name, [[], []]);
      const [steps, values] = known.get(name);
      if (steps.length && steps[steps.length - 1] >= step) continue; // told before, or run again after a lost worker
      steps.push(step);
      values.push(value);
    }
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => { this.isDue = false; this.draw(); }, 500);
  }

  smooth(amount) { this.smoothing = amount; this.draw(); }
  scale(isLog) { this.isLog = isLog; this.draw(); }
  zoom(first, last) { this.range = [first, last]; this.plots.forEach((plot) => this.show(plot)); }

  // The steps that the reader has chosen; an end that is not said is that of the curve.
  show(plot) {
    const steps = plot.data[0];
    const [min, max] = this.range.map((end, index) => (Number.isNaN(end) ? steps.at(-index) : end));
    if (min < max) plot.setScale("x", { min, max });
  }

  groups() {
    const names = [...new Set(this.series.flatMap((one) => [...one.keys()]))];
    const found = [];
    const taken = new Set();
    for (const [title, wanted] of GROUPS) {
      const here = wanted instanceof RegExp ? names.filter((name) => wanted.test(name)) : wanted.filter((name) => names.includes(name));
      if (here.length) found.push([title, here]);
      here.forEach((name) => taken.add(name));
    }
    for (const name of names) if (!taken.has(name)) found.push([titled(name), [name]]);
    const isFirst = ([title]) => FIRST.has(title) || title.endsWith(" gain");
    return [...found.filter(isFirst), ...found.filter((one) => !isFirst(one))].slice(0, MOST_PLOTS).map((one) => [...one, isFirst(one)]);
  }

  draw() {
    const groups = this.groups();
    const titles = groups.map(([title, names]) => [title, ...names].join("\t")).join("\n");
    const isSame = this.plots.length === groups.length && this.titles === titles && this.wasLog === this.isLog && this.ink === ink();
    if (!isSame) this.build(groups);
    this.titles = titles;
    this.wasLog = this.isLog;
    this.ink = ink();
    groups.forEach(([, names], index) => {
      const plot = this.plots[index];
      const { min, max } = plot.scales.x;
      const isZoomed = plot.data[0].length > 1 && typeof min === "number" && (min > plot.data[0][0] || max < plot.data[0].at(-1));
      plot.setData(this.table(names), !isZoomed);
      if (!this.range.every(Number.isNaN)) this.show(plot);
      else if (isZoomed) plot.setScale("x", { min, max }); // without a scale nothing is drawn
    });
    if (!groups.length) this.place.textContent = "No step has been taken yet.";
  }

  build(groups) {
    this.plots.forEach((plot) => plot.destroy());
    this.place.replaceChildren();
    const more = this.folded(groups.filter(([, , isFirst]) => !isFirst).length);
    this.plots = groups.map(([title, names, isFirst]) => {
      const figure = document.createElement("figure");
      figure.className = "curve";
      const caption = document.createElement("figcaption");
      caption.textContent = title;
      figure.append(caption);
      (isFirst ? this.place : more).append(figure);
      return new uPlot(this.options(names, figure), this.table(names), figure);
    });
  }

  // Where the curves of lesser interest go, open as the reader left it.
  folded(number) {
    const more = document.createElement("details");
    const summary = document.createElement("summary");
    const inside = document.createElement("div");
    summary.textContent = number === 1 ? "1 more curve" : `${number} more curves`;
    inside.className = "curves";
    more.className = "more-curves";
    more.append(summary, inside);
    more.open = this.isOpen;
    more.addEventListener("toggle", () => { this.isOpen = more.open; this.resize(); });
    this.more?.remove();
    if (number) this.place.after(more);
    this.more = more;
    return inside;
  }

  lines(names) {
    return this.series.flatMap((_, job) => names.map((name) => ({ job, name })));
  }

  options(names, figure) {
    const style = getComputedStyle(document.documentElement);
    const color = (index) => style.getPropertyValue(`--c${index % 6}`).trim();
    const axis = { stroke: ink(), grid: { stroke: style.getPropertyValue("--line").trim(), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    return {
      width: width(figure),
      height: 170,
      scales: { x: { time: false }, y: this.isLog ? { distr: 3 } : { range: around } },
      axes: [{ ...axis }, { ...axis, size: 56, values: (_, ticks) => ticks.map(short) }],
      cursor: { sync: { key: "step" }, drag: { x: true, y: false } },
      legend: { live: true },
      series: [
        { label: "step", value: (_, step) => step ?? "" },
        ...this.lines(names).map(({ job, name }, index) => ({
          label: this.urls.length > 1 ? `${this.names[job].slice(-6)} ${names.length > 1 ? worded(name) : ""}` : worded(name),
          stroke: color(index),
          width: 1.5,
          spanGaps: true,
          points: { show: false },
          value: (_, value) => (value === null || value === undefined ? "" : Number(value.toPrecision(5)).toString()),
        })),
      ],
    };
  }

  table(names) {
    const tables = this.lines(names).map(({ job, name }) => {
      const [steps, values] = this.series[job].get(name) || [[], []];
      return [steps, smoothed(values, this.smoothing).map((value) => (this.isLog && value <= 0 ? null : value))];
    });
    return tables.length ? uPlot.join(tables) : [[]];
  }

  resize() {
    for (const plot of this.plots) plot.setSize({ width: width(plot.root.parentElement), height: 170 });
  }
}

function worded(name) {
  return name.replaceAll("_", " ").replace("/", ": ");
}

function titled(name) {
  const words = worded(name);
  return words[0].toUpperCase() + words.slice(1);
}

// Of the values of a curve, with room for one that does not move.
function around(_, min, max) {
  const room = min === max ? Math.abs(min) / 10 || 0.1 : 0;
  return min === null ? [0, 1] : uPlot.rangeNum(min - room, max + room, 0.1, true);
}

// Of a tick of an axis, for which there is little room: 0.05, 1.2e-6.
function short(tick) {
  if (tick === null) return "";
  const size = Math.abs(tick);
  return size && (size < 1e-3 || size >= 1e5) ? Number(tick.toPrecision(3)).toExponential().replace("e+", "e") : Number(tick.toPrecision(4)).toString();
}

function ink() {
  return getComputedStyle(document.documentElement).getPropertyValue("--faint").trim();
}

function width(figure) {
  return Math.max(160, figure.clientWidth - 18);
}

function byMetric(points) {
  const found = new Map();
  for (const { step, metrics } of points) {
    for (const [name, value] of Object.entries(metrics)) {
      if (!found.has(name)) found.set(name, [[], []]);
      found.get(name)[0].push(step);
      found.get(name)[1].push(value);
    }
  }
  return found;
}

// Exponential, and without the pull of its first value: divided by the weights that there have been.
function smoothed(values, amount) {
  if (!amount) return values;
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = amount * sum + (1 - amount) * value;
    weight = amount * weight + (1 - amount);
    return sum / weight;
  });
}
