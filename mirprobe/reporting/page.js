"use strict";
// Charts of the numbers in the page. Every text is set as text: names come from users' tables.
const numbers = JSON.parse(document.getElementById("numbers").textContent);
const curves = numbers.curves;
const unique = (values) => [...new Set(values)];
const models = unique(curves.map((one) => one.model));
const tasks = unique(curves.map((one) => one.task));
const seeds = unique(curves.map((one) => String(one.seed)));
const choices = {
  probe: unique(curves.flatMap((one) => Object.keys(one.layers).map((key) => key.split(" ")[0]))),
  split: ["test", "val"],
  seed: seeds.length > 1 ? [...seeds, "all"] : seeds,
  x: ["layer", "relative depth"],
  bands: ["shown", "hidden"],
};
const tip = document.getElementById("tip");

// ---- elements and numbers ----------------------------------------------------------------------

function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Per cent with one digit, as the tables print it: of two equally near the even one, as in Python.
function percent(value) {
  if (value === null) return "failed";
  const points = 100 * value;
  const isTie = Math.abs(points % 1) === 0.25;
  return (isTie ? points - 0.05 * Math.sign(points) : points).toFixed(1);
}

function scoreText(heads, place) {
  if (heads.value[place] === null) return `failed: ${heads.why[place]}`;
  const score = percent(heads.value[place]);
  if (heads.low[place] === null) return `${score}, no interval: ${heads.why[place]}`;
  return `${score} [${percent(heads.low[place])}, ${percent(heads.high[place])}]`;
}

// ---- state, which is the address's hash --------------------------------------------------------

const lists = { models, tasks };
const defaults = { theme: "", sort: "" };
for (const [name, values] of Object.entries(choices)) defaults[name] = values[0];

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = { ...defaults, ...lists };
  for (const [name, all] of Object.entries(lists)) {
    const wanted = given.getAll(name);
    if (given.has(name)) state[name] = all.filter((one) => wanted.includes(one));
  }
  for (const name of Object.keys(defaults)) if (given.has(name)) state[name] = given.get(name);

  // An old or mistyped address must still show something.
  for (const [name, values] of Object.entries(choices)) {
    if (!values.includes(state[name])) state[name] = values[0];
  }
  return state;
}

let state = readState();

function change(name, value) {
  state[name] = value;
  const kept = new URLSearchParams();
  for (const key of Object.keys(defaults)) {
    if (state[key] !== defaults[key]) kept.set(key, state[key]);
  }
  for (const [key, all] of Object.entries(lists)) {
    const isAll = state[key].length === all.length;
    const names = state[key].length ? state[key] : [""];
    if (!isAll) names.forEach((one) => kept.append(key, one));
  }
  history.replaceState(null, "", `#${kept}`);
  show();
}

const isShown = (kind, name) => state[kind].includes(name);

function toggle(kind, name, all) {
  change(kind, all.filter((one) => isShown(kind, one) !== (one === name)));
}

// ---- files -------------------------------------------------------------------------------------

