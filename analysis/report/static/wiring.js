// Controls that every page has, and the order in which things are drawn anew.
"use strict";

/**
 * Make the controls over a study and draw. `drawCharts(state)` draws all charts; `onConvention` is
 * called, too, when the count of N or C changes. Resolves when the first drawing is done, and sets
 * data-ready of the body whenever the page shows its state.
 */
async function wire(study, headline, drawCharts, onConvention = () => {}) {
  const [n, c] = headline;
  const state = { n, c, scale: "log", hiddenRuns: new Set(), hiddenSizes: new Set() };
  let waiting = Promise.resolve();
  let newest = 0;
  const changed = () => {
    const own = ++newest;
    document.body.dataset.ready = "false";
    // Of changes that come faster than charts are drawn only the last is drawn.
    waiting = waiting
      .then(() => (own === newest ? drawCharts(state) : null))
      .then(() => {
        if (own === newest) document.body.dataset.ready = "true";
      });
    return waiting;
  };
  makeConventions(study, state, () => {
    onConvention(state);
    changed();
  });
  const drawTable = makeRunTable(study, state, changed);
  makeSizes(study, state, changed);
  document.getElementById("show-all").addEventListener("click", () => {
    state.hiddenRuns.clear();
    state.hiddenSizes.clear();
    for (const box of document.querySelectorAll("#sizes input")) box.checked = true;
    drawTable();
    changed();
  });
  makeDownloads(study);
  makeThemeToggle(changed);
  addEventListener("beforeprint", drawAll);
  onConvention(state);
  const drawn = changed();
  await drawn.then(drawTable); // a thousand rows are work, and stand below the charts
}

/** The law in words, and as data for whoever reads the page by a program. */
function showLaw(text, views) {
  const law = document.getElementById("law-text");
  law.textContent = text;
  law.dataset.refit = String(views.some((view) => view.law.isRefit));
  law.dataset.parameters = JSON.stringify(views.map((view) => view.law.p));
}

function makeConventions(study, state, changed) {
  const choices = document.getElementById("n-convention");
  const computes = document.getElementById("c-convention");
  const scale = document.getElementById("axis-scale");
  const option = (value, text) => new Option(text, value);
  const ofN = () => study.conventions.filter((found) => found.n === state.n);
  const fillC = () => {
    computes.replaceChildren(
      ...ofN().map((found) => option(found.c, `${found.c}: ${found.c_meaning}`)),
    );
    if (!ofN().some((found) => found.c === state.c)) state.c = ofN()[0].c;
    computes.value = state.c;
  };
  const byN = new Map(study.conventions.map((found) => [found.n, found.n_meaning]));
  choices.replaceChildren(
    ...[...byN].map(([name, meaning]) => option(name, `${name}: ${meaning}`)),
  );
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
  document.getElementById("sizes").append(
    ...study.sizes.map((size) => {
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
    }),
  );
}

function makeDownloads(study) {
  const stem = fileStem(study.title);
  const names = study.columns.map(({ name }) => name);
  const rows = study.runs.map((run) =>
    Object.fromEntries(names.map((name) => [name, run[name] ?? null])),
  );
  const { fits, conventions } = study;
  const on = (id, act) => document.getElementById(id).addEventListener("click", act);
  on("download-csv", () => download(`${stem}-runs.csv`, csvOf(rows, names), "text/csv"));
  on("download-json", () =>
    download(`${stem}-runs.json`, JSON.stringify(rows, null, 1), "application/json"),
  );
  on("download-fits", () =>
    download(
      `${stem}-fits.json`,
      JSON.stringify({ fits, conventions }, null, 1),
      "application/json",
    ),
  );
}
