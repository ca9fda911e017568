// Elements of the page: tables of data, downloads, the theme.
"use strict";

function htmlTable(heads, rows, caption) {
  const table = document.createElement("table");
  table.createCaption().textContent = caption;
  const head = table.createTHead().insertRow();
  for (const text of heads) head.append(headCell(text));
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const text of cells) row.insertCell().textContent = text;
  }
  return table;
}

function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function fileStem(title) {
  return title.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "") || "report";
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function makeThemeToggle(changed) {
  const button = document.getElementById("theme-toggle");
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `use the ${isDark() ? "light" : "dark"} theme`);
  };
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("report-theme", theme);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
    show();
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    show();
    changed();
  });
  show();
}

const CHART_CONFIG = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["lasso2d", "select2d"],
};

/** Let the browser answer clicks and keys before the next piece of work. */
function breathe() {
  return new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

const NEAR_PX = 400;
const waiting = new Map(); // place of a chart that is not in sight -> what draws it

const watcher =
  typeof IntersectionObserver === "undefined" // where scripts run without a page
    ? null
    : new IntersectionObserver(
        (seen) => {
          for (const { target, isIntersecting } of seen) if (isIntersecting) drawWaiting(target);
        },
        { rootMargin: `${NEAR_PX}px` },
      );

function isNear(place) {
  const { top, bottom } = place.getBoundingClientRect();
  return top < innerHeight + NEAR_PX && bottom > -NEAR_PX;
}

/** Draw a chart if it is in sight or nearly so, else when it comes there. */
async function drawChart(name, make) {
  await breathe();
  const place = document.getElementById(`chart-${name}`);
  place.dataset.drawn = "false";
  waiting.set(place, make);
  watcher.observe(place);
  if (isNear(place)) await drawWaiting(place);
}

async function drawWaiting(place) {
  const make = waiting.get(place);
  if (!make) return;
  waiting.delete(place);
  await drawNow(place, make());
  if (!waiting.has(place)) place.dataset.drawn = "true";
}

/** Draw every chart, as for print. */
function drawAll() {
  for (const place of [...waiting.keys()]) drawWaiting(place);
}

/** Draw a chart with the sentence under it and its numbers in a table. */
async function drawNow(place, chart) {
  const figure = place.closest("figure");
  figure.querySelector("figcaption").textContent = chart.sentence;
  place.setAttribute("aria-label", chart.sentence);
  const details = figure.querySelector("details");
  const fill = () =>
    details
      .querySelector(".wide")
      .replaceChildren(
        htmlTable(
          chart.table.heads,
          chart.table.rows,
          `${figure.querySelector("h3").textContent}: numbers`,
        ),
      );
  details.ontoggle = () => details.open && fill();
  if (details.open) fill();
  await Plotly.react(place, chart.data, chart.layout, CHART_CONFIG);
}