function saveCsv(name, lines) {
  const quote = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = lines.map((line) => line.map(quote).join(",")).join("\n") + "\n";
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: address, download: `${name.replace(/[^\w.-]+/g, "_")}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function csvButton(name, lines) {
  const button = make("button", { type: "button", "aria-label": `CSV of ${name}` }, "CSV");
  button.addEventListener("click", () => saveCsv(name, lines()));
  return button;
}

function curveLines(shown) {
  const head = ["model", "task", "metric", "seed", "probe", "split", "layer", "value", "ci_low"];
  const lines = [[...head, "ci_high", "n", "problem"]];
  for (const one of shown) {
    const heads = headsOf(one);
    const n = state.split === "test" ? one.n_test : one.n_val;
    heads.value.forEach((value, layer) => {
      const place = [one.model, one.task, one.metric, one.seed, state.probe, state.split, layer];
      lines.push([...place, value, heads.low[layer], heads.high[layer], n, heads.why[layer]]);
    });
  }
  return lines;
}

// ---- frames of charts --------------------------------------------------------------------------

const WIDTH = 320, HEIGHT = 200, LEFT = 34, RIGHT = 10, TOP = 8, FOOT = 34;

// Three to eight round numbers, and the digits that they need after the point.
function ticksBetween(low, high) {
  const most = (high - low) / 3 || 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const step = [5, 2, 1].map((one) => one * power).find((one) => one <= most * (1 + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9; k++) ticks.push(k * step);
  return [ticks, step >= 1 ? 0 : Math.ceil(-Math.log10(step))];
}

// Axes with `high` > `low` in the unit of the chart; gives the drawing and both scales.
function axes(low, high, xMax, xLabel, label) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  const x = (value) => LEFT + (value / (xMax || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - FOOT);
  const [ticks, digits] = ticksBetween(low, high);
  for (const tick of ticks) {
    const line = { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) };
    const text = { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" };
    svg.append(draw("line", line), draw("text", text, tick.toFixed(digits)));
  }
  const [xTicks, xDigits] = ticksBetween(0, xMax);
  for (const tick of xTicks.filter((one) => xMax <= 1 || Number.isInteger(one))) {
    const text = { x: x(tick), y: HEIGHT - FOOT + 16, "text-anchor": "middle" };
    svg.append(draw("text", text, tick.toFixed(xMax > 1 ? 0 : xDigits)));
  }
  const name = { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" };
  svg.append(draw("text", name, xLabel));
  return { svg, x, y };
}

function figure(title, small, svg, csv) {
  const caption = make("figcaption", {}, make("span", {}, title, make("small", {}, small)));
  if (csv) caption.append(csv);
  return make("figure", {}, caption, svg);
}

function pathOf(points) {
  let path = "", isDown = false;
  for (const [x, y] of points) {
    if (y === null) isDown = false;
    else {
      path += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      isDown = true;
    }
  }
  return path;
}

// Pointer and arrow keys choose a layer; `describe(layer)` says what is there.
function readable(chart, nLayers, places, describe) {
  const { svg, x } = chart;
  const ends = { y1: TOP, y2: HEIGHT - FOOT };
  const cursor = draw("line", { class: "cursor", ...ends, visibility: "hidden" });
  svg.append(cursor);
  svg.setAttribute("tabindex", "0");
  let layer = 0;
  const point = () => {
    const at = x(places(layer));
    fill(cursor, { x1: at, x2: at, visibility: "visible" }, []);
    const box = svg.getBoundingClientRect();
    tip.textContent = describe(layer);
    tip.hidden = false;
    const left = box.left + (at / WIDTH) * box.width + 12;
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - size.width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(box.top + 8, innerHeight - size.height - 8))}px`;
  };
  const leave = () => {
    cursor.setAttribute("visibility", "hidden");
    tip.hidden = true;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const layers = [...Array(nLayers).keys()];
    layer = layers.reduce((best, one) =>
      Math.abs(x(places(one)) - at) < Math.abs(x(places(best)) - at) ? one : best);
    point();
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("focus", point);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -nLayers, End: nLayers };
    if (event.key === "Escape") leave();
    if (!(event.key in steps)) return;
    event.preventDefault();
    layer = Math.max(0, Math.min(nLayers - 1, layer + steps[event.key]));
    point();
  });
}

// ---- layer curves ------------------------------------------------------------------------------

const headsOf = (one) => one.layers[`${state.probe} ${state.split}`];
const colourOf = (model) => `var(--c${models.indexOf(model) % 6})`;

function shownCurves() {
  return curves.filter((one) => isShown("models", one.model) && isShown("tasks", one.task) &&
    (state.seed === "all" || String(one.seed) === state.seed) && headsOf(one));
}

