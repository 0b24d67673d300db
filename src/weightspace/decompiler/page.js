// The page of a decompilation: a line of the program is chosen, an input typed, and all pictures follow.
// What stands here comes from a file somebody has given: texts become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const t = readTransformer(data.transformer);
const lines = new Map(data.lines.map((line) => [line.name, line]));
const byId = (name) => document.getElementById(name);
const state = { pinned: null, shown: null, input: data.example };
const owner = new Array(t.width).fill(null);
for (const line of data.lines) for (const direction of line.directions) owner[direction] = line;

// -- words -------------------------------------------------------------------------------------------------------------

function spans(numbers) {
  const texts = runsOf(numbers).map(([a, b]) => (a === b ? `${a}` : `${a}\u2013${b}`));
  return texts.length > 8 ? `${texts.slice(0, 8).join(", ")} and more` : texts.join(", ");
}

function directionName(direction) {
  const name = data.directions[direction];
  return name ? `direction ${direction} (${name})` : `direction ${direction}`;
}

// All that a line has, in one sentence.
function placesOf(line) {
  const parts = [];
  if (line.directions.length) parts.push(`directions ${spans(line.directions)}`);
  for (const [layer, head] of line.heads) parts.push(`layer ${layer} head ${head}`);
  for (const [layer, units] of line.units) parts.push(`layer ${layer} units ${spans(units)}`);
  return parts.length ? parts.join("; ") : "nothing of its own";
}

// -- what a line has of a matrix ---------------------------------------------------------------------------------------

function headRows(layer) {
  return (line) => line.heads.filter(([own]) => own === layer)
    .flatMap(([, head]) => Array.from({ length: t.key }, (_, k) => head * t.key + k));
}

function unitRows(layer) {
  return (line) => line.units.filter(([own]) => own === layer).flatMap(([, units]) => units);
}

function ownersOfRow(layer, kind, row) {
  const rows = kind === "head" ? headRows(layer) : unitRows(layer);
  return data.lines.filter((line) => rows(line).includes(row));
}

// The matrices of the transformer in the order in which it uses them. Each is drawn with a direction to the column:
// those that read the stream are turned for it.
function matrices() {
  const embedding = (title, name, row) => ({
    title, group: "embeddings", name, turned: false, note: `${t.arrays[name].rows} rows`, row, rowsOf: () => [], cuts: [],
  });
  const found = [
    embedding("tokens", "token_embed/embeddings", (r) => `token ${t.rows[r]}`),
    embedding("positions", "pos_embed/embeddings", (r) => (r ? `place ${r - 1}` : "the place of BOS")),
  ];
  for (let layer = 0; layer < t.layers; layer++) {
    const cuts = Array.from({ length: t.heads - 1 }, (_, i) => (i + 1) * t.key);
    const count = t.heads === 1 ? "1 head" : `${t.heads} heads, one above the other,`;
    for (const [title, part, turned] of [["W_Q", "query", 1], ["W_K", "key", 1], ["W_V", "value", 1], ["W_O", "linear", 0]]) {
      found.push({
        title, group: `layer ${layer}, attention`, name: `transformer/layer_${layer}/attn/${part}/w`, turned, cuts,
        note: `${count} of ${t.key} columns`, rowsOf: headRows(layer), kind: "head", layer,
        row: (r) => `head ${Math.floor(r / t.key)} column ${r % t.key}`,
      });
    }
    for (const [title, part, turned] of [["W_in", "linear_1", 1], ["W_out", "linear_2", 0]]) {
      found.push({
        title, group: `layer ${layer}, MLP`, name: `transformer/layer_${layer}/mlp/${part}/w`, turned, cuts: [],
        note: `${turned ? t.arrays[`transformer/layer_${layer}/mlp/${part}/w`].columns : t.arrays[`transformer/layer_${layer}/mlp/${part}/w`].rows} units`,
        rowsOf: unitRows(layer), kind: "unit", layer, row: (r) => `unit ${r}`,
      });
    }
  }
  return found;
}

function gridOf(matrix) {
  const { rows, columns, values } = t.arrays[matrix.name];
  const at = matrix.turned ? (r, c) => values[c * columns + r] : (r, c) => values[r * columns + c];
  return {
    rows: matrix.turned ? columns : rows,
    columns: t.width,
    at,
    cuts: matrix.cuts,
    label: `${matrix.title} of ${matrix.group}: ${matrix.note} by ${t.width} directions. Arrow keys go from number to number.`,
    describe: (r, c) => `${matrix.title}, ${matrix.group}, ${matrix.row(r)}, ${directionName(c)}: ${shortNumber(at(r, c))}`,
    rowsOf: matrix.rowsOf,
    columnsOf: (line) => line.directions,
    owners: (r, c) => [...(matrix.kind ? ownersOfRow(matrix.layer, matrix.kind, r) : []), owner[c]],
  };
}

