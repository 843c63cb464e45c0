// The page's behaviour: theme, sortable tables, plots. No network; everything it needs is in the document.
"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // null: follow the system

  // ---- theme ----
  function applyTheme() {
    root.dataset.theme = chosen || (prefersDark.matches ? "dark" : "light");
    const dark = root.dataset.theme === "dark";
    const button = document.getElementById("theme");
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark ? "light" : "dark"} theme`);
  }

  // ---- plots: "@name" in a place for colours is the theme's colour of that name ----
  const NARROW = 480; // pixels of a plot: below it as on a phone
  const COLOUR_KEYS = new Set(["color", "colors", "fillcolor", "bgcolor", "linecolor", "gridcolor", "bordercolor", "dividercolor"]);
  function colour(value, style) {
    if (Array.isArray(value)) return value.map((v) => colour(v, style));
    return typeof value === "string" && value[0] === "@" ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
  }
  // Plotly reads a little HTML in labels; names of layers are data, so their markup is made harmless.
  const TEXT_KEYS = new Set(["x", "y", "labels", "text", "name", "customdata", "ids", "parents"]);
  function plain(value) {
    if (Array.isArray(value)) return value.map(plain);
    return typeof value === "string" ? value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;") : value;
  }
  function themed(node, style, inData) {
    if (Array.isArray(node)) return node.map((v) => themed(v, style, inData));
    if (node === null || typeof node !== "object") return node;
    const out = {};
    for (const [key, value] of Object.entries(node)) {
      if (COLOUR_KEYS.has(key)) out[key] = typeof value === "object" && !Array.isArray(value) ? themed(value, style, inData) : colour(value, style);
      else if (TEXT_KEYS.has(key) && (Array.isArray(value) || typeof value === "string")) out[key] = plain(value);
      else out[key] = themed(value, style, inData);
    }
    return out;
  }
  function axis(spec, style, narrow) {
    const line = colour("@line", style);
    const title = spec.title ? { ...spec.title, font: { size: narrow ? 11 : 12, color: colour("@muted", style) } } : undefined;
    if (narrow && title) title.text = title.text.replaceAll("; ", "<br>"); // a title does not wrap by itself
    const grid = spec.type !== "category" && spec.type !== "multicategory";
    return { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ticks: "", showgrid: grid, ...spec, title };
  }
  function draw() {
    const style = getComputedStyle(root);
    const drawn = Object.entries(figures).map(([name, figure]) => {
      const place = document.getElementById("plot-" + name);
      const narrow = place.clientWidth < NARROW;
      const { layout: shape, height } = narrow && figure.narrow ? figure.narrow : figure;
      const layout = themed(shape, style);
      for (const key of Object.keys(layout)) if (/^[xy]axis\d*$/.test(key)) layout[key] = axis(layout[key], style, narrow);
      Object.assign(layout, {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, width: place.clientWidth,
        font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: colour("@ink", style) },
        hoverlabel: { bgcolor: colour("@panel", style), bordercolor: colour("@line", style), font: { color: colour("@ink", style) } },
        separators: ".,",
      });
      const config = { displaylogo: false, displayModeBar: false, doubleClick: "reset" };
      if (!place.classList.contains("drawn")) place.replaceChildren();
      return window.Plotly.react(place, themed(figure.data, style), layout, config).then(() => {
        place.classList.add("drawn");
        place.style.minHeight = "";
      });
    });
    return Promise.all(drawn);
  }

  // ---- Plotly travels compressed: a third of the page's size ----
  async function loadPlotly() {
    const packed = document.getElementById("plotly");
    const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  }

  // ---- tables: click a heading to sort; numbers by value, text by letters ----
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && head.classList.contains("left"));
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [p, q] = [key(a), key(b)];
          if (p === "" || q === "") return p === q ? 0 : p === "" ? 1 : -1; // what is missing goes last either way
          const order = head.classList.contains("left") ? p.localeCompare(q, undefined, { numeric: true }) : p - q;
          return up ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  applyTheme();
  const ready = loadPlotly().then(draw).then(
    () => { root.dataset.plots = "drawn"; },
    (error) => { root.dataset.plots = "failed"; console.error("the plots could not be drawn:", error); },
  );
  const redraw = () => { applyTheme(); ready.then(() => window.Plotly && draw()); };
  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    redraw();
  });
  prefersDark.addEventListener("change", redraw);
  let width = root.clientWidth; // a phone's bars that come and go change the height only
  window.addEventListener("resize", () => {
    if (root.clientWidth !== width) redraw();
    width = root.clientWidth;
  });
})();
