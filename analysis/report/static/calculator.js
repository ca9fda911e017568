// What the fits say of a compute, or of a size and data: analysis/' own numbers for these draws.
"use strict";

const ENTRY = { "calc-compute": "C", "calc-params": "N", "calc-tokens": "D" };

/** Wire the inputs; returns the function that answers anew under the conventions of a state. */
function makeCalculator(study) {
  let state = null;
  const inputs = Object.keys(ENTRY).map((id) => document.getElementById(id));
  const output = document.getElementById("calc-output");

  function answer() {
    const [c, n, d] = inputs.map((input) => entered(input.value));
    const faults = inputs.filter((input) => Number.isNaN(entered(input.value)));
    for (const input of inputs) input.setAttribute("aria-invalid", String(faults.includes(input)));
    output.replaceChildren();
    if (faults.length)
      return say(output, `${ENTRY[faults[0].id]} is not a positive number, such as 2e12`);
    const found = study.conventions.find((one) => one.n === state.n && one.c === state.c);
    const fit = study.fits[state.n];
    if (!fit.ok) return say(output, `Nothing can be said: ${fit.status}`);
    if (c !== null) return answerCompute(output, study, found, fit, c);
    if (n !== null && d !== null) return answerRun(output, study, found, fit, n, d);
    return say(output, "Enter C, or N and D.");
  }

  // Either C, or N and D: filling in one clears the other.
  inputs.forEach((input, k) =>
    input.addEventListener("input", () => {
      if (input.value.trim())
        for (const other of k === 0 ? inputs.slice(1) : inputs.slice(0, 1)) other.value = "";
      answer();
    }),
  );
  return (changed) => {
    state = changed;
    answer();
  };
}

/** A positive number, null for nothing, NaN for anything else. */
function entered(text) {
  const trimmed = text.trim();
  if (!trimmed) return null;
  const value = Number(trimmed);
  return value > 0 && Number.isFinite(value) ? value : NaN;
}

function say(output, text, name = "p") {
  const element = document.createElement(name);
  element.textContent = text;
  output.append(element);
  return element;
}

/** By what factor values leave the fitted runs, in words; empty inside of them. */
function beyond(range, values) {
  const words = [];
  for (const [letter, value] of Object.entries(values)) {
    const [low, high] = range[letter.toLowerCase()];
    if (value > high) words.push(`${letter} ×${short(value / high)} above the largest`);
    if (value < low) words.push(`${letter} ×${short(low / value)} below the smallest`);
  }
  return words.length
    ? `Extrapolated: ${words.join(", ")} of the fitted runs; ` +
        "no interval knows whether the law holds there."
    : "";
}

function answerRun(output, study, found, fit, n, d) {
  const run = predictRun(fit, n, d);
  const ofSize = found.c.startsWith("6n") ? 6 * n : NaN;
  const perToken = found.ladder ? Math.exp(logFlopsPerToken(found.ladder, Math.log(n))) : ofSize;
  warn(output, beyond(found.range, { N: n, D: d, C: perToken * d }));
  const text =
    `Predicted loss ${fixed(run.loss)} ${study.unit}; ${PERCENT(fit.level)} interval of the mean ` +
    `${spanText(run.mean, fixed)}, of one new run ${spanText(run.newRun, fixed)}.`;
  const element = say(output, text);
  Object.assign(element.dataset, {
    loss: run.loss,
    mean: JSON.stringify(run.mean),
    newRun: JSON.stringify(run.newRun),
  });
  say(output, drawsText(fit));
}

function answerCompute(output, study, found, fit, c) {
  const rows = [
    ...found.approaches.map((approach) => approachRow(approach, fit, c)),
    ...lawRows(found, fit, c),
  ];
  const star = rows.find((row) => row.isMain && Number.isFinite(row.n));
  warn(output, beyond(found.range, star ? { C: c, N: star.n, D: star.d } : { C: c }));
  const heads = [
    "approach",
    "optimal N",
    "optimal D",
    `loss (${study.unit})`,
    "of the mean",
    "of one new run",
  ];
  const table = htmlTable(
    heads,
    rows.map((row) => [
      row.name,
      ...(Number.isFinite(row.n)
        ? [
            `${short(row.n)} ${spanText(row.nInterval, short)}`,
            `${short(row.d)} ${spanText(row.dInterval, short)}`,
            fixed(row.loss),
            spanText(row.mean, fixed),
            spanText(row.newRun, fixed),
          ]
        : [row.status, "–", "–", "–", "–"]),
    ]),
    `At C = ${short(c)} FLOPs (${found.c}), ${PERCENT(fit.level)} intervals`,
  );
  [...table.tBodies[0].rows].forEach((line, k) => {
    const { n, d, loss, nInterval, dInterval, mean, newRun } = rows[k];
    Object.assign(line.dataset, {
      approach: rows[k].approach,
      values: JSON.stringify({ n, d, loss, nInterval, dInterval, mean, newRun }),
    });
  });
  output.append(table);
  say(output, drawsText(fit));
}

function approachRow(approach, fit, c) {
  const name = `${approach.approach}: ${approach.method}`;
  if (!approach.ok) return { name, approach: approach.approach, n: NaN, status: approach.status };
  const star = powerLawAt(approach, fit.level, c);
  return { name, approach: approach.approach, ...star, ...predictRun(fit, star.n, star.d) };
}

function lawRows(found, fit, c) {
  const ways = [["3: law, if C = 6ND", null, !found.ladder]];
  if (found.ladder) ways.push(["3: law, exact FLOPs of the sizes trained", found.ladder, true]);
  return ways.map(([name, ladder, isMain]) => {
    const star = optimumWithIntervals(fit, ladder, c);
    const status = "no optimum inside of the sizes trained";
    const run = Number.isFinite(star.n) ? predictRun(fit, star.n, star.d) : {};
    return { name, approach: ladder ? "3 exact" : "3", isMain, status, ...star, ...run };
  });
}

function warn(output, text) {
  if (!text) return;
  const element = say(output, text);
  element.className = "warning";
}

function drawsText(fit) {
  return (
    `Intervals: ${fit.draws.length} of the fit's ${fit.n_draws_made} draws (${fit.method}). ` +
    "The fit is that of all runs, hidden or not."
  );
}
