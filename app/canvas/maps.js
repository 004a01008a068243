// Maps by layer and head on canvases. `store` keeps a model's values in the page, once; `view` draws them and answers
// clicks and keys at once: only indices travel to the server.

const STOPS = ["#123f73", "#3e7fb8", "#b9d3e6", null, "#f3cbb2", "#d2603f", "#8c1423"];
const DARK = ["#9cc9f0", "#4f94cf", "#274f74", null, "#6e3a26", "#d9704d", "#ffb59a"];
const PLACES = [0, 0.2, 0.4, 0.5, 0.6, 0.8, 1];
const KEPT = 24;
const models = (window.__aftLensMaps ??= new Map());
const waiting = (window.__aftLensWaiting ??= new Set());

function halves(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const bits = new Uint16Array(bytes.buffer), out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1, exponent = (bits[i] >> 10) & 31, rest = bits[i] & 1023;
    out[i] = exponent === 31 ? (rest ? NaN : sign * Infinity)
      : sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }
  return out;
}

export function keep(data) {
  if (!models.has(data.hash)) {
    const values = halves(data.values), size = data.rows * data.columns;
    for (let i = 0; i < values.length; i++) values[i] *= data.peaks[Math.floor(i / size)];
    models.set(data.hash, { ...data, values, size, image: picture(data.image) });
    if (models.size > KEPT) models.delete(models.keys().next().value);
  }
  for (const draw of waiting) draw();
}

function picture(url) {
  if (!url) return null;
  const image = new Image();
  image.src = url;
  image.onload = () => { for (const draw of waiting) draw(); };
  return image;
}

function isDark(element) {
  const probe = getComputedStyle(element).getPropertyValue("--st-background-color").trim();
  const [r, g, b] = rgb(probe || "#ffffff");
  return 0.3 * r + 0.59 * g + 0.11 * b < 128;
}

