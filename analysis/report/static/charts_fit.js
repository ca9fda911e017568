// Charts of the fitted law, of what it allocates, and of how far it misses.
"use strict";

function noLaw(view) {
  return emptyChart(view, `no law to draw: ${view.law.status}`);
}

function lawChart(view) {
  if (!view.law.p) return noLaw(view);
  const runs = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  if (!runs.length) return emptyChart(view, "every run is hidden");
  const [low, high] = extent(runs.map((run) => run.n_tokens));
  const tokens = steps(low / 1.3, high * 1.3, N_STEPS);
  const sizes = [...new Set(view.used.map(view.n))].sort((a, b) => a - b);
  const every = Math.ceil(sizes.length / MOST_BANDS);
  const data = [];
  sizes.forEach((n, k) => {
    const color = sizeColor(view, n);
    if (k % every === 0 && view.law.draws.length) {
      const spans = tokens.map((d) =>
        intervalOf(view.law.draws.map((p) => lossOf(p, n, d)), view.fit.level));
      data.push({ ...band(tokens, spans, color), fillcolor: color.replace("rgb", "rgba").replace(")", ",0.2)") });
    }
    const losses = tokens.map((d) => lossOf(view.law.p, n, d));
    data.push(line(`${lawName(view)} at N ${short(n)}`, tokens, losses, color, { width: 1.5, showlegend: false }));
  });
  data.push(...runTraces(view, (run) => run.n_tokens, (run) => run.loss_nats));
  return {
    data,
    layout: layoutOf(view, { title: "training tokens D" }, { title: lossTitle(view) }),
    sentence: `Final loss against data, with the ${lawName(view)} at each size`
      + `${view.law.draws.length ? ` and its ${PERCENT(view.fit.level)} band` : ", without interval"}; `
      + "colour is size, dark small, light large.",
    table: runTable(view),
  };
}

function surfaceChart(view) {
  if (!view.law.p) return noLaw(view);
  const runs = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  if (!runs.length) return emptyChart(view, "every run is hidden");
  const [nLow, nHigh] = extent(runs.map(view.n));
  const [dLow, dHigh] = extent(runs.map((run) => run.n_tokens));
  const [x, y] = [steps(nLow / 1.3, nHigh * 1.3, 50), steps(dLow / 1.3, dHigh * 1.3, 50)];
  const [zmin, zmax] = extent(runs.map((run) => run.loss_nats));
  const scale = { colorscale: "Cividis", reversescale: true };
  const data = [{
    type: "contour",
    x,
    y,
    z: y.map((d) => x.map((n) => lossOf(view.law.p, n, d))),
    ...scale,
    zmin,
    zmax,
    ncontours: 14,
    line: { width: 0.5, color: "white" },
    colorbar: { title: { text: "loss" }, thickness: 12, len: 0.9 },
    hovertemplate: "N %{x:.3s}, D %{y:.3s}<br>law %{z:.4f}<extra></extra>",
  }];
  const { computes, stars } = lawFrontier(view);
  const path = stars.map((star, i) => ({ ...star, c: computes[i] }))
    .filter((star) => star.n >= x[0] && star.n <= x[49] && star.d >= y[0] && star.d <= y[49]);
  data.push(line("compute-optimal path", path.map((s) => s.n), path.map((s) => s.d), VERMILION, { width: 3 }));
  for (const trace of runTraces(view, view.n, (run) => run.n_tokens)) {
    const losses = trace.customdata.map((id) => runs.find((run) => run.run_id === id).loss_nats);
    const symbol = trace.marker.symbol.replace("-thin", "");
    data.push({ ...trace, marker: { symbol, size: 9, color: losses, cmin: zmin, cmax: zmax, ...scale, line: { width: 1.2, color: "white" } } });
  }
  return {
    data,
    layout: layoutOf(view, { title: nTitle(view) }, { title: "training tokens D" }),
    sentence: `The ${lawName(view)} as a surface of loss over size and data; marks are runs on the `
      + "same colours, the line is the path of least loss at each compute.",
    table: runTable(view),
  };
}