function curveChart(task, shown) {
  const isRelative = state.x === "relative depth";
  const depth = Math.max(...shown.map((one) => headsOf(one).value.length - 1));
  const place = (one, layer) => isRelative ? layer / (headsOf(one).value.length - 1 || 1) : layer;
  const levels = [];
  for (const one of shown) {
    const heads = headsOf(one);
    levels.push(...heads.value, ...(state.bands === "shown" ? [...heads.low, ...heads.high] : []));
    if (one.weighted[state.split] && state.probe === "mlp") {
      levels.push(one.weighted[state.split].value[0]);
    }
    if (state.split === "test" && one.baseline[state.probe]) {
      levels.push(one.baseline[state.probe].value[0]);
    }
  }
  const points = levels.filter((one) => one !== null).map((one) => 100 * one);
  const low = points.length ? Math.min(...points) : 0;
  const high = points.length ? Math.max(...points) : 100;
  const margin = 0.06 * (high - low) || 1;
  const label = `${task}: ${state.probe} scores on ${state.split}`;
  const chart = axes(low - 2 * margin, high + margin, isRelative ? 1 : depth, state.x, label);

  shown.forEach((one, number) => drawCurve(chart, one, number, (layer) => place(one, layer)));
  readable(chart, depth + 1, (layer) => isRelative ? layer / (depth || 1) : layer, (layer) => {
    const n = state.split === "test" ? shown[0].n_test : shown[0].n_val;
    const lines = [isRelative ? `depth ${(layer / (depth || 1)).toFixed(2)}, n = ${n}`
      : `layer ${layer}, n = ${n}`];
    for (const one of shown) {
      const heads = headsOf(one);
      const last = heads.value.length - 1;
      const at = isRelative ? Math.round((layer / (depth || 1)) * last) : layer;
      const seed = state.seed === "all" ? `, seed ${one.seed}` : "";
      const where = isRelative ? ` (${at})` : "";
      if (at <= last) lines.push(`${one.model}${seed}${where}: ${scoreText(heads, at)}`);
    }
    return lines.join("\n");
  });

  const first = shown[0];
  const counts = `${first.metric}, n ${first.n}${shown.some((one) => !one.is_current)
    ? ", stale" : ""}`;
  return figure(task, counts, chart.svg, csvButton(task, () => curveLines(shown)));
}

function drawCurve({ svg, x, y }, one, number, place) {
  const heads = headsOf(one);
  const colour = colourOf(one.model);
  const at = (values) => values.map((value, layer) =>
    [x(place(layer)), value === null ? null : y(100 * value)]);

  // Stretches with an interval at every layer, each a band of its own.
  if (state.bands === "shown") {
    let stretch = [];
    const close = () => {
      if (stretch.length > 1) {
        const low = stretch.map((layer) => [x(place(layer)), y(100 * heads.low[layer])]);
        const high = stretch.map((layer) => [x(place(layer)), y(100 * heads.high[layer])]);
        const outline = `${pathOf([...high, ...low.reverse()])}Z`;
        svg.append(draw("path", { d: outline, fill: colour, "fill-opacity": 0.16 }));
      }
      if (stretch.length === 1) {
        const [layer] = stretch;
        const ends = { y1: y(100 * heads.low[layer]), y2: y(100 * heads.high[layer]) };
        const middle = { x1: x(place(layer)), x2: x(place(layer)) };
        svg.append(draw("line", { ...ends, ...middle, stroke: colour, "stroke-width": 2 }));
      }
      stretch = [];
    };
    heads.low.forEach((low, layer) => low === null ? close() : stretch.push(layer));
    close();
  }

  const across = (value, dashes) => svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT,
    y1: y(100 * value), y2: y(100 * value), stroke: colour, "stroke-dasharray": dashes }));
  const weighted = state.probe === "mlp" ? one.weighted[state.split] : undefined;
  if (weighted && weighted.value[0] !== null) across(weighted.value[0], "7 4");
  const baseline = state.split === "test" ? one.baseline[state.probe] : undefined;
  if (baseline && baseline.value[0] !== null) {
    const level = y(100 * baseline.value[0]);
    svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: level, y2: level,
      stroke: "var(--dim)", "stroke-width": 1.5, "stroke-dasharray": "1.5 3" }));
  }

  const line = { d: pathOf(at(heads.value)), fill: "none", stroke: colour, "stroke-width": 2 };
  svg.append(draw("path", line));
  const chosen = one.chosen[state.probe];
  at(heads.value).forEach(([left, top], layer) => {
    if (top === null) return;
    const isChosen = layer === chosen;
    svg.append(draw("circle", { cx: left, cy: top, r: isChosen ? 4.5 : 2.2,
      fill: isChosen ? colour : "var(--back)", stroke: colour, "data-value": heads.value[layer] }));
  });

  const foot = HEIGHT - FOOT - 2 - 4 * (number % 4);
  for (const layer of one.best_set[state.probe] || []) {
    const ends = { x1: x(place(layer)) - 4, x2: x(place(layer)) + 4, y1: foot, y2: foot };
    svg.append(draw("line", { ...ends, stroke: colour, "stroke-width": 3 }));
  }
}

