(function () {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  const placeOf = (id) => document.getElementById("figure-" + id);

  // Figures name colours as CSS variables; Plotly wants them resolved.
  function resolved(value, style, isColor) {
    if (isColor && typeof value === "string" && value.startsWith("var(")) {
      return style.getPropertyValue(value.slice(4, -1)).trim();
    }
    if (Array.isArray(value)) return isColor ? value.map((item) => resolved(item, style, true)) : value;
    if (value === null || typeof value !== "object") return value;
    const copy = {};
    for (const [key, item] of Object.entries(value)) {
      const inside = key.endsWith("color") || key === "colorscale";
      const nested = key === "shapes" || key === "annotations";
      copy[key] = nested ? item.map((one) => resolved(one, style, false)) : resolved(item, style, inside);
    }
    return copy;
  }

  function draw(id) {
    const figure = figures[id];
    const style = getComputedStyle(root);
    const data = figure.data.map((trace) => resolved(trace, style, false));
    const layout = resolved(figure.layout, style, false);
    layout.dragmode = window.matchMedia("(pointer: coarse)").matches ? false : "zoom"; // a finger must be able to scroll
    if (figure.log) {
      Object.assign(layout.yaxis, { type: "log", dtick: figure.logStep });
      // Plotly writes powers of ten 1.25 times as large as other labels, and the 2 and 5 between them smaller.
      if (figure.logStep === 1) layout.yaxis.tickfont = { size: layout.font.size / 1.25 };
      else layout.yaxis.tickformat ||= ",~g";
    }
    return Plotly.react(placeOf(id), data, layout, { ...config, toImageButtonOptions: { format: "svg", filename: id } });
  }

  function drawAll() {
    for (const id of Object.keys(figures)) {
      try {
        draw(id);
      } catch (error) {
        console.error("figure " + id + " could not be drawn", error);
        placeOf(id).textContent = "This figure could not be drawn.";
      }
    }
  }

  const themeButton = document.getElementById("theme");

  function setTheme(name) {
    root.dataset.theme = name;
    themeButton.setAttribute("aria-pressed", String(name === "dark"));
    themeButton.textContent = name === "dark" ? "Light" : "Dark";
    drawAll();
  }

  function remembered() {
    try { return localStorage.getItem("stepwell-theme"); } catch { return null; }
  }

  themeButton.addEventListener("click", () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("stepwell-theme", name); } catch { /* private windows refuse storage */ }
    setTheme(name);
  });
  darkSystem.addEventListener("change", (event) => {
    if (!remembered()) setTheme(event.matches ? "dark" : "light");
  });
  window.addEventListener("hashchange", () => {
    const name = location.hash.slice(1);
    if (name === "dark" || name === "light") setTheme(name);
  });

  for (const button of document.querySelectorAll("button.log")) {
    button.addEventListener("click", () => {
      const figure = figures[button.dataset.figure];
      figure.log = !figure.log;
      figure.layout.uirevision = String(figure.log); // a zoom of the other scale would not fit
      button.setAttribute("aria-pressed", String(figure.log));
      draw(button.dataset.figure);
    });
  }

  for (const button of document.querySelectorAll("button.copy")) {
    const name = button.textContent;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.source);
      let copied = true;
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch { // not every browser allows it for a page opened from a file
        const range = document.createRange();
        range.selectNodeContents(source);
        const selection = getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Press Ctrl+C";
      setTimeout(() => { button.textContent = name; }, 1600);
    });
  }

  // Paper is white and narrower than a screen.
  let themeOnScreen = null;
  window.addEventListener("beforeprint", () => {
    themeOnScreen = root.dataset.theme;
    setTheme("light");
    for (const id of Object.keys(figures)) {
      const place = placeOf(id);
      Plotly.relayout(place, { width: Math.min(place.clientWidth, 660) });
    }
  });
  window.addEventListener("afterprint", () => {
    for (const id of Object.keys(figures)) Plotly.relayout(placeOf(id), { width: null, autosize: true });
    setTheme(themeOnScreen || "light");
  });

  setTheme(root.dataset.theme);
  root.dataset.drawn = String(document.querySelectorAll(".js-plotly-plot").length);
})();
