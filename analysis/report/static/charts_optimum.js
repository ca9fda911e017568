// Charts of the optimal size by every approach, and of the prediction of the held-out run.
"use strict";

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
      data.push(
        band(
          computes,
          stars.map((s) => s.nInterval),
          color,
        ),
      );
      data.push(
        line(
          chartText(name),
          computes,
          stars.map((s) => s.n),
          color,
          { dash: ["dash", "dashdot"][k] },
        ),
      );
    }
    rows.push([
      name,
      approach.ok ? fixed(approach.a, 3) : "–",
      spanText(approach.intervals.a, (v) => fixed(v, 3)),
      approach.status,
    ]);
  });
  if (view.law.p) {
    const { stars, bands } = lawFrontier(view);
    if (bands) data.push(band(computes, bands.n, VERMILION));
    const name = `approach 3: ${lawName(view)}`;
    data.push(
      line(
        name,
        computes,
        stars.map((s) => s.n),
        VERMILION,
      ),
    );
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
    sentence:
      "Optimal size against compute by three approaches, drawn on to ten times the largest " +
      "run, with bands; grey lines have published slopes, at another scale and through the middle.",
    table: { heads: ["approach", "exponent a", "interval", "status"], rows },
  };
}

function publishedSlopes(view, computes) {
  const middle = Math.sqrt(computes[0] * computes[computes.length - 1]);
  const through = view.law.p
    ? view.optimum(Math.sqrt(view.convention.range.c[0] * view.convention.range.c[1]))
    : null;
  const [low, high] = extent(view.study.runs.map(view.n));
  const [c0, n0] =
    through && Number.isFinite(through.n)
      ? [Math.sqrt(view.convention.range.c[0] * view.convention.range.c[1]), through.n]
      : [middle, Math.sqrt(low * high)];
  return view.study.published
    .filter(({ label }) => label === "Kaplan 2020" || label.startsWith("Hoffmann 2022, approach 1"))
    .map(({ label, a }, k) =>
      line(
        `${label}: a = ${a}`,
        computes,
        computes.map((c) => n0 * (c / c0) ** a),
        GREY,
        { width: 1, dash: ["dot", "longdash"][k] },
      ),
    );
}

function exponentsChart(view) {
  const { conventions, published } = view.study;
  const methods = [...new Set(conventions.flatMap((c) => c.exponents.map((e) => e.method)))];
  const found = conventions.flatMap((c, row) =>
    c.exponents.map((e) => ({
      ...e,
      where: `N ${c.n}, C ${c.c}`,
      row,
      k: methods.indexOf(e.method),
    })),
  );
  const data = methods.map((method, k) =>
    exponentTrace(
      method,
      k,
      found.filter((e) => e.k === k && Number.isFinite(e.a)),
      methods.length,
    ),
  );
  const marks = published.filter(({ label }) => /^(Kaplan|Hoffmann)/.test(label));
  const shapes = marks.map(({ a, label }) =>
    verticalLine(a, GREY, label.startsWith("Kaplan") ? "solid" : "dash"),
  );
  const layout = layoutOf(
    view,
    { title: "exponent a of N* ~ C^a", log: false },
    rowAxis(conventions.map((c) => `N ${c.n}<br>C ${c.c}`)),
    { shapes },
  );
  return {
    data,
    layout,
    sentence:
      "The exponent of the optimal size by method and count, all runs, with intervals; " +
      "solid line Kaplan 2020, dashed Hoffmann 2022, at other scales.",
    table: {
      heads: ["count", "method", "a", "interval", "status"],
      rows: found.map((e) => [
        e.where,
        e.method,
        fixed(e.a, 3),
        spanText(e.interval, (v) => fixed(v, 3)),
        e.status,
      ]),
    },
  };
}

const METHOD_LOOKS = [
  ["circle", BLUE],
  ["square", VERMILION],
  ["diamond", GREEN],
];

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
      type: "data",
      symmetric: false,
      color,
      thickness: 2,
      width: 0,
      array: found.map((e) => side(e, 1)),
      arrayminus: found.map((e) => side(e, 0)),
    },
    text: found.map(
      (e) =>
        `${e.where}: a ${fixed(e.a, 3)} ${spanText(e.interval, (v) => fixed(v, 3))}` +
        `<br>${chartText(e.status)}`,
    ),
    hovertemplate: "%{text}<extra></extra>",
    marker: { symbol, size: 9, color },
  };
}

/** A vertical axis of named rows, the first on top. */
function rowAxis(names) {
  return {
    title: "",
    log: false,
    range: [names.length - 0.5, -0.5],
    tickvals: names.map((_, i) => i),
    ticktext: names,
    zeroline: false,
  };
}

function verticalLine(x, color, dash = "solid", width = 1) {
  return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color, width, dash } };
}

/** The prediction hangs on the count of N alone, so each count is one row. */
function heldOutChart(view) {
  const byN = new Map(
    view.study.conventions.filter((c) => c.held_out).map((c) => [c.n, c.held_out]),
  );
  if (!byN.size) return emptyChart(view, "no held-out run has been predicted yet");
  const rows = [...byN].map(([n, found], row) => ({ n, row, ...found }));
  const known = rows.filter((found) => found.ok);
  const spans = (name, width, color, label) =>
    known.map((found, k) =>
      line(label, found[name], [found.row, found.row], color, {
        width,
        showlegend: k === 0,
        hovertemplate: `${label} ${spanText(found[name], fixed)}<extra></extra>`,
      }),
    );
  if (!known.length) return emptyChart(view, `no prediction: ${rows[0].status}`);
  const { measured } = rows[0];
  const data = [
    ...spans("new_run_interval", 6, "#56b4e9", "interval of one new run"),
    ...spans("mean_interval", 12, BLUE, "interval of the mean"),
    {
      type: "scatter",
      mode: "markers",
      name: "predicted",
      x: known.map((found) => found.loss_nats),
      y: known.map((found) => found.row),
      hovertemplate: "predicted %{x:.4f}<extra></extra>",
      marker: { color: "white", size: 9, line: { width: 1.5, color: "black" } },
    },
  ];
  const shapes = measured === null ? [] : [verticalLine(measured, VERMILION, "solid", 2)];
  const verdict = { true: "hit", false: "MISS", null: "not scored" };
  return {
    data,
    layout: layoutOf(
      view,
      { title: lossTitle(view), log: false },
      rowAxis(rows.map(({ n }) => `N ${n}`)),
      { shapes },
    ),
    sentence:
      "The held-out run: predicted with intervals under each count of N" +
      `${measured === null ? "; not trained yet" : `; measured ${fixed(measured)} (line)`}.`,
    table: {
      heads: ["count", "predicted", "one new run", "measured", "verdict"],
      rows: rows.map((found) => [
        `N ${found.n}`,
        fixed(found.loss_nats),
        spanText(found.new_run_interval, fixed),
        fixed(found.measured),
        verdict[found.is_hit],
      ]),
    },
  };
}