function showCurves() {
  const shown = shownCurves();
  const charts = tasks.map((task) => [task, shown.filter((one) => one.task === task)])
    .filter(([, ofTask]) => ofTask.length).map(([task, ofTask]) => curveChart(task, ofTask));
  const nothing = make("p", {}, "Nothing is chosen: tick a model and a task.");
  document.getElementById("curve-charts").replaceChildren(...(charts.length ? charts : [nothing]));

  const names = unique(shown.map((one) => one.model)).map((model) => {
    const line = make("span");
    line.style.background = colourOf(model);
    return make("li", {}, line, model);
  });
  document.getElementById("legend").replaceChildren(...names);
}

// ---- heat maps ---------------------------------------------------------------------------------

function showMaps() {
  const shown = shownCurves();
  const maps = [];
  for (const model of unique(shown.map((one) => one.model))) {
    const ofModel = shown.filter((one) => one.model === model);
    const depth = Math.max(...ofModel.map((one) => headsOf(one).value.length));
    const head = make("tr", {}, make("td"), ...[...Array(depth).keys()].map((layer) =>
      make("th", { scope: "col" }, String(layer))));
    const body = make("tbody", {}, ...ofModel.map((one) => mapRow(one, depth)));
    const table = make("table", { class: "map" }, make("thead", {}, head), body);
    const name = `${model}: ${state.probe}, ${state.split}`;
    const label = `Heat map ${name}`;
    const box = { class: "scroll", tabindex: "0", role: "region", "aria-label": label };
    const title = make("h3", {}, `${name} `, csvButton(name, () => curveLines(ofModel)));
    maps.push(title, make("div", box, table));
  }
  document.getElementById("map-charts").replaceChildren(...maps);
}

function mapRow(one, depth) {
  const heads = headsOf(one);
  const found = heads.value.filter((value) => value !== null);
  const low = Math.min(...found), high = Math.max(...found);
  const seed = state.seed === "all" && seeds.length > 1 ? `, seed ${one.seed}` : "";
  const row = make("tr", {}, make("th", { scope: "row" }, one.task + seed));
  for (let layer = 0; layer < depth; layer++) {
    const value = layer < heads.value.length ? heads.value[layer] : undefined;
    if (value === undefined) {
      row.append(make("td"));
      continue;
    }
    const cell = make("td", { "data-value": value, title: `layer ${layer}: ` +
      scoreText(heads, layer) }, value === null ? "✕" : percent(value));
    if (value !== null) {
      const share = high > low ? (value - low) / (high - low) : 0;
      const shade = Math.round(45 * share);
      cell.style.backgroundColor = `color-mix(in srgb, var(--shade) ${shade}%, var(--back))`;
      if (value === high) cell.classList.add("best");
    }
    if ((one.best_set[state.probe] || []).includes(layer)) cell.classList.add("among");
    if (one.chosen[state.probe] === layer) cell.classList.add("chosen");
    row.append(cell);
  }
  return row;
}