function allocationChart(view) {
  if (!view.convention.range.c.length) return emptyChart(view, "no run is fitted");
  const [low, high] = view.convention.range.c;
  const computes = steps(low, 10 * high, N_STEPS);
  const all = view.law.isRefit ? ", all runs" : "";
  const data = [];
  const rows = [];
  view.convention.approaches.forEach((approach, k) => {
    const name = `approach ${approach.approach}: ${approach.method}${all}`;
    if (approach.ok) {
      const stars = computes.map((c) => powerLawAt(approach, view.fit.level, c));
      const color = [GREEN, BLUE][k];
      data.push(band(computes, stars.map((s) => s.nInterval), color));
      data.push(line(chartText(name), computes, stars.map((s) => s.n), color, { dash: ["dash", "dashdot"][k] }));
    }
    rows.push([name, approach.ok ? fixed(approach.a, 3) : "–", spanText(approach.intervals.a, (v) => fixed(v, 3)), approach.status]);
  });
  if (view.law.p) {
    const { stars, bands } = lawFrontier(view);
    if (bands) data.push(band(computes, bands.n, VERMILION));
    const name = `approach 3: ${lawName(view)}`;
    data.push(line(name, computes, stars.map((s) => s.n), VERMILION));
    rows.push([name, fixed(closedAllocation(view.law.p).a, 3), "see exponents", view.law.status]);
  }
  const minima = view.convention.minima.filter((m) => m.ok);
  data.push({
    type: "scatter",
    mode: "markers",
    name: "isoFLOP minima",
    x: minima.map((m) => m.train_flops),
    y: minima.map((m) => m.n_params),
    text: minima.map((m) => `budget ${short(m.budget)}: N* ${short(m.n_params)}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: { symbol: "star", size: 14, color: BLUE },
  });
  data.push(...publishedSlopes(view, computes));
  return {
    data,
    layout: layoutOf(view, { title: cTitle(view) }, { title: `optimal size N* (${view.state.n})` }),
    sentence: "Optimal size against compute by three approaches, drawn on to ten times the largest "
      + "run, with bands; grey lines have published slopes, at another scale and through the middle.",
    table: { heads: ["approach", "exponent a", "interval", "status"], rows },
  };
}

function publishedSlopes(view, computes) {
  const middle = Math.sqrt(computes[0] * computes[computes.length - 1]);
  const through = view.law.p ? view.optimum(Math.sqrt(view.convention.range.c[0] * view.convention.range.c[1])) : null;
  const [low, high] = extent(view.study.runs.map(view.n));
  const [c0, n0] = through && Number.isFinite(through.n)
    ? [Math.sqrt(view.convention.range.c[0] * view.convention.range.c[1]), through.n]
    : [middle, Math.sqrt(low * high)];
  return view.study.published
    .filter(({ label }) => label === "Kaplan 2020" || label.startsWith("Hoffmann 2022, approach 1"))
    .map(({ label, a }, k) => line(
      `${label}: a = ${a}`, computes, computes.map((c) => n0 * (c / c0) ** a), GREY,
      { width: 1, dash: ["dot", "longdash"][k] },
    ));
}

function predictedOf(view, run) {
  return lossOf(view.law.p, view.n(run), run.n_tokens);
}

function missTable(view, runs) {
  return {
    heads: ["run", "predicted", "measured", "measured / predicted − 1"],
    rows: runs.map((run) => [
      run.run_id, fixed(predictedOf(view, run)), fixed(run.loss_nats),
      `${(100 * (run.loss_nats / predictedOf(view, run) - 1)).toFixed(2)}%`,
    ]),
  };
}

/** Root mean square of the log residuals of the fitted runs that are shown. */
function rmsOf(view) {
  const squares = view.used.map((run) => Math.log(run.loss_nats / predictedOf(view, run)) ** 2);
  return Math.sqrt(squares.reduce((a, b) => a + b, 0) / squares.length);
}

function predictedChart(view) {
  const runs = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  if (!view.law.p || !runs.length) return noLaw(view);
  const [low, high] = extent(runs.flatMap((run) => [run.loss_nats, predictedOf(view, run)]));
  const ends = [low / 1.02, high * 1.02];
  const rms = rmsOf(view);
  const spans = ends.map((v) => [v * Math.exp(-2 * rms), v * Math.exp(2 * rms)]);
  return {
    data: [
      band(ends, spans, GREY),
      line("measured as predicted", ends, ends, GREY, { width: 1 }),
      ...runTraces(view, (run) => predictedOf(view, run), (run) => run.loss_nats,
        (run) => `<br>predicted ${fixed(predictedOf(view, run))}`),
    ],
    layout: layoutOf(view, { title: `predicted by the ${lawName(view)}` }, { title: `measured (${view.study.unit})` }),
    sentence: `Measured against predicted loss; the band is twice the RMS residual of the fitted runs, ${(100 * rms).toFixed(2)}%.`,
    table: missTable(view, runs),
  };
}

function residualsChart(view) {
  const runs = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  if (!view.law.p || !runs.length) return noLaw(view);
  const miss = (run) => 100 * (run.loss_nats / predictedOf(view, run) - 1);
  const ends = extent(runs.map(view.c));
  return {
    data: [
      line("no miss", ends, [0, 0], GREY, { width: 1 }),
      ...runTraces(view, view.c, miss, (run) => `<br>${miss(run).toFixed(2)}% from the law`),
    ],
    layout: layoutOf(view, { title: cTitle(view) }, { title: "measured over predicted, %", log: false }),
    sentence: "How far every run lies from the law, against compute. Structure here is what the law "
      + "does not describe.",
    table: missTable(view, runs),
  };
}

function exponentsChart(view) {
  const { conventions, published } = view.study;
  const methods = [...new Set(conventions.flatMap((c) => c.exponents.map((e) => e.method)))];
  const found = conventions.flatMap((c, row) =>
    c.exponents.map((e) => ({ ...e, where: `N ${c.n}, C ${c.c}`, row, k: methods.indexOf(e.method) })));
  const data = methods.map((method, k) =>
    exponentTrace(method, k, found.filter((e) => e.k === k && Number.isFinite(e.a)), methods.length));
  const marks = published.filter(({ label }) => /^(Kaplan|Hoffmann)/.test(label));
  const shapes = marks.map(({ a, label }) => verticalLine(a, GREY, label.startsWith("Kaplan") ? "solid" : "dash"));
  const layout = layoutOf(view, { title: "exponent a of N* ~ C^a", log: false }, rowAxis(conventions.map((c) => `N ${c.n}<br>C ${c.c}`)), { shapes });
  return {
    data,
    layout,
    sentence: "The exponent of the optimal size by method and count, all runs, with intervals; "
      + "solid line Kaplan 2020, dashed Hoffmann 2022, at other scales.",
    table: {
      heads: ["count", "method", "a", "interval", "status"],
      rows: found.map((e) => [e.where, e.method, fixed(e.a, 3), spanText(e.interval, (v) => fixed(v, 3)), e.status]),
    },
  };
}

const METHOD_LOOKS = [["circle", BLUE], ["square", VERMILION], ["diamond", GREEN]];

/** One method over all counts; methods of a row stand under each other. */
function exponentTrace(method, k, found, count) {
  const [symbol, color] = METHOD_LOOKS[k % METHOD_LOOKS.length];
  const side = (e, i) => (Number.isFinite(e.interval[i]) ? Math.abs(e.interval[i] - e.a) : 0);
  return {
    type: "scatter",
    mode: "markers",
    name: chartText(method),
    x: found.map((e) => e.a),
    y: found.map((e) => e.row + 0.22 * (k - (count - 1) / 2)),
    error_x: {
      type: "data", symmetric: false, color, thickness: 2, width: 0,
      array: found.map((e) => side(e, 1)), arrayminus: found.map((e) => side(e, 0)),
    },
    text: found.map((e) => `${e.where}: a ${fixed(e.a, 3)} ${spanText(e.interval, (v) => fixed(v, 3))}<br>${chartText(e.status)}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: { symbol, size: 9, color },
  };
}

/** A vertical axis of named rows, the first on top. */
function rowAxis(names) {
  return {
    title: "", log: false, range: [names.length - 0.5, -0.5], tickvals: names.map((_, i) => i),
    ticktext: names, zeroline: false,
  };
}

function verticalLine(x, color, dash = "solid", width = 1) {
  return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color, width, dash } };
}