// Whose each direction is, as one row in the colours of the lines.
function ruler() {
  const tints = new Map(data.lines.map((line) => {
    const swatch = document.querySelector(`button[data-line="${CSS.escape(line.name)}"] .swatch`);
    return [line, swatch ? getComputedStyle(swatch).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number) : [128, 128, 128]];
  }));
  return {
    rows: 1, columns: t.width, high: 16, at: (r, c) => (owner[c] ? 1 : 0), tint: (r, c) => tints.get(owner[c]),
    label: `Whose each of the ${t.width} directions is. Arrow keys go from one to the next.`,
    describe: (r, c) => `${directionName(c)}${owner[c] ? `, of ${owner[c].name}` : ""}`,
    columnsOf: (line) => line.directions,
    owners: (r, c) => [owner[c]],
  };
}

// -- choosing a line ---------------------------------------------------------------------------------------------------

function show(name) {
  const line = lines.get(name) ?? null;
  state.shown = line;
  for (const marked of document.querySelectorAll("[data-line]")) {
    marked.classList.toggle("lit", marked.dataset.line === name);
  }
  byId("where-text").textContent = line ? `${line.name}: ${placesOf(line)}` : "No line is chosen: point at one, or tap it.";
  lightGrids(line);
}

function pin(name) {
  state.pinned = name !== null && lines.has(name) ? name : null;
  for (const button of document.querySelectorAll("button[data-line]")) {
    button.setAttribute("aria-pressed", String(button.dataset.line === state.pinned));
  }
  byId("clear").disabled = state.pinned === null;
  show(state.pinned);
  keepAddress();
}

const hooks = {
  point(spec, at) {
    byId("cell").textContent = at ? spec.describe(...at) : "Point at a picture to read its numbers.";
    const near = new Set(at ? spec.owners(...at).filter(Boolean).map((line) => line.name) : []);
    for (const button of document.querySelectorAll("button[data-line]")) button.classList.toggle("near", near.has(button.dataset.line));
  },
  choose(spec, at) {
    const line = spec.owners(...at).find(Boolean);
    byId("cell").textContent = spec.describe(...at);
    if (line) pin(line.name);
  },
};

function listen() {
  const buttons = [...document.querySelectorAll("button[data-line]")];
  for (const button of buttons) {
    button.addEventListener("click", () => pin(state.pinned === button.dataset.line ? null : button.dataset.line));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      buttons[(buttons.indexOf(button) + step + buttons.length) % buttons.length].focus();
    });
  }
  // One listener for all that names a line, those of tables that are made later included
  const over = (event) => event.target.closest?.("[data-line]")?.dataset.line;
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return; // a tap chooses; it does not hover
    show(over(event) ?? state.pinned);
  });
  document.addEventListener("focusin", (event) => show(over(event) ?? state.pinned));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") pin(null); });
  byId("clear").addEventListener("click", () => pin(null));
  for (const [name, step] of [["previous", -1], ["next", 1]]) {
    byId(name).addEventListener("click", () => {
      const names = buttons.map((button) => button.dataset.line);
      const place = names.indexOf(state.pinned);
      pin(names[place < 0 ? (step > 0 ? 0 : names.length - 1) : (place + step + names.length) % names.length]);
    });
  }
}

// -- the address -------------------------------------------------------------------------------------------------------

function keepAddress() {
  const kept = new URLSearchParams();
  if (state.pinned !== null) kept.set("line", state.pinned);
  if (state.input !== data.example) kept.set("input", state.input);
  history.replaceState(null, "", `#${kept}`);
}

function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  state.input = (kept.get("input") ?? data.example).slice(0, 2000);
  state.pinned = lines.has(kept.get("line")) ? kept.get("line") : null;
  byId("input").value = state.input;
}

// -- an input ----------------------------------------------------------------------------------------------------------

function compute() {
  const parsed = parseInput(t, state.input);
  byId("problem").textContent = parsed.error ?? "";
  byId("input").setAttribute("aria-invalid", String(Boolean(parsed.error)));
  if (parsed.error) return; // what was right last stays
  const result = run(t, parsed.rows);
  const names = ["BOS", ...parsed.tokens.map((token) => token.shown)];
  showValues(result, names);
  showStream(result, names);
  showPatterns(result, names);
  show(state.shown?.name ?? state.pinned);
}