// ---- learned weights and similarity ------------------------------------------------------------

function showWeights() {
  const place = document.getElementById("weight-charts");
  if (!place) return;
  // The weights of a task's metrics are the same: one chart for them.
  const seen = new Set();
  const charts = [];
  for (const one of curves) {
    const isWanted = isShown("models", one.model) && isShown("tasks", one.task) &&
      (state.seed === "all" || String(one.seed) === state.seed);
    const key = JSON.stringify([one.model, one.seed, one.start, one.end]);
    if (!isWanted || !one.end || seen.has(key)) continue;
    seen.add(key);
    charts.push(weightChart(one));
  }
  place.replaceChildren(...charts);
}

function weightChart(one) {
  const depth = one.end.length;
  const high = 1.1 * Math.max(...one.end, ...one.start);
  const title = `${one.task}: ${one.model}`;
  const chart = axes(0, high, depth + 1, "layer", `Learned weights, ${title}`);
  const { svg, x, y } = chart;
  const width = 0.7 * (x(1) - x(0));
  one.end.forEach((weight, place) => {
    const box = { x: x(place + 1) - width / 2, width, y: y(weight), height: y(0) - y(weight) };
    svg.append(draw("rect", { ...box, fill: colourOf(one.model) }));
  });
  const start = one.start.map((weight, place) => [x(place + 1), y(weight)]);
  svg.append(draw("path", { d: pathOf(start), fill: "none", stroke: "var(--fore)" }));
  readable(chart, depth, (place) => place + 1, (place) => `layer ${place + 1}\n` +
    `start ${one.start[place].toFixed(3)}, end ${one.end[place].toFixed(3)}`);
  const csv = csvButton(`weights ${title}`, () => [["layer", "start", "end"],
    ...one.end.map((weight, place) => [place + 1, one.start[place], weight])]);
  return figure(title, seeds.length > 1 ? `seed ${one.seed}` : "softmax weight", svg, csv);
}

function showSimilarity() {
  const place = document.getElementById("similarity-charts");
  if (!place) return;
  const found = new Map();
  for (const row of numbers.similarity) {
    const key = JSON.stringify([row.model, row.datasets, row.input, row.made_of]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  const charts = [];
  for (const rows of found.values()) charts.push(similarityChart(rows));
  place.replaceChildren(...charts);
}

function similarityChart(rows) {
  const first = rows[0];
  const depth = Math.max(...rows.map((row) => row.layer));
  const title = `${first.model} and ${first.input}`;
  const chart = axes(0, 1.02, depth, "layer", `Similarity of ${title}`);
  const { svg, x, y } = chart;
  const styles = { pwcca: [`var(--c0)`, "none"], held_out: [`var(--c0)`, "6 4"],
    null: ["var(--dim)", "none"] };
  const series = {};
  for (const [measure, [colour, dashes]] of Object.entries(styles)) {
    series[measure] = Array(depth + 1).fill(null);
    for (const row of rows.filter((one) => one.measure === measure)) {
      series[measure][row.layer] = row.value;
    }
    const points = series[measure].map((value, layer) =>
      [x(layer), value === null ? null : y(value)]);
    svg.append(draw("path", { d: pathOf(points), fill: "none", stroke: colour,
      "stroke-width": 2, "stroke-dasharray": dashes }));
  }
  const text = (value) => value === null ? "-" : value.toFixed(3);
  readable(chart, depth + 1, (layer) => layer, (layer) => `layer ${layer}\n` +
    `PWCCA ${text(series.pwcca[layer])}, held out ${text(series.held_out[layer])}, ` +
    `unrelated ${text(series.null[layer])}\n${first.n_tracks} tracks, ${first.n_frames} frames`);
  const csv = csvButton(`similarity ${title}`, () => [["layer", "measure", "value"],
    ...rows.map((row) => [row.layer, row.measure, row.value])]);
  return figure(title, `${first.datasets}, ${first.n_tracks} tracks`, svg, csv);
}

// ---- tables ------------------------------------------------------------------------------------

// The first number of a text sorts it; texts without one come last, in either direction.
function compareTexts(one, other, isNumber, isDown) {
  if (!isNumber) return one.localeCompare(other, "en") * (isDown ? -1 : 1);
  const [first, second] = [one, other].map((text) => {
    const match = text.match(/[+-]?\d+(\.\d+)?/);
    return match ? Number(match[0]) : null;
  });
  if (first === null || second === null) return (first === null) - (second === null);
  return (first - second) * (isDown ? -1 : 1);
}

function sortTable(table, column, isDown) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  if (!heads[column]) return;
  const isNumber = heads[column].classList.contains("number");
  const rows = [...body.rows].sort((one, other) => compareTexts(
    one.cells[column].textContent, other.cells[column].textContent, isNumber, isDown));
  body.append(...rows);
  heads.forEach((head, place) => place === column
    ? head.setAttribute("aria-sort", isDown ? "descending" : "ascending")
    : head.removeAttribute("aria-sort"));
}

function prepareTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) =>
      head.querySelector("button").addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const isDown = before ? before === "ascending" : isNumber;
        change("sort", `${table.dataset.name}.${column}.${isDown ? "down" : "up"}`);
      }));
  }
  for (const button of document.querySelectorAll("button.csv")) {
    const name = button.dataset.table;
    const table = document.querySelector(`table[data-name="${name}"]`);
    const lines = () => [...table.rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent.trim()));
    button.addEventListener("click", () => saveCsv(name, lines()));
  }
}