function rgb(text) {
  if (text.startsWith("#")) {
    const full = text.length === 4 ? text.replace(/[0-9a-f]/gi, "$&$&") : text;
    return [1, 3, 5].map((at) => parseInt(full.slice(at, at + 2), 16));
  }
  return (text.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
}

function palette(dark) {
  const stops = (dark ? DARK : STOPS).map((stop) => rgb(stop ?? (dark ? "#20252b" : "#f6f6f4")));
  const out = new Uint8ClampedArray(511 * 3);
  for (let i = 0; i < 511; i++) {
    const place = i / 510, next = Math.max(1, PLACES.findIndex((at) => at >= place));
    const share = (place - PLACES[next - 1]) / (PLACES[next] - PLACES[next - 1]);
    for (let c = 0; c < 3; c++) out[3 * i + c] = stops[next - 1][c] * (1 - share) + stops[next][c] * share;
  }
  return out;
}

// A function from a value and its tile's largest |value| to -1..1.
function scaled(model, scale, bound) {
  if (scale === "own") return (value, peak) => value / (peak || 1);
  if (scale === "shared") return (value) => value / (bound || 1);
  if (scale === "log") {
    const top = Math.log1p(Math.max(...model.peaks, 1e-30));
    return (value) => Math.sign(value) * Math.log1p(Math.abs(value)) / top;
  }
  model.sorted ??= Float32Array.from(model.values, Math.abs).filter((value) => value > 0).sort();
  const sorted = model.sorted;
  return (value) => {
    let low = 0, high = sorted.length;
    const size = Math.abs(value);
    while (low < high) { const middle = (low + high) >> 1; sorted[middle] < size ? (low = middle + 1) : (high = middle); }
    return sorted.length ? Math.sign(value) * low / sorted.length : 0;
  };
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function number(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

export default function view({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".maps");
  const state = (root.state ??= {});
  const before = JSON.stringify(state.data?.cell);
  state.data = data;
  if (!state.cell || JSON.stringify(data.cell) !== before || data.pick !== state.pick) state.cell = { ...data.cell };
  state.pick = data.pick;

  const found = () => data.panes.map((pane) => models.get(pane.hash));
  const tileOf = (model, layer, head) => model.tiles.findIndex((tile) => tile[0] === layer && tile[1] === head);
  const low = (model, side) => (model.by_offset ? -Math.floor(model[side] / 2) : 0);
  const mark = (model) => (data.pick === "target" ? data.target : [state.cell.y, state.cell.x]);

  // The layer and head that a pane shows: the chosen one's partner, or of the same number, as far as there is one.
  function headIn(pane) {
    const { layer, head, side } = state.cell;
    if (data.pairs?.length && pane < 2 && pane !== side) {
      const own = side === 0 ? [0, 1, 2, 3] : [2, 3, 0, 1];
      const pair = data.pairs.find((one) => one[own[0]] === layer && one[own[1]] === head);
      if (pair) return [pair[own[2]], pair[own[3]], pair[4]];
    }
    const model = models.get(data.panes[pane].hash);
    return [Math.min(layer, model.layers - 1), Math.min(head, model.heads - 1), null];
  }

  function valueAt(model, tile, y, x) {
    const row = y - low(model, "rows"), column = x - low(model, "columns");
    if (tile < 0 || row < 0 || column < 0 || row >= model.rows || column >= model.columns) return NaN;
    return model.values[tile * model.size + row * model.columns + column];
  }

  function paint(model, tile, colours, to) {
    const small = new OffscreenCanvas(model.columns, model.rows), context = small.getContext("2d");
    const pixels = context.createImageData(model.columns, model.rows);
    for (let i = 0; i < model.size; i++) {
      const value = model.values[tile * model.size + i];
      if (Number.isNaN(value)) continue;
      const at = 3 * Math.round(255 + 255 * Math.max(-1, Math.min(1, to(value, model.peaks[tile]))));
      pixels.data.set([colours[at], colours[at + 1], colours[at + 2], 255], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
    return small;
  }

  function layout(shown, width) {
    const gap = 3, margin = 26;
    const grids = shown.map((model) => {
      const count = model.tiles.length;
      if (!model.by_layer) return { count, flow: true };
      const lines = [...new Set(model.tiles.map((tile) => tile[0]))];
      return { count, flow: false, lines, across: Math.ceil(count / lines.length) };
    });
    const stacked = width < 520;
    const room = width - (stacked ? margin : shown.length * margin + 16 * (shown.length - 1));
    let tile = 44;
    const across = grids.map((grid) => (grid.flow ? 0 : grid.across));
    if (!grids.some((grid) => grid.flow)) {
      const most = stacked ? Math.max(...across) : across.reduce((a, b) => a + b, 0);
      tile = Math.min(data.tile ?? 96, Math.floor(room / most) - gap);
    } else tile = Math.max(28, Math.min(64, Math.floor(room / (stacked ? 6 : 12)) - gap));
    tile = Math.max(10, tile);
    return grids.map((grid) => {
      const share = stacked ? room : room / shown.length;
      const columns = grid.flow ? Math.max(1, Math.min(grid.count, Math.floor(share / (tile + gap)))) : grid.across;
      return { ...grid, columns, tile, gap, margin, rows: Math.ceil(grid.count / columns) };
    });
  }

  function place(model, grid, index) {
    const [line, column] = [Math.floor(index / grid.columns), index % grid.columns];
    return [grid.margin + column * (grid.tile + grid.gap), 16 + line * (grid.tile + grid.gap)];
  }

  function sized(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = false;
    return context;
  }

  function draw() {
    const shown = found();
    if (shown.some((model) => !model)) return;
    const dark = isDark(root), colours = palette(dark), ink = dark ? "#e8ecf0" : "#1f2933", muted = dark ? "#9aa5b1" : "#66727f";
    const wide = root.clientWidth >= 900;
    root.classList.toggle("beside", wide);
    const panes = root.querySelector(".panes");
    const grids = layout(shown, panes.clientWidth);
    while (panes.children.length < shown.length) panes.append(paneElement(panes.children.length));
    while (panes.children.length > shown.length) panes.lastChild.remove();
    state.grids = grids;
    shown.forEach((model, pane) => {
      const element = panes.children[pane], grid = grids[pane], to = scaled(model, data.scale, data.bound);
      element.querySelector("h3").textContent = data.panes[pane].title;
      element.querySelector(".words").textContent = data.panes[pane].words ?? "";
      const canvas = element.querySelector("canvas");
      const key = JSON.stringify([data.panes[pane].hash, data.scale, data.bound, grid, dark]);
      const [layer, head] = headIn(pane), chosen = tileOf(model, layer, head);
      canvas.setAttribute("aria-label", `Maps of ${data.panes[pane].title} by layer and ${model.column}. Arrow keys move the `
        + `cell, with Shift the layer and head. Chosen: layer ${layer}, ${model.column} ${head}`);
      if (canvas.key !== key) {
        canvas.key = key;
        canvas.base = new OffscreenCanvas(1, 1);
        const width = grid.margin + grid.columns * (grid.tile + grid.gap), height = 18 + grid.rows * (grid.tile + grid.gap);
        const ratio = window.devicePixelRatio || 1;
        canvas.base.width = Math.round(width * ratio);
        canvas.base.height = Math.round(height * ratio);
        const context = canvas.base.getContext("2d");
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.imageSmoothingEnabled = false;
        context.font = "11px sans-serif";
        context.textBaseline = "middle";
        model.tiles.forEach((tile, index) => {
          const [x, y] = place(model, grid, index);
          context.drawImage(paint(model, index, colours, to), x, y, grid.tile, grid.tile);
          context.strokeStyle = muted;
          context.globalAlpha = tile[2] ? 0.9 : 0.18;
          context.setLineDash(tile[2] ? [2, 2] : []);
          context.strokeRect(x - 0.5, y - 0.5, grid.tile + 1, grid.tile + 1);
          context.globalAlpha = 1;
          context.fillStyle = muted;
          context.textAlign = "center";
          if (!grid.flow && index < grid.columns && (grid.tile > 15 || index % 2 === 0)) context.fillText(tile[1], x + grid.tile / 2, 8);
          context.textAlign = "right";
          if (!grid.flow && index % grid.columns === 0) context.fillText(tile[0], grid.margin - 6, y + grid.tile / 2);
          if (grid.flow && index % grid.columns === 0) context.fillText(`${index + 1}.`, grid.margin - 4, y + grid.tile / 2);
        });
        canvas.shape = [width, height];
      }
      element.style.width = `${Math.min(Math.max(canvas.shape[0], 150), panes.clientWidth)}px`;
      const context = sized(canvas, ...canvas.shape);
      context.drawImage(canvas.base, 0, 0, ...canvas.shape);
      if (chosen >= 0) {
        const [x, y] = place(model, grid, chosen);
        context.strokeStyle = ink;
        context.lineWidth = 2;
        context.strokeRect(x - 1, y - 1, grid.tile + 2, grid.tile + 2);
      }
    });
    read(shown, colours, ink, muted);
    root.dataset.ready = data.panes.map((pane) => pane.hash).join(" ");
    root.dataset.cell = [state.cell.layer, state.cell.head, state.cell.y, state.cell.x].join(".");
  }

  function read(shown, colours, ink, muted) {
    const reading = root.querySelector(".reading"), sides = reading.querySelector(".sides");
    const { y, x } = state.cell;
    const at = data.pick === "target" ? (data.target ? `target row ${data.target[0]}, column ${data.target[1]}` : "class token")
      : shown[0].by_offset ? `offset Δy ${signed(y)}, Δx ${signed(x)}` : `row ${y}, column ${x}`;
    const [layer, head] = headIn(0);
    reading.querySelector("h4").textContent = `Layer ${layer}, ${shown[0].column} ${head}, ${at}`;
    while (sides.children.length < shown.length) sides.append(sideElement(sides.children.length));
    while (sides.children.length > shown.length) sides.lastChild.remove();
    const room = root.classList.contains("beside") ? reading.clientWidth : Math.min(root.clientWidth, 680);
    const across = Math.min(shown.length, root.classList.contains("beside") ? 2 : 3);
    const side = Math.max(90, Math.min((room - 12 * (across - 1)) / across - 30, 260));
    shown.forEach((model, pane) => {
      const element = sides.children[pane], [own, number_, score] = headIn(pane), tile = tileOf(model, own, number_);
      const value = data.pick === "target" ? null : valueAt(model, tile, y, x);
      element.style.width = `${side + 28}px`;
      const line = element.querySelector(".value");
      line.replaceChildren(`${data.panes[pane].title}${pane ? ` (layer ${own}, ${model.column} ${number_})` : ""}: `);
      const strong = document.createElement("b");
      const sum = data.panes[pane].sums?.[tile];
      strong.textContent = tile < 0 ? "not among the heads shown" : data.pick === "target"
        ? `sums to ${number(sum ?? NaN)} over patches` : Number.isNaN(value) ? "none: it has no such place" : number(value);
      line.append(value === null || tile < 0 ? "" : `${model.unit} = `, strong, score === null || score === undefined ? "" : `, likeness ${number(score)}`);
      enlarge(element.querySelector("canvas"), model, tile, side, colours, ink, muted, pane);
    });
    root.querySelector(".live").textContent = reading.querySelector("h4").textContent + ". "
      + [...sides.children].map((one) => one.querySelector(".value").textContent).join("; ");
    const table = root.querySelector("details");
    if (table.open) fill(table, shown);
    const scale = root.querySelector(".scale");
    const ends = { own: "each head over its own largest |value|", log: "signed logarithm over the model's largest", rank:
      "rank of |value| within the model, with its sign", shared: `linear, full colour from ±${number(data.bound)}` }[data.scale];
    scale.textContent = "";
    const bar = document.createElement("span"), steps = [0, 64, 128, 191, 255, 319, 383, 446, 510];
    bar.className = "bar";
    bar.style.background = `linear-gradient(90deg, ${steps.filter((step) => shown.some((model) => model.signed) || step >= 255)
      .map((step) => `rgb(${colours[3 * step]},${colours[3 * step + 1]},${colours[3 * step + 2]})`).join(",")})`;
    scale.append(shown.some((model) => model.signed) ? "below 0" : "0", bar, `above 0 · ${ends}`
      + (shown.some((model) => model.tiles.some((tile) => tile[2])) ? " · dashed: does nothing" : ""));
  }

  function enlarge(canvas, model, tile, side, colours, ink, muted, pane) {
    const pad = 22, cell = side / Math.max(model.rows, model.columns);
    const [width, height] = [cell * model.columns, cell * model.rows];
    const context = sized(canvas, width + pad + 4, height + pad + 4);
    canvas.shape = { pad, cell };
    context.clearRect(0, 0, width + pad + 4, height + pad + 4);
    if (model.image?.complete && model.image.naturalWidth) {
      context.filter = "grayscale(1)";
      context.drawImage(model.image, pad, 0, width, height);
      context.filter = "none";
      context.globalAlpha = 0.62;
    }
    if (tile >= 0) context.drawImage(paint(model, tile, colours, scaled(model, data.scale, data.bound)), pad, 0, width, height);
    context.globalAlpha = 1;
    context.strokeStyle = muted;
    context.strokeRect(pad - 0.5, -0.5, width + 1, height + 1);
    context.font = "11px sans-serif";
    context.fillStyle = muted;
    const first = [low(model, "rows"), low(model, "columns")], last = [first[0] + model.rows - 1, first[1] + model.columns - 1];
    context.textAlign = "right";
    for (const tick of new Set([first[0], model.by_offset ? 0 : last[0], last[0]]))
      context.fillText(tick, pad - 4, (tick - first[0] + 0.5) * cell + 4);
    context.textAlign = "center";
    for (const tick of new Set([first[1], model.by_offset ? 0 : last[1], last[1]]))
      context.fillText(tick, pad + (tick - first[1] + 0.5) * cell, height + 14);
    const spot = data.panes[pane].target !== undefined ? data.panes[pane].target : mark(model);
    if (spot) {
      const [x, y] = [pad + (spot[1] - first[1]) * cell, (spot[0] - first[0]) * cell];
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.strokeRect(x, y, cell, cell);
      context.strokeStyle = "#ffffff";
      context.lineWidth = 0.75;
      context.strokeRect(x, y, cell, cell);
    }
    canvas.setAttribute("aria-label", `Enlarged map of ${data.panes[pane].title}; click or press arrow keys to choose a cell`);
  }

  function fill(details, shown) {
    const holder = details.querySelector("div");
    holder.replaceChildren(...shown.map((model, pane) => {
      const [layer, head] = headIn(pane), tile = tileOf(model, layer, head), table = document.createElement("table");
      table.createCaption().textContent = `${data.panes[pane].title}, layer ${layer}, ${model.column} ${head}: ${model.unit}`;
      const top = table.insertRow();
      top.append(document.createElement("th"));
      for (let x = 0; x < model.columns; x++) top.append(Object.assign(document.createElement("th"), { textContent: x + low(model, "columns") }));
      for (let y = 0; y < model.rows; y++) {
        const row = table.insertRow();
        row.append(Object.assign(document.createElement("th"), { textContent: y + low(model, "rows") }));
        for (let x = 0; x < model.columns; x++)
          row.insertCell().textContent = number(valueAt(model, tile, y + low(model, "rows"), x + low(model, "columns")));
      }
      return table;
    }));
  }

  const signed = (value) => (value < 0 ? `−${-value}` : `+${value}`);

  let sending;
  function choose(cell, delay = 0) {
    state.cell = { ...state.cell, ...cell };
    draw();
    clearTimeout(sending);
    sending = setTimeout(() => setStateValue("cell", { ...state.cell }), delay);
  }

  function paneElement(pane) {
    const element = document.createElement("div");
    element.className = "pane";
    element.innerHTML = '<h3></h3><canvas tabindex="0" role="img"></canvas><div class="words"></div><div class="tools"><button type="button">PNG</button><button type="button">SVG</button></div>';
    const canvas = element.querySelector("canvas");
    const hit = (event) => {
      const current = root.live;
      return current.at(pane, event.offsetX, event.offsetY);
    };
    canvas.addEventListener("pointermove", (event) => root.live.point(pane, hit(event)));
    canvas.addEventListener("pointerleave", () => root.live.point(pane, null));
    canvas.addEventListener("click", (event) => { const at = hit(event); if (at) root.live.choose(at); });
    canvas.addEventListener("keydown", (event) => root.live.press(event, pane));
    const [png, svg] = element.querySelectorAll("button");
    png.addEventListener("click", () => canvas.toBlob((blob) => save(blob, `${root.live.title(pane)}.png`)));
    svg.addEventListener("click", () => save(new Blob([root.live.svg(pane)], { type: "image/svg+xml" }), `${root.live.title(pane)}.svg`));
    return element;
  }

  function sideElement(pane) {
    const element = document.createElement("div");
    element.className = "side";
    element.innerHTML = '<div class="value"></div><canvas tabindex="0" role="img"></canvas>';
    const canvas = element.querySelector("canvas");
    canvas.addEventListener("click", (event) => root.live.within(pane, canvas.shape, event.offsetX, event.offsetY));
    canvas.addEventListener("keydown", (event) => root.live.press(event, pane));
    return element;
  }

  // A pane as it is drawn, its cells as squares: one path for each colour.
  function vector(pane) {
    const model = models.get(data.panes[pane].hash), grid = state.grids[pane], colours = palette(false);
    const to = scaled(model, data.scale, data.bound), paths = new Map(), words = [];
    const [wide, high] = [grid.tile / model.columns, grid.tile / model.rows].map((side) => Number(side.toFixed(3)));
    const text = (x, y, anchor, content) => words.push(`<text x="${x}" y="${y}" text-anchor="${anchor}">${content}</text>`);
    model.tiles.forEach((tile, index) => {
      const [x, y] = place(model, grid, index);
      for (let i = 0; i < model.size; i++) {
        const value = model.values[index * model.size + i];
        if (Number.isNaN(value)) continue;
        const at = 3 * Math.round(255 + 255 * Math.max(-1, Math.min(1, to(value, model.peaks[index]))));
        const left = (x + (i % model.columns) * wide).toFixed(2), top = (y + Math.floor(i / model.columns) * high).toFixed(2);
        paths.set(at, (paths.get(at) ?? "") + `M${left} ${top}h${wide}v${high}h-${wide}z`);
      }
      words.push(`<rect x="${x - 0.5}" y="${y - 0.5}" width="${grid.tile + 1}" height="${grid.tile + 1}" class="${tile[2] ? "idle" : ""}"/>`);
      if (!grid.flow && index < grid.columns) text(x + grid.tile / 2, 12, "middle", tile[1]);
      if (index % grid.columns === 0) text(grid.margin - 6, y + grid.tile / 2 + 4, "end", grid.flow ? `${index + 1}.` : tile[0]);
    });
    const escaped = (given) => String(given).replace(/[&<>]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[char]);
    const [width, height] = [grid.margin + grid.columns * (grid.tile + grid.gap), 18 + grid.rows * (grid.tile + grid.gap)];
    const cells = [...paths].map(([at, path]) => `<path fill="rgb(${colours[at]},${colours[at + 1]},${colours[at + 2]})" d="${path}"/>`);
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`
      + `<title>${escaped(data.panes[pane].title)}: ${escaped(model.unit)}, by layer and ${model.column}</title>`
      + "<style>text{font:11px sans-serif;fill:#66727f}rect{fill:none;stroke:#66727f;stroke-opacity:.18}"
      + ".idle{stroke-opacity:.9;stroke-dasharray:2 2}</style>"
      + `<g shape-rendering="crispEdges">${cells.join("")}</g>${words.join("")}</svg>`;
  }

  // What elements that stay call: always the latest data.
  root.live = {
    choose,
    svg: vector,
    title: (pane) => data.panes[pane].title,
    at(pane, px, py) {
      const model = models.get(data.panes[pane].hash), grid = state.grids[pane], step = grid.tile + grid.gap;
      const column = Math.floor((px - grid.margin) / step), line = Math.floor((py - 16) / step);
      const index = line * grid.columns + column;
      if (column < 0 || line < 0 || column >= grid.columns || index >= model.tiles.length) return null;
      const inside = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value / grid.tile * count)));
      const row = inside(py - 16 - line * step, model.rows), col = inside(px - grid.margin - column * step, model.columns);
      const [layer, head] = model.tiles[index];
      return { side: pane < 2 ? pane : 0, layer, head, y: row + low(model, "rows"), x: col + low(model, "columns"), where: "tile" };
    },
    point(pane, at) {
      const line = root.querySelector(".pointer"), model = models.get(data.panes[pane].hash);
      line.textContent = at === null ? "" : `${data.panes[pane].title}: layer ${at.layer}, ${model.column} ${at.head}, `
        + (model.by_offset ? `Δy ${signed(at.y)}, Δx ${signed(at.x)}` : `row ${at.y}, column ${at.x}`)
        + `: ${number(valueAt(model, tileOf(model, at.layer, at.head), at.y, at.x))}`;
    },
    within(pane, shape, px, py) {
      const model = models.get(data.panes[pane].hash), [layer, head] = headIn(pane);
      const row = Math.floor(py / shape.cell), column = Math.floor((px - shape.pad) / shape.cell);
      if (row < 0 || column < 0 || row >= model.rows || column >= model.columns) return;
      choose({ side: pane < 2 ? pane : 0, layer, head, y: row + low(model, "rows"), x: column + low(model, "columns"), where: "map" });
    },
    press(event, pane) {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const model = models.get(data.panes[pane].hash), cell = state.cell;
      if (event.shiftKey) {
        choose({ side: pane < 2 ? pane : 0, layer: Math.max(0, Math.min(model.layers - 1, cell.layer + move[0])),
                 head: Math.max(0, Math.min(model.heads - 1, cell.head + move[1])), where: "tile" }, 250);
      } else {
        const from = data.pick === "target" ? data.target ?? [0, 0] : [cell.y, cell.x];
        const limit = (value, side) => Math.max(low(model, side), Math.min(low(model, side) + model[side] - 1, value));
        choose({ y: limit(from[0] + move[0], "rows"), x: limit(from[1] + move[1], "columns"), where: "map" }, 250);
      }
    },
  };

  if (root.draw) waiting.delete(root.draw);
  root.draw = draw;
  waiting.add(draw);
  root.querySelector("details").ontoggle = draw;
  if (!root.watcher) {
    let last = 0;
    root.watcher = new ResizeObserver(() => { if (root.clientWidth !== last) { last = root.clientWidth; root.draw(); } });
    root.watcher.observe(root);
  }
  draw();
  return () => { waiting.delete(root.draw); root.watcher?.disconnect(); root.watcher = null; };
}