/** The prediction hangs on the count of N alone, so each count is one row. */
function heldOutChart(view) {
  const byN = new Map(view.study.conventions.filter((c) => c.held_out).map((c) => [c.n, c.held_out]));
  if (!byN.size) return emptyChart(view, "no held-out run has been predicted yet");
  const rows = [...byN].map(([n, found], row) => ({ n, row, ...found }));
  const known = rows.filter((found) => found.ok);
  const spans = (name, width, color, label) => known.map((found, k) => line(
    label, found[name], [found.row, found.row], color,
    { width, showlegend: k === 0, hovertemplate: `${label} ${spanText(found[name], fixed)}<extra></extra>` },
  ));
  const { measured } = rows[0];
  const data = [
    ...spans("new_run_interval", 6, "#56b4e9", "interval of one new run"),
    ...spans("mean_interval", 12, BLUE, "interval of the mean"),
    {
      type: "scatter", mode: "markers", name: "predicted", x: known.map((found) => found.loss_nats),
      y: known.map((found) => found.row), hovertemplate: "predicted %{x:.4f}<extra></extra>",
      marker: { color: "white", size: 9, line: { width: 1.5, color: "black" } },
    },
  ];
  const shapes = measured === null ? [] : [verticalLine(measured, VERMILION, "solid", 2)];
  const verdict = { true: "hit", false: "MISS", null: "not scored" };
  return {
    data,
    layout: layoutOf(view, { title: lossTitle(view), log: false }, rowAxis(rows.map(({ n }) => `N ${n}`)), { shapes }),
    sentence: "The held-out run: predicted with intervals under each count of N"
      + `${measured === null ? "; not trained yet" : `; measured ${fixed(measured)} (line)`}.`,
    table: {
      heads: ["count", "predicted", "one new run", "measured", "verdict"],
      rows: rows.map((found) => [
        `N ${found.n}`, fixed(found.loss_nats), spanText(found.new_run_interval, fixed),
        fixed(found.measured), verdict[found.is_hit],
      ]),
    },
  };
}
