"use strict";
// Draws a report's charts from the data in the page. Text reaches the page as text alone (textContent), never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]; // Okabe and Ito: told apart by the colour-blind
const models = [...new Set(data.entries.map((entry) => entry.model))];
const tasks = [...new Set(data.entries.map((entry) => entry.name))];
const colour = (model) => COLOURS[models.indexOf(model) % COLOURS.length];
const percent = (value) => (value === null ? "–" : value.toFixed(1));
const tip = document.getElementById("tip");

// -- state, kept in the address ------------------------------------------------------------------

const state = { models: new Set(models), tasks: new Set(tasks), flags: new Set(["mlp", "linear"]) };

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, known] of [["models", models], ["tasks", tasks], ["flags", ["mlp", "linear", "depth"]]]) {
    if (given.has(key)) state[key] = new Set(given.getAll(key).filter((one) => known.includes(one)));
  }
}

function writeState() {
  const kept = new URLSearchParams();
  for (const key of ["models", "tasks", "flags"]) for (const one of state[key]) kept.append(key, one);
  history.replaceState(null, "", "#" + kept);
}

function toggle(key, name) {
  if (!state[key].delete(name)) state[key].add(name);
  writeState();
  draw();
}

// -- SVG -----------------------------------------------------------------------------------------

function node(name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function element(name, text = null, className = null) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const WIDTH = 360, HEIGHT = 200, LEFT = 34, RIGHT = 8, TOP = 8, BOTTOM = 26;

// A chart with axes, and functions from values to places; `tell(x)` is the text at a place.
function chart(label, xRange, yRange, xTicks, tell) {
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0, "aria-label": label });
  const x = (value) => LEFT + ((value - xRange[0]) / (xRange[1] - xRange[0] || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - yRange[0]) / (yRange[1] - yRange[0] || 1)) * (HEIGHT - TOP - BOTTOM);
  for (let tick = 0; tick <= 4; tick++) {
    const value = yRange[0] + (tick / 4) * (yRange[1] - yRange[0]);
    svg.append(node("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: LEFT - 4, y: y(value) + 3, "text-anchor": "end" }, value.toFixed(yRange[1] <= 1 ? 2 : yRange[1] < 10 ? 1 : 0)));
  }
  for (const [value, text] of xTicks) svg.append(node("text", { x: x(value), y: HEIGHT - 10, "text-anchor": "middle" }, text));
  const cursor = node("line", { class: "axis", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(cursor);

  const show = (value, left, top) => {
    cursor.setAttribute("x1", x(value)); cursor.setAttribute("x2", x(value)); cursor.setAttribute("visibility", "visible");
    tip.textContent = tell(value);
    tip.style.display = "block";
    tip.style.left = Math.max(4, Math.min(left + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(top + 14, innerHeight - tip.offsetHeight - 8)) + "px";
  };
  const hide = () => { cursor.setAttribute("visibility", "hidden"); tip.style.display = "none"; };
  const places = [...new Set(xTicks.all)].sort((a, b) => a - b);
  let at = 0;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const here = ((event.clientX - box.left) / box.width) * WIDTH;
    at = places.reduce((best, value, index) => (Math.abs(x(value) - here) < Math.abs(x(places[best]) - here) ? index : best), 0);
    show(places[at], event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.max(0, Math.min(places.length - 1, at + step));
    const box = svg.getBoundingClientRect();
    show(places[at], box.left + (x(places[at]) / WIDTH) * box.width, box.top + 20);
  });
  return { svg, x, y };
}

function ticks(values, isDepth) {
  const all = [...new Set(values)].sort((a, b) => a - b);
  const last = all[all.length - 1] || 1;
  const marks = isDepth ? [0, 0.25, 0.5, 0.75, 1] : all.filter((value) => value % Math.max(1, Math.ceil(last / 12)) === 0);
  const shown = marks.map((value) => [value, String(value)]);
  shown.all = all;
  return shown;
}

function path(points, attributes) {
  const text = points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return node("path", { d: text, fill: "none", "stroke-width": 1.8, ...attributes });
}

function card(title, under, svg) {
  const made = element("div", null, "card");
  made.append(element("h3", title));
  if (under) made.append(element("div", under, "soft"));
  made.append(svg);
  return made;
}

// -- charts --------------------------------------------------------------------------------------

const shown = () => data.entries.filter((entry) => state.models.has(entry.model) && state.tasks.has(entry.name));
const entryName = (entry) => [entry.model, entry.setting, entry.seeds > 1 ? `seed ${entry.seed}` : ""].filter(Boolean).join(" ");

function curveCard(task) {
  const entries = shown().filter((entry) => entry.name === task);
  const isDepth = state.flags.has("depth");
  const series = [];
  for (const entry of entries) {
    for (const probe of ["mlp", "linear"]) {
      if (!state.flags.has(probe) || !entry.probes[probe]) continue;
      const layers = entry.probes[probe].layers.filter((one) => one.value !== null);
      const last = Math.max(1, ...entry.probes[probe].layers.map((one) => one.layer));
      series.push({ entry, probe, points: layers.map((one) => ({ ...one, x: isDepth ? one.layer / last : one.layer })) });
    }
  }
  const values = series.flatMap((one) => one.points.flatMap((point) => [point.low ?? point.value, point.high ?? point.value]));
  for (const one of series) { const base = one.entry.baseline[one.probe]; if (base) values.push(base.value); }
  if (!values.length) return card(task, "nothing to show", node("svg", { viewBox: "0 0 360 20" }));
  const xs = series.flatMap((one) => one.points.map((point) => point.x));
  const yRange = [Math.floor(Math.min(...values) / 5) * 5, Math.ceil(Math.max(...values) / 5) * 5];
  const tell = (value) => [isDepth ? `depth ${value.toFixed(2)}` : `layer ${value}`, ...series.flatMap((one) => one.points
    .filter((point) => Math.abs(point.x - value) < 1e-9)
    .map((point) => `${entryName(one.entry)} ${one.probe}: ${percent(point.value)} [${percent(point.low)}, ${percent(point.high)}], n ${one.entry.n.test}`))].join("\n");
  const { svg, x, y } = chart(`${task}: scores over layers`, [Math.min(...xs), Math.max(...xs)], yRange, ticks(xs, isDepth), tell);
  for (const one of series) {
    const ink = colour(one.entry.model);
    const banded = one.points.filter((point) => point.low !== null);
    if (one.probe === "mlp" && banded.length > 1) {
      const edge = [...banded.map((p) => [x(p.x), y(p.high)]), ...banded.slice().reverse().map((p) => [x(p.x), y(p.low)])];
      svg.append(path(edge, { fill: ink, "fill-opacity": 0.12, stroke: "none" }));
    }
    svg.append(path(one.points.map((p) => [x(p.x), y(p.value)]), { stroke: ink, "stroke-dasharray": one.probe === "linear" ? "5 3" : "none" }));
    const base = one.entry.baseline[one.probe];
    if (base && base.value !== null) svg.append(path([[LEFT, y(base.value)], [WIDTH - RIGHT, y(base.value)]], { stroke: "var(--soft)", "stroke-dasharray": "1 3", "stroke-width": 1.2 }));
    for (const point of one.points) {
      const isChosen = point.layer === one.entry.probes[one.probe].chosen;
      svg.append(node("circle", { cx: x(point.x), cy: y(point.value), r: isChosen ? 4.5 : 2.2, stroke: ink, "stroke-width": 1.5, fill: point.layer === 0 || isChosen ? "var(--card)" : ink }));
    }
  }
  const first = entries[0];
  return card(task, `${first.metric}, n ${first.n.train}/${first.n.val}/${first.n.test}${first.stale ? ", stale" : ""}`, svg);
}

function heatMap(model) {
  const entries = shown().filter((entry) => entry.model === model && entry.probes.mlp && entry.probes.mlp.layers.length > 1);
  if (!entries.length) return null;
  const probe = state.flags.has("mlp") || !entries.every((entry) => entry.probes.linear) ? "mlp" : "linear";
  const table = element("table");
  const head = table.createTHead().insertRow();
  head.append(element("th", `${model}, ${probe}`));
  const most = Math.max(...entries.map((entry) => entry.probes[probe].layers.length));
  for (let layer = 0; layer < most; layer++) head.append(element("th", String(layer), "number"));
  const body = table.createTBody();
  for (const entry of entries) {
    const { layers, chosen } = entry.probes[probe];
    const values = layers.map((one) => one.value).filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const row = body.insertRow();
    row.append(element("th", [entry.name, entry.setting, entry.seeds > 1 ? `seed ${entry.seed}` : ""].filter(Boolean).join(" ")));
    for (const one of layers) {
      const box = element("td", percent(one.value), "number");
      const share = one.value === null || high === low ? 0 : (one.value - low) / (high - low);
      box.style.background = `rgb(0 114 178 / ${(0.55 * share).toFixed(2)})`;
      if (one.layer === chosen) box.style.boxShadow = "inset 0 0 0 2px var(--mark)";
      box.title = one.failed || `[${percent(one.low)}, ${percent(one.high)}]`;
      row.append(box);
    }
  }
  const made = element("div", null, "scroll card");
  made.style.marginBottom = "12px";
  made.append(table);
  return made;
}

function weightCard(entry) {
  const { start, end } = entry.weighted;
  const layers = end.map((_, index) => index + 1);
  const top = Math.max(...start, ...end) * 1.1;
  const tell = (layer) => `layer ${layer}\nstart ${start[layer - 1].toFixed(3)}\nend ${end[layer - 1].toFixed(3)}`;
  const { svg, x, y } = chart(`${entry.name}: layer weights`, [0.5, layers.length + 0.5], [0, top], ticks(layers, false), tell);
  const wide = (0.7 * (WIDTH - LEFT - RIGHT)) / layers.length;
  for (const layer of layers) svg.append(node("rect", { x: x(layer) - wide / 2, y: y(end[layer - 1]), width: wide, height: y(0) - y(end[layer - 1]), fill: colour(entry.model), "fill-opacity": 0.75 }));
  svg.append(path(layers.map((layer) => [x(layer), y(start[layer - 1])]), { stroke: "var(--ink)", "stroke-dasharray": "3 2", "stroke-width": 1.2 }));
  return card(`${entry.name}, ${entryName(entry)}`, `weighted sum ${percent(entry.weighted.value)}`, svg);
}

function chanceTable() {
  const table = document.getElementById("chance-table");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const text of ["Model", "Task", "Probe", "Chosen", "Best set", "Optimism", "Chance of being the best, over layers"]) head.append(element("th", text));
  const body = table.createTBody();
  for (const entry of shown()) for (const probe of ["mlp", "linear"]) {
    const found = entry.probes[probe];
    if (!found || !found.chances) continue;
    const row = body.insertRow();
    for (const text of [entryName(entry), entry.name, probe, found.chosen ?? "–", found.best_set, percent(found.optimism)]) row.append(element("td", String(text)));
    const layers = found.layers.length;
    const svg = node("svg", { viewBox: `0 0 ${layers * 14} 24`, role: "img", "aria-label": "chance of each layer" });
    svg.style.width = `${layers * 14}px`;
    found.layers.forEach((one, index) => {
      const chance = found.chances[one.layer] ?? 0;
      const bar = node("rect", { x: index * 14 + 1, y: 22 - 20 * chance, width: 12, height: 20 * chance + 1, fill: colour(entry.model) });
      bar.append(node("title", {}, `layer ${one.layer}: ${(100 * chance).toFixed(0)} %`));
      svg.append(bar);
    });
    row.insertCell().append(svg);
  }
}

function similarityCard(one) {
  const layers = one.measures.pwcca.map((point) => point.layer);
  const text = (name, layer) => { const found = (one.measures[name] || []).find((point) => point.layer === layer); return found && found.value !== null ? `${name.replace("_", " ")} ${found.value.toFixed(3)}` : null; };
  const tell = (layer) => [`layer ${layer}`, ...["pwcca", "held_out", "null", "within", "cka"].map((name) => text(name, layer)).filter(Boolean)].join("\n");
  const { svg, x, y } = chart(`${one.model} against ${one.input}`, [Math.min(...layers), Math.max(...layers)], [0, 1], ticks(layers, false), tell);
  for (const [name, dash] of [["pwcca", "none"], ["held_out", "5 3"], ["null", "1 3"]]) {
    const points = (one.measures[name] || []).filter((point) => point.value !== null);
    svg.append(path(points.map((point) => [x(point.layer), y(point.value)]), { stroke: colour(one.model), "stroke-dasharray": dash }));
  }
  return card(`${one.model} against ${one.input}`, `${one.n_frames} frames of ${one.n_tracks} tracks, ${one.datasets}`, svg);
}

// -- CSV, sorting, start -------------------------------------------------------------------------

function rowsFor(name) {
  if (name === "table") return [...document.querySelectorAll("#table1 tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
  if (name === "weights") return [["model", "task", "seed", "layer", "start", "end"], ...shown().filter((entry) => entry.weighted && entry.weighted.end).flatMap((entry) => entry.weighted.end.map((end, i) => [entryName(entry), entry.name, entry.seed, i + 1, entry.weighted.start[i], end]))];
  if (name === "similarity") return [["model", "input", "measure", "layer", "value"], ...data.similarity.flatMap((one) => Object.entries(one.measures).flatMap(([measure, points]) => points.map((point) => [one.model, one.input, measure, point.layer, point.value])))];
  const all = shown().flatMap((entry) => Object.entries(entry.probes).flatMap(([probe, found]) => found.layers.map((one) => ({ entry, probe, found, one }))));
  if (name === "chances") return [["model", "task", "seed", "probe", "layer", "chance"], ...all.filter((a) => a.found.chances).map((a) => [entryName(a.entry), a.entry.name, a.entry.seed, a.probe, a.one.layer, a.found.chances[a.one.layer] ?? ""])];
  return [["model", "task", "metric", "seed", "probe", "layer", "test", "low", "high", "val", "n_test"], ...all.map((a) => [entryName(a.entry), a.entry.name, a.entry.metric, a.entry.seed, a.probe, a.one.layer, a.one.value, a.one.low, a.one.high, a.one.val, a.entry.n.test])];
}

function download(name) {
  const quote = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const text = rowsFor(name).map((row) => row.map(quote).join(",")).join("\n") + "\n";
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `mirprobe_${name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function sortBy(index, button) {
  const body = document.querySelector("#table1 tbody");
  const isDown = button.dataset.order !== "down";
  const key = (row) => { const text = row.cells[index].textContent; const number = parseFloat(text); return Number.isNaN(number) ? text : number; };
  const sorted = [...body.rows].sort((a, b) => { const [p, q] = [key(a), key(b)]; return (typeof p === typeof q ? (p < q ? -1 : p > q ? 1 : 0) : typeof p === "number" ? -1 : 1) * (isDown ? -1 : 1); });
  button.dataset.order = isDown ? "down" : "up";
  body.replaceChildren(...sorted);
}

function draw() {
  document.querySelectorAll("[data-filter]").forEach((bar) => {
    const key = bar.dataset.filter;
    bar.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", state[key].has(button.dataset.name)));
  });
  document.querySelectorAll("[data-flag]").forEach((button) => button.setAttribute("aria-pressed", state.flags.has(button.dataset.flag)));
  document.getElementById("curve-grid").replaceChildren(...tasks.filter((task) => state.tasks.has(task)).map(curveCard));
  document.getElementById("heat-maps").replaceChildren(...models.map(heatMap).filter(Boolean));
  document.getElementById("weight-grid").replaceChildren(...shown().filter((entry) => entry.weighted && entry.weighted.end).map(weightCard));
  chanceTable();
  const similar = document.getElementById("similarity-grid");
  if (similar) similar.replaceChildren(...data.similarity.filter((one) => state.models.has(one.model)).map(similarityCard));
}

readState();
for (const [key, names] of [["models", models], ["tasks", tasks]]) {
  const bar = document.querySelector(`[data-filter=${key}]`);
  for (const name of names) {
    const button = element("button", name);
    button.type = "button";
    button.dataset.name = name;
    if (key === "models") { const dot = element("span", "", "swatch"); dot.style.background = colour(name); button.prepend(dot); }
    button.addEventListener("click", () => toggle(key, name));
    bar.append(button);
  }
}
document.querySelectorAll("[data-flag]").forEach((button) => button.addEventListener("click", () => toggle("flags", button.dataset.flag)));
document.querySelectorAll("[data-csv]").forEach((button) => button.addEventListener("click", () => download(button.dataset.csv)));
document.querySelectorAll("#table1 th button").forEach((button, index) => button.addEventListener("click", () => sortBy(index, button)));
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});
document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the state
  document.querySelector(link.getAttribute("href")).scrollIntoView({ behavior: "smooth" });
}));
addEventListener("hashchange", () => { readState(); draw(); });
draw();