// Which half-layer is the first after which a variable's directions hold anything that they did not hold before.
function writtenAfter(line, stages) {
  const changed = (before, after) => line.read.concat(line.none ?? []).some((direction) => {
    for (let i = direction; i < after.length; i += t.width) if (Math.abs(after[i] - (before ? before[i] : 0)) > 1e-4) return true;
    return false;
  });
  const step = stages.findIndex((stage, i) => changed(i ? stages[i - 1].stream : null, stage.stream));
  return step < 0 ? stages.length - 1 : step;
}

function showValues({ stages, places }, names) {
  const table = byId("values");
  const row = (title, from, cells, attributes = {}) => element(
    "tr", attributes, element("th", { scope: "row" }, title), element("td", { class: "from" }, from),
    ...cells.map((text) => element("td", {}, text)),
  );
  const last = stages[stages.length - 1].stream;
  const inside = names.slice(1).map((_, i) => i + 1);
  const body = [];
  for (const line of data.lines) {
    if (!line.read || line.name === "one" || line.name === "tokens") continue;
    const step = writtenAfter(line, stages);
    const cells = inside.map((place) => decoded(stages[step].stream, place, t.width, line));
    body.push([step, row(line.name, stages[step].title, cells, { "data-line": line.name })]);
  }
  // In the order in which the transformer has them; lines of one half-layer stay in the program's order
  body.sort((a, b) => a[0] - b[0]);
  const foot = data.answer
    ? [row("answer", "read at the end", inside.map((place) => decoded(last, place, t.width, data.answer)), { class: "answer" })]
    : [];
  table.replaceChildren(
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "line"), element("th", { scope: "col" }, "known after"),
      ...names.slice(1).map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...body.map(([, made]) => made), ...foot),
  );
  byId("values-none").hidden = Boolean(data.answer);
}

function showStream({ stages, places }, names) {
  const box = byId("streams");
  dropGrids(box);
  const made = [];
  let before = null;
  for (const { title, stream } of stages) {
    const changed = !before || stream.some((x, i) => Math.abs(x - before[i]) > 1e-4);
    const old = before;
    before = stream;
    if (!changed) continue; // a half-layer that writes nothing
    const at = (r, c) => stream[r * t.width + c];
    const grid = makeGrid({
      rows: places, columns: t.width, high: 15, at,
      label: `The stream after ${title}: ${places} places by ${t.width} directions. Arrow keys go from number to number.`,
      describe: (r, c) => `After ${title}, ${names[r]}${r ? ` at place ${r - 1}` : ""}, ${directionName(c)}: ${shortNumber(at(r, c))}`,
      columnsOf: (line) => line.directions,
      owners: (r, c) => [owner[c]],
    }, sizes.stream, hooks);
    const written = [...new Set(owner.filter((line, c) => line && names.some((_, r) => Math.abs(at(r, c) - (old ? old[r * t.width + c] : 0)) > 1e-4)).map((line) => line.name))];
    made.push(element("figure", {}, element("figcaption", {}, `after ${title}`, element("span", {}, written.length ? `writes ${written.join(", ")}` : "")),
      element("div", { class: "scroll labelled" }, element("div", { class: "labels", "aria-hidden": "true" }, ...names.map((name) => element("span", {}, name))), grid.frame)));
  }
  box.replaceChildren(...made);
}

function showPatterns({ patterns, places }, names) {
  const box = byId("patterns");
  byId("patterns-none").hidden = patterns.length > 0;
  dropGrids(box);
  const accent = rgb(colour("accent"));
  box.replaceChildren(...patterns.map(({ layer, head, pattern }) => {
    const mine = data.lines.filter((line) => line.heads.some(([l, h]) => l === layer && h === head));
    const at = (r, c) => pattern[r * places + c];
    const caption = element("figcaption", {}, `layer ${layer}, head ${head}`, element("span", {}, mine.map((line) => line.name).join(", ")));
    const attributes = mine.length ? { "data-line": mine[mine.length - 1].name } : {};
    if (places > 14) {
      const grid = makeGrid({
        rows: places, columns: places, high: 12, at, owners: () => mine,
        label: `Attention of layer ${layer}, head ${head}: from each place, down, to each place, across.`,
        describe: (r, c) => `Layer ${layer}, head ${head}: ${names[r]} attends to ${names[c]}: ${shortNumber(at(r, c))}`,
      }, 12, hooks);
      return element("figure", attributes, caption, element("div", { class: "scroll" }, grid.frame));
    }
    const cell = (r, c) => {
      const made = element("td", {}, at(r, c) < 0.005 ? "" : shortNumber(Math.round(100 * at(r, c)) / 100).replace(/^0\./, "."));
      // At most so deep that ink reads on it, in light and in dark
      if (at(r, c) >= 0.005) made.style.background = `rgba(${accent}, ${0.08 + 0.42 * at(r, c)})`;
      return made;
    };
    return element("figure", attributes, caption, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `attention of layer ${layer}, head ${head}` }, element("table", { class: "pattern" },
      element("thead", {}, element("tr", {}, element("td", {}, ""), ...names.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...names.map((name, r) => element("tr", {}, element("th", { scope: "row" }, name), ...names.map((_, c) => cell(r, c))))))));
  }));
}