// ---- controls ----------------------------------------------------------------------------------

function prepareControls() {
  for (const [kind, all] of [["models", models], ["tasks", tasks]]) {
    const place = document.getElementById(`choice-${kind}`);
    for (const name of all) {
      const box = make("input", { type: "checkbox", value: name });
      box.addEventListener("change", () => toggle(kind, name, all));
      place.append(make("label", {}, box, name));
    }
    for (const [text, wanted] of [["all", all], ["none", []]]) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => change(kind, wanted));
      if (all.length > 2) place.append(button);
    }
  }
  for (const [name, values] of Object.entries(choices)) {
    const select = document.querySelector(`select[name="${name}"]`);
    select.append(...values.map((value) => make("option", { value }, value)));
    select.addEventListener("change", () => change(name, select.value));
  }
  document.getElementById("curves-csv").addEventListener("click", () =>
    saveCsv("layers", curveLines(shownCurves())));
  document.getElementById("theme").addEventListener("click", () => {
    change("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  });

  // The hash holds the state: a link to a section scrolls there and leaves it alone.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.getElementById(link.getAttribute("href").slice(1));
      target.scrollIntoView();
      target.setAttribute("tabindex", "-1");
      target.focus({ preventScroll: true });
    });
  }
  addEventListener("hashchange", () => {
    state = readState();
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
}

function showTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const known = ["dark", "light"].includes(state.theme);
  document.documentElement.dataset.theme = known ? state.theme : isDark ? "dark" : "light";
}

function show() {
  showTheme();
  for (const kind of ["models", "tasks"]) {
    for (const box of document.querySelectorAll(`#choice-${kind} input`)) {
      box.checked = isShown(kind, box.value);
    }
  }
  for (const name of Object.keys(choices)) {
    document.querySelector(`select[name="${name}"]`).value = state[name];
  }
  const [, table, column, way] = state.sort.match(/^(\w+)\.(\d+)\.(up|down)$/) || [];
  const sorted = table && document.querySelector(`table[data-name="${table}"]`);
  if (sorted) sortTable(sorted, Number(column), way === "down");
  showCurves();
  showMaps();
  showWeights();
}

prepareControls();
prepareTables();
show();
showSimilarity();
