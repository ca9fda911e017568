// What is shown: one study under one convention, without the runs and sizes that are hidden.
"use strict";

/** Runs with their place, and what a chart says of each. */
function studyOf(payload) {
  const runs = payload.runs.map((run, index) => ({ ...run, index }));
  for (const run of runs) {
    const spec = [
      `${run.n_layers} layers × ${run.d_model}`,
      isMissing(run.lr) ? "" : `lr ${cellText(run.lr)}`,
      isMissing(run.batch_tokens) ? "" : `batch ${short(run.batch_tokens)}`,
      isMissing(run.seed_init) ? "" : `seed ${run.seed_init}`,
      run.idea ? run.idea : "",
    ];
    run.size = `${run.n_layers}x${run.d_model}`;
    run.label =
      chartText(`${run.run_id} (${run.role})`) +
      "<br>" +
      chartText(spec.filter(Boolean).join(", "));
  }
  const sizes = [...new Map(runs.map((run) => [run.size, run])).values()]
    .sort((a, b) => a.n_params_total - b.n_params_total)
    .map((run) => ({ name: run.size, n: run.n_params_total }));
  return { ...payload, runs, sizes };
}

/**
 * Everything a chart reads. `law` is the fit made in Python, or, where fitted runs are hidden, the
 * refit made here: then it has no draws and so no interval.
 */
function viewOf(study, state) {
  const found = study.conventions.find((c) => c.n === state.n && c.c === state.c);
  const fit = study.fits[state.n];
  const n = (run) => run[`n_params_${state.n}`];
  const c = (run) => run[`train_flops_${state.c}`];
  const isShown = (run) => !state.hiddenRuns.has(run.run_id) && !state.hiddenSizes.has(run.size);
  const runs = study.runs.filter(isShown);
  const isFitted = new Set(found.fitted);
  const used = runs.filter((run) => isFitted.has(run.index));
  const law = lawOf(fit, used, found, n);
  const optimum = (flops) => optimumOf(law.p, found.ladder, flops);
  const shown = new Set(runs.map((run) => run.index));
  const curves = study.curves.filter((curve) => shown.has(curve.run));
  const sizeExtent = extent(study.runs.map(n)) ?? [1, 1];
  return {
    ...{ study, state, convention: found, fit, law, runs, used, isFitted },
    ...{ n, c, optimum, curves, sizeExtent },
  };
}

function lawOf(fit, used, convention, n) {
  if (used.length === convention.fitted.length) {
    const p = fit.ok ? fit.parameters : null;
    return { p, draws: fit.draws, isRefit: false, status: fit.status };
  }
  const points = used.map((run) => ({ n: n(run), d: run.n_tokens, loss: run.loss_nats }));
  const found = refit(points, fit.ok ? fit.parameters : null);
  return { p: found.p, draws: [], isRefit: true, status: found.status };
}

/** The law in words: made in Python with intervals, or here without. */
function lawText(view) {
  const { fit, law, used, convention } = view;
  const all = convention.fitted.length;
  const where = `N ${convention.n}, C ${convention.c}`;
  if (!law.isRefit) return `${where}. ${fit.text}. ${fit.n_rows} runs; ${fit.status}.`;
  const count = `${used.length} of ${all} runs`;
  const head = `${where}. Refitted here on ${count} (least squares in log loss)`;
  if (!law.p) return `${head}: no law, ${law.status}.`;
  const numbers = fit.names.map((name, i) => `${name} ${short(law.p[i])}`).join(", ");
  return `${head}, without interval: ${fit.equation}: ${numbers}; ${law.status}.`;
}

/** Even steps in the log between two positive numbers. */
function steps(low, high, count) {
  const ratio = Math.log(high / low) / (count - 1);
  return Array.from({ length: count }, (_, i) => low * Math.exp(i * ratio));
}

/** Smallest and largest finite number; null if there is none. */
function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) {
    if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
  }
  return low <= high ? [low, high] : null;
}

// Small to large; on a dark page both palettes begin where they can be seen.
const VIRIDIS = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
];
const VIRIDIS_ON_DARK = [
  "#5b74b8",
  "#3f8fae",
  "#2fa8a0",
  "#3fbc83",
  "#6ece58",
  "#a5db36",
  "#d8e219",
  "#fde725",
];

/** Colour of a size among all sizes of a study, by its log. */
function sizeColor(view, n) {
  const [low, high] = view.sizeExtent;
  const share = high > low ? Math.log(n / low) / Math.log(high / low) : 0.5;
  return mixed(isDark() ? VIRIDIS_ON_DARK : VIRIDIS, share);
}

/** The colour at a share of a palette, mixed of its two neighbours. */
function mixed(palette, share) {
  const at = Math.min(Math.max(share, 0), 1) * (palette.length - 1);
  const i = Math.min(Math.floor(at), palette.length - 2);
  const parts = [1, 3, 5].map((k) => {
    const [a, b] = [palette[i], palette[i + 1]].map((hex) => parseInt(hex.slice(k, k + 2), 16));
    return Math.round(a + (at - i) * (b - a));
  });
  return `rgb(${parts.join(",")})`;
}
