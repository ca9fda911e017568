// Wires the page: its state, its controls, and what is drawn anew when they change.
"use strict";

const CHARTS = {
  compute: computeChart,
  isoflop: isoflopChart,
  law: lawChart,
  surface: surfaceChart,
  allocation: allocationChart,
  exponents: exponentsChart,
  predicted: predictedChart,
  residuals: residualsChart,
  heldout: heldOutChart,
  curves: curvesChart,
};

async function main() {
  const payload = JSON.parse(document.getElementById("report-data").textContent);
  const study = studyOf(payload);
  const [n, c] = study.headline;
  const state = { n, c, scale: "log", hiddenRuns: new Set(), hiddenSizes: new Set() };

  const draw = async () => {
    const view = viewOf(study, state);
    const law = document.getElementById("law-text");
    law.textContent = lawText(view);
    law.dataset.refit = String(view.law.isRefit);
    law.dataset.parameters = JSON.stringify(view.law.p);
    for (const [name, chart] of Object.entries(CHARTS)) {
      await drawChart(name, chart(view));
    }
  };
  let waiting = Promise.resolve();
  const changed = () => {
    document.body.dataset.ready = "false";
    waiting = waiting.then(draw).then(() => {
      document.body.dataset.ready = "true";
    });
    return waiting;
  };

  makeConventions(study, state, () => {
    changed();
    answer();
  });
  const drawTable = makeRunTable(study, state, changed);
  const answer = makeCalculator(study, state);
  makeSizes(study, state, changed);
  document.getElementById("show-all").addEventListener("click", () => {
    state.hiddenRuns.clear();
    state.hiddenSizes.clear();
    for (const box of document.querySelectorAll("#sizes input")) box.checked = true;
    drawTable();
    changed();
  });
  document.getElementById("runs-hide-others").addEventListener("click", drawTable);
  makeDownloads(study);
  makeThemeToggle(changed);
  drawTable();
  await changed();
}

function makeConventions(study, state, changed) {
  const choices = document.getElementById("n-convention");
  const computes = document.getElementById("c-convention");
  const scale = document.getElementById("axis-scale");
  const option = (value, text) => new Option(text, value);
  const ofN = () => study.conventions.filter((found) => found.n === state.n);
  const fillC = () => {
    computes.replaceChildren(...ofN().map((found) => option(found.c, `${found.c}: ${found.c_meaning}`)));
    if (!ofN().some((found) => found.c === state.c)) state.c = ofN()[0].c;
    computes.value = state.c;
  };
  const byN = new Map(study.conventions.map((found) => [found.n, found.n_meaning]));
  choices.replaceChildren(...[...byN].map(([name, meaning]) => option(name, `${name}: ${meaning}`)));
  choices.value = state.n;
  fillC();
  choices.addEventListener("change", () => {
    state.n = choices.value;
    fillC();
    changed();
  });
  computes.addEventListener("change", () => {
    state.c = computes.value;
    changed();
  });
  scale.addEventListener("change", () => {
    state.scale = scale.value;
    changed();
  });
}

function makeSizes(study, state, changed) {
  document.getElementById("sizes").append(...study.sizes.map((size) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.id = `size-${size.name}`;
    box.addEventListener("change", () => {
      if (box.checked) state.hiddenSizes.delete(size.name);
      else state.hiddenSizes.add(size.name);
      changed();
    });
    label.append(box, ` ${size.name} (${short(size.n)})`);
    return label;
  }));
}

function makeDownloads(study) {
  const stem = fileStem(study.title);
  const names = study.columns.map(({ name }) => name);
  const rows = study.runs.map((run) => Object.fromEntries(names.map((name) => [name, run[name] ?? null])));
  const { fits, conventions } = study;
  const on = (id, act) => document.getElementById(id).addEventListener("click", act);
  on("download-csv", () => download(`${stem}-runs.csv`, csvOf(rows, names), "text/csv"));
  on("download-json", () => download(`${stem}-runs.json`, JSON.stringify(rows, null, 1), "application/json"));
  on("download-fits", () =>
    download(`${stem}-fits.json`, JSON.stringify({ fits, conventions }, null, 1), "application/json"));
}

main();