function offerTokens() {
  if (t.tokens.length > 40) return;
  const quoted = (text) => (/[\s,"']/.test(text) || !text ? (text.includes("'") ? `"${text}"` : `'${text}'`) : text);
  const say = (text) => { byId("input").value = text; byId("input").dispatchEvent(new Event("input")); };
  const words = () => { const parsed = parseInput(t, state.input); return parsed.tokens ?? []; };
  const joined = (tokens) => tokens.map((token) => quoted(token.text)).join(" ");
  byId("offer").replaceChildren(
    ...t.tokens.map((token) => {
      const button = element("button", { type: "button", "aria-label": `add ${token.shown}` }, token.shown);
      button.addEventListener("click", () => say(joined([...words(), token].slice(-t.longest))));
      return button;
    }),
    ...[["remove last", () => words().slice(0, -1)],
      ["random", () => Array.from({ length: t.longest }, () => t.tokens[Math.floor(Math.random() * t.tokens.length)])]].map(([title, tokens]) => {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => say(joined(tokens())));
      return button;
    }),
  );
}

// -- the page ----------------------------------------------------------------------------------------------------------

const sizes = { cell: 6, stream: 6 };

function drawWeights() {
  const box = byId("matrices");
  dropGrids(box);
  const wide = box.clientWidth;
  // Two matrices side by side where that leaves a direction at least three pixels
  const side = wide > 560 && (wide - 32) / 2 >= 3 * t.width;
  sizes.cell = Math.max(2, Math.min(8, Math.floor((side ? (wide - 32) / 2 : wide - 16) / t.width)));
  sizes.stream = Math.max(2, Math.min(14, Math.floor((wide - 90) / t.width)));
  const groups = new Map();
  const zeros = new Map();
  for (const matrix of matrices()) {
    if (!t.arrays[matrix.name].values.some((x) => x !== 0)) {
      zeros.set(matrix.group, [...(zeros.get(matrix.group) ?? []), matrix.title]);
      groups.set(matrix.group, groups.get(matrix.group) ?? []);
      continue;
    }
    const grid = makeGrid(gridOf(matrix), sizes.cell, hooks);
    const figure = element("figure", {}, element("figcaption", {}, matrix.title, element("span", {}, matrix.note)),
      element("div", { class: "scroll" }, grid.frame));
    groups.set(matrix.group, [...(groups.get(matrix.group) ?? []), figure]);
  }
  const ruled = data.lines.length ? [element("section", { class: "layer" }, element("h3", {}, "Directions"),
    element("figure", {}, element("figcaption", {}, "whose each is", element("span", {}, "in the colours of the lines")),
      element("div", { class: "scroll" }, makeGrid(ruler(), sizes.cell, hooks).frame)))] : [];
  box.replaceChildren(...ruled, ...[...groups].map(([title, figures]) => element("section", { class: "layer" },
    element("h3", {}, title[0].toUpperCase() + title.slice(1)), element("div", { class: side ? "pair" : "" }, ...figures),
    ...(zeros.has(title) ? [element("p", { class: "note" }, `Nothing but zeros: ${zeros.get(title).join(", ")}.`)] : []))));
}

function start() {
  document.documentElement.classList.add("alive");
  readAddress();
  listen();
  offerTokens();
  drawWeights();
  compute();
  pin(state.pinned);
  byId("cell").textContent = "Point at a picture to read its numbers.";
  byId("input").addEventListener("input", () => { state.input = byId("input").value; compute(); keepAddress(); });
  window.addEventListener("hashchange", () => { readAddress(); compute(); pin(state.pinned); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { redrawGrids(); compute(); });
  let wide = byId("matrices").clientWidth;
  window.addEventListener("resize", () => {
    if (byId("matrices").clientWidth === wide) return; // a phone's address bar comes and goes
    wide = byId("matrices").clientWidth;
    drawWeights();
    compute();
  });
}

// The text is painted first; the pictures come with the next frame.
requestAnimationFrame(() => setTimeout(start));
