// Matrices drawn on canvas from their numbers. Directions of the stream always run from left to right.
// Sign and size are colours, so each cell also says its number when it is pointed at, or reached with the arrow keys.

const grids = [];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// A drawn matrix. spec: rows, columns; at(row, column) a number; label, for those who do not see it;
// describe(row, column) a sentence; rowsOf(line) and columnsOf(line) what a line of the program has of it;
// owners(row, column) the lines that a cell belongs to; cuts, rows before which a thin line stands; high, in pixels.
function makeGrid(spec, cell, hooks) {
  const high = spec.high ?? Math.max(1, Math.min(cell, Math.floor(150 / spec.rows)));
  const [width, height] = [spec.columns * cell, spec.rows * high];
  const base = element("canvas", { "aria-hidden": "true" });
  const over = element("canvas", { "aria-hidden": "true" });
  const frame = element("div", { class: "grid", tabindex: "0", role: "application", "aria-label": spec.label }, base, over);
  frame.style.width = `${width}px`;
  frame.style.height = `${height}px`;
  const grid = { spec, frame, base, over, cell, high, width, height, cursor: null, drawn: false, line: null };
  const cellOf = (event) => {
    const box = frame.getBoundingClientRect();
    return [
      Math.max(0, Math.min(spec.rows - 1, Math.floor((event.clientY - box.top) / high))),
      Math.max(0, Math.min(spec.columns - 1, Math.floor((event.clientX - box.left) / cell))),
    ];
  };
  const point = (at) => { grid.cursor = at; drawOver(grid); hooks.point(spec, at); };
  frame.addEventListener("pointermove", (event) => point(cellOf(event)));
  frame.addEventListener("pointerleave", () => point(null));
  frame.addEventListener("click", (event) => hooks.choose(spec, cellOf(event)));
  frame.addEventListener("blur", () => point(null));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" && grid.cursor) hooks.choose(spec, grid.cursor);
    if (!step) return;
    event.preventDefault();
    const [row, column] = grid.cursor ?? [-step[0], -step[1]];
    point([(row + step[0] + spec.rows) % spec.rows, (column + step[1] + spec.columns) % spec.columns]);
  });
  grids.push(grid);
  watcher.observe(frame);
  return grid;
}

// Grids are drawn when they come near the window: a page of many layers is shown before all of them are.
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const grid = grids.find((one) => one.frame === entry.target);
    if (!grid) continue;
    grid.near = entry.isIntersecting;
    if (grid.near && !grid.drawn) drawBase(grid);
    if (grid.near) drawOver(grid);
  }
}, { rootMargin: "300px" });

function dropGrids(parent) {
  for (let i = grids.length - 1; i >= 0; i--) {
    if (parent.contains(grids[i].frame)) {
      watcher.unobserve(grids[i].frame);
      grids.splice(i, 1);
    }
  }
}

// One pixel a number; the browser makes the pixels large without blurring them.
function drawBase(grid) {
  const { spec, base } = grid;
  [base.width, base.height] = [spec.columns, spec.rows];
  const image = new ImageData(spec.columns, spec.rows);
  const [more, less] = [rgb(colour("accent")), rgb(colour("second"))];
  let most = 0;
  for (let r = 0; r < spec.rows; r++) for (let c = 0; c < spec.columns; c++) most = Math.max(most, Math.abs(spec.at(r, c)));
  for (let r = 0; r < spec.rows; r++) {
    for (let c = 0; c < spec.columns; c++) {
      const x = spec.at(r, c);
      if (Math.abs(x) < 1e-6) continue;
      // The root keeps small numbers visible beside the large ones of a compiled query
      const depth = 0.25 + 0.75 * Math.sqrt(Math.abs(x) / most);
      image.data.set([...(spec.tint?.(r, c) ?? (x > 0 ? more : less)), Math.round(255 * depth)], 4 * (r * spec.columns + c));
    }
  }
  base.getContext("2d").putImageData(image, 0, 0);
  grid.drawn = true;
}

// Runs of neighbours in a sorted list of numbers, as [first, last].
function runsOf(numbers) {
  const runs = [];
  for (const n of numbers) {
    if (runs.length && runs[runs.length - 1][1] === n - 1) runs[runs.length - 1][1] = n;
    else runs.push([n, n]);
  }
  return runs;
}

// What belongs to the chosen line: the rest is dimmed, its rows stand between whole lines, its columns between dashed
// ones, so that it can be told without seeing colours.
function drawOver(grid) {
  const { spec, over, cell, high, width, height, line, cursor } = grid;
  const scale = window.devicePixelRatio || 1;
  const [wide, tall] = [Math.round(width * scale), Math.round(height * scale)];
  if (over.width !== wide || over.height !== tall) [over.width, over.height] = [wide, tall];
  const pen = over.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const box = (rows, columns) => [columns[0] * cell, rows[0] * high, (columns[1] - columns[0] + 1) * cell, (rows[1] - rows[0] + 1) * high];
  if (line) {
    const rows = runsOf(spec.rowsOf?.(line) ?? []).map((run) => box(run, [0, spec.columns - 1]));
    const columns = runsOf(spec.columnsOf?.(line) ?? []).map((run) => box([0, spec.rows - 1], run));
    pen.globalAlpha = 0.78;
    pen.fillStyle = colour("panel");
    pen.fillRect(0, 0, width, height);
    pen.globalAlpha = 1;
    for (const lit of [...rows, ...columns]) pen.clearRect(...lit);
    pen.strokeStyle = colour("ink");
    pen.lineWidth = 1;
    for (const [dashes, lit] of [[[], rows], [[3, 2], columns]]) {
      pen.setLineDash(dashes);
      for (const [x, y, w, h] of lit) pen.strokeRect(x + 0.5, y + 0.5, Math.max(1, w - 1), Math.max(1, h - 1));
    }
    pen.setLineDash([]);
  }
  pen.fillStyle = colour("muted");
  for (const cut of spec.cuts ?? []) pen.fillRect(0, cut * high - 0.5, width, 1);
  if (cursor) {
    pen.strokeStyle = colour("ink");
    pen.lineWidth = 2;
    pen.strokeRect(...box([cursor[0], cursor[0]], [cursor[1], cursor[1]]).map((n, i) => (i < 2 ? n - 1 : n + 2)));
  }
}

function lightGrids(line) {
  for (const grid of grids) {
    grid.line = line;
    if (grid.near) drawOver(grid);
  }
}

function redrawGrids() {
  for (const grid of grids) {
    if (grid.drawn) drawBase(grid);
    drawOver(grid);
  }
}
