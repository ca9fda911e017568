// Charts of the fitted law, and of how far it misses.
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
        intervalOf(
          view.law.draws.map((p) => lossOf(p, n, d)),
          view.fit.level,
        ),
      );
      data.push({
        ...band(tokens, spans, color),
        fillcolor: color.replace("rgb", "rgba").replace(")", ",0.2)"),
      });
    }
    const losses = tokens.map((d) => lossOf(view.law.p, n, d));
    data.push(
      line(`${lawName(view)} at N ${short(n)}`, tokens, losses, color, {
        width: 1.5,
        showlegend: false,
      }),
    );
  });
  data.push(
    ...runTraces(
      view,
      (run) => run.n_tokens,
      (run) => run.loss_nats,
    ),
  );
  return {
    data,
    layout: layoutOf(view, { title: "training tokens D" }, { title: lossTitle(view) }),
    sentence:
      `Final loss against data, with the ${lawName(view)} at each size` +
      (view.law.draws.length
        ? ` and its ${PERCENT(view.fit.level)} band; `
        : ", without interval; ") +
      "colour is size, dark small, light large.",
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
  const data = [
    {
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
    },
  ];
  const { computes, stars } = lawFrontier(view);
  const path = stars
    .map((star, i) => ({ ...star, c: computes[i] }))
    .filter((star) => star.n >= x[0] && star.n <= x[49] && star.d >= y[0] && star.d <= y[49]);
  data.push(
    line(
      "compute-optimal path",
      path.map((s) => s.n),
      path.map((s) => s.d),
      VERMILION,
      { width: 3 },
    ),
  );
  const lossOfRun = new Map(runs.map((run) => [run.run_id, run.loss_nats]));
  for (const trace of runTraces(view, view.n, (run) => run.n_tokens)) {
    const losses = trace.customdata.map((id) => lossOfRun.get(id));
    const symbol = trace.marker.symbol.replace("-thin", "");
    data.push({
      ...trace,
      marker: {
        symbol,
        size: 9,
        color: losses,
        cmin: zmin,
        cmax: zmax,
        ...scale,
        line: { width: 1.2, color: "white" },
      },
    });
  }
  return {
    data,
    layout: layoutOf(view, { title: nTitle(view) }, { title: "training tokens D" }),
    sentence:
      `The ${lawName(view)} as a surface of loss over size and data; marks are runs on the ` +
      "same colours, the line is the path of least loss at each compute.",
    table: runTable(view),
  };
}

function predictedOf(view, run) {
  return lossOf(view.law.p, view.n(run), run.n_tokens);
}

function missTable(view, runs) {
  return {
    heads: ["run", "predicted", "measured", "measured / predicted − 1"],
    rows: runs.map((run) => [
      run.run_id,
      fixed(predictedOf(view, run)),
      fixed(run.loss_nats),
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
      ...runTraces(
        view,
        (run) => predictedOf(view, run),
        (run) => run.loss_nats,
        (run) => `<br>predicted ${fixed(predictedOf(view, run))}`,
      ),
    ],
    layout: layoutOf(
      view,
      { title: `predicted by the ${lawName(view)}` },
      { title: `measured (${view.study.unit})` },
    ),
    sentence:
      "Measured against predicted loss; the band is twice the RMS residual of the fitted runs, " +
      `${(100 * rms).toFixed(2)}%.`,
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
    layout: layoutOf(
      view,
      { title: cTitle(view) },
      { title: "measured over predicted, %", log: false },
    ),
    sentence:
      "How far every run lies from the law, against compute. Structure here is what the law " +
      "does not describe.",
    table: missTable(view, runs),
  };
}
