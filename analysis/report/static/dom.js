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

/** Draw what `make` gives, with the sentence under it and its numbers in a table. */
async function drawChart(name, make) {
  await breathe();
  const chart = make();
  const place = document.getElementById(`chart-${name}`);
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
