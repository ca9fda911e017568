// Charts of measured losses with the law through them.
"use strict";

const RUN_HEADS = ["run", "N", "D", "C", "loss", "in the fit"];
const N_STEPS = 40;
const MOST_BANDS = 10;

function runTable(view) {
  const known = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  const row = (run) => [
    run.run_id,
    short(view.n(run)),
    short(run.n_tokens),
    short(view.c(run)),
    fixed(run.loss_nats),
    run.state,
  ];
  return { heads: RUN_HEADS, rows: known.map(row) };
}

const lossTitle = (view) => `validation loss (${view.study.unit})`;
const nTitle = (view) => `parameters N (${view.state.n})`;
const cTitle = (view) => `training compute C (FLOPs, ${view.state.c})`;

/** Curves of one size as one trace with gaps; x is a function of (run, tokens). */
function curveTraces(view, x) {
  const bySize = Map.groupBy(view.curves, (curve) => view.study.runs[curve.run].size);
  return [...bySize.values()].map((curves) => {
    const runs = curves.map((curve) => view.study.runs[curve.run]);
    const [xs, ys, texts] = [[], [], []];
    curves.forEach((curve, k) => {
      curve.d.forEach((tokens, i) => {
        xs.push(x(runs[k], tokens));
        ys.push(curve.l[i]);
        texts.push(runs[k].label);
      });
      xs.push(null);
      ys.push(null);
      texts.push("");
    });
    const color = sizeColor(view, view.n(runs[0]));
    return line(`curves of ${chartText(runs[0].size)}`, xs, ys, color, {
      width: 1,
      opacity: 0.45,
      showlegend: false,
      text: texts,
      hovertemplate: "%{text}<br>%{x:.3s}, training loss %{y:.4f}<extra></extra>",
    });
  });
}

const ABOVE_START = 1.1;
const OTHER_START = 3;

/**
 * Range of an axis of losses for these curves: it ends at the start of training where a run that
 * diverged went far beyond, which would press all others together. `beyond` says so.
 */
function curveSight(view) {
  const starts = view.curves.map((curve) => curve.l[0]).sort((a, b) => a - b);
  const usual = starts.filter((loss) => loss <= OTHER_START * starts[starts.length >> 1]);
  const end = ABOVE_START * usual[usual.length - 1];
  const peaks = view.curves.map((curve) => extent(curve.l)[1]).filter((loss) => loss > end);
  if (!peaks.length) return { axis: {}, beyond: "" };
  const finals = view.runs.map((run) => run.loss_nats);
  const [low] = extent([...view.curves.flatMap((curve) => curve.l), ...finals]);
  const ends = [low / 1.03, end];
  const who = peaks.length === 1 ? "1 run goes" : `${peaks.length} runs go`;
  return {
    axis: { range: view.state.scale === "log" ? ends.map(Math.log10) : ends },
    beyond: ` ${who} beyond the vertical axis, up to ${short(extent(peaks)[1])}: double-click shows all.`,
  };
}

/** The lowest loss that the curves reach by each compute, a staircase going down. */
function lowestOf(view) {
  const perToken = (run) => view.c(run) / run.n_tokens;
  const points = view.curves.flatMap((curve) => {
    const run = view.study.runs[curve.run];
    return curve.d.map((tokens, i) => ({ c: tokens * perToken(run), loss: curve.l[i], run }));
  });
  points.sort((a, b) => a.c - b.c);
  let lowest = Infinity;
  return points.filter(({ loss }) => loss < lowest && ((lowest = loss), true));
}

const frontiers = new Map();

/** The law at its optimum over the range of compute, drawn on to ten times it, with its band. */
function lawFrontier(view) {
  const [low, high] = view.convention.range.c;
  const computes = steps(low, 10 * high, N_STEPS);
  const at = (p) =>
    computes.map((c) => {
      const star = optimumOf(p, view.convention.ladder, c);
      return { ...star, loss: lossOf(p, star.n, star.d) };
    });
  const stars = at(view.law.p);
  if (view.law.isRefit) return { computes, stars, bands: null };
  const key = view.convention;
  if (!frontiers.has(key)) {
    const draws = view.fit.draws.map(at);
    const over = (name) =>
      computes.map((_, i) =>
        Number.isFinite(stars[i].n)
          ? intervalOf(
              draws.map((d) => d[i][name]),
              view.fit.level,
            )
          : null,
      );
    frontiers.set(key, { n: over("n"), loss: over("loss") });
  }
  return { computes, stars, bands: frontiers.get(key) };
}

function lawName(view) {
  return view.law.isRefit ? "law refitted here" : "law";
}

function computeChart(view) {
  if (!view.runs.length) return emptyChart(view, "every run is hidden");
  const data = curveTraces(view, (run, tokens) => tokens * (view.c(run) / run.n_tokens));
  const sight = view.curves.length ? curveSight(view) : { axis: {}, beyond: "" };
  const lowest = lowestOf(view);
  if (lowest.length) {
    data.push(
      line(
        "lowest curve so far",
        lowest.map((q) => q.c),
        lowest.map((q) => q.loss),
        GREY,
      ),
    );
  }
  if (view.law.p && view.convention.range.c.length) {
    const { computes, stars, bands } = lawFrontier(view);
    if (bands) data.push(band(computes, bands.loss, VERMILION));
    data.push(
      line(
        `${lawName(view)} at its optimum`,
        computes,
        stars.map((s) => s.loss),
        VERMILION,
      ),
    );
  }
  data.push(...runTraces(view, view.c, (run) => run.loss_nats), ...heldOutTraces(view));
  return {
    data,
    layout: layoutOf(
      view,
      { title: cTitle(view) },
      { title: `loss (${view.study.unit})`, ...sight.axis },
    ),
    sentence:
      "Loss against compute: smoothed training curves by size, the lowest of them, final " +
      `validation losses as marks, and the ${lawName(view)} at its optimal size` +
      `${view.law.draws.length ? ` with its ${PERCENT(view.fit.level)} band` : ""}.` +
      `${view.convention.ladder ? " It ends where the optimum leaves the sizes trained." : ""}${sight.beyond}`,
    table: runTable(view),
  };
}

/** The prediction of the held-out run where it was made: in this count of N. */
function heldOutTraces(view) {
  const found = view.convention.held_out;
  if (!found || !found.ok) return [];
  const run = view.runs.find((one) => one.run_id === found.run_id);
  const c = run ? view.c(run) : found.c === view.state.c ? found.train_flops : null;
  if (c === null) return [];
  const [low, high] = found.new_run_interval;
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "predicted before training",
      x: [c],
      y: [found.loss_nats],
      error_y: {
        type: "data",
        symmetric: false,
        array: [high - found.loss_nats],
        arrayminus: [found.loss_nats - low],
        color: BLUE,
        thickness: 2,
        width: 6,
      },
      marker: { symbol: "diamond-open", size: 12, color: BLUE },
      text: [`predicted ${fixed(found.loss_nats)} ${spanText([low, high], fixed)} of one new run`],
      hovertemplate: "%{text}<extra></extra>",
    },
  ];
}

function curvesChart(view) {
  if (!view.curves.length) return emptyChart(view, "no training curve is recorded or shown");
  const data = curveTraces(view, (_, tokens) => tokens);
  const { axis, beyond } = curveSight(view);
  const references = view.study.references.map(([name]) => name);
  const span = extent(view.curves.flatMap((curve) => curve.d));
  for (const [name, loss] of view.study.references) {
    data.push(line(name, span, [loss, loss], GREY, { dash: "dot", width: 1 }));
  }
  data.push(
    ...runTraces(
      view,
      (run) => run.n_tokens,
      (run) => run.loss_nats,
    ),
  );
  const ends = view.curves.map((curve) => {
    const run = view.study.runs[curve.run];
    const last = curve.d.length - 1;
    return [
      run.run_id,
      short(view.n(run)),
      fixed(curve.l[0]),
      short(curve.d[last]),
      fixed(curve.l[last]),
    ];
  });
  return {
    data,
    layout: layoutOf(
      view,
      { title: "tokens seen" },
      { title: `training loss (${view.study.unit})`, ...axis },
    ),
    sentence:
      `${view.curves.length} learning curves: smoothed training loss against tokens seen, ` +
      "coloured by size from dark (small) to light; marks are final validation losses" +
      (references.length ? `; dotted lines: ${references.join(", ")}.` : ".") +
      beyond,
    table: { heads: ["run", "N", "first loss", "tokens", "last loss"], rows: ends },
  };
}

function isoflopChart(view) {
  const { minima } = view.convention;
  if (!minima.length) return emptyChart(view, "no run belongs to an isoFLOP budget");
  const data = [];
  minima.forEach((minimum, k) => data.push(...budgetTraces(view, minimum, k, minima.length)));
  return {
    data,
    layout: layoutOf(view, { title: nTitle(view) }, { title: lossTitle(view) }),
    sentence:
      `Loss against size at each of ${minima.length} budgets of compute, with the parabola ` +
      "in log N and its minimum (star); a hollow star is a budget whose minimum was refused. " +
      "Parabolas are of all runs; that of a budget with hidden runs is not drawn.",
    table: {
      heads: ["budget", "minimum", "N*", "D*", "loss", "status"],
      rows: minima.map((m) => [
        short(m.budget),
        m.ok ? "accepted" : "refused",
        short(m.n_params),
        short(m.n_tokens),
        fixed(m.loss_nats),
        m.status,
      ]),
    },
  };
}

const CIVIDIS_ON_DARK = ["#7390c8", "#8e9bb5", "#a3a3a0", "#b9b08a", "#d3c164", "#fee838"];
const CIVIDIS = ["#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a69d75", "#d3c164"];

function budgetTraces(view, minimum, k, count) {
  const color = mixed(isDark() ? CIVIDIS_ON_DARK : CIVIDIS, k / Math.max(count - 1, 1));
  const ofBudget = (run) => run.isoflop_budget === minimum.budget && Number.isFinite(run.loss_nats);
  const runs = view.runs.filter((run) => ofBudget(run) && run.role !== "held_out");
  const whole = view.study.runs.filter((run) => ofBudget(run) && run.role !== "held_out");
  const name = `${minimum.budget.toPrecision(3)} FLOPs`;
  const traces = [
    {
      type: "scatter",
      mode: "markers",
      name,
      legendgroup: name,
      x: runs.map(view.n),
      y: runs.map((run) => run.loss_nats),
      customdata: runs.map((run) => run.run_id),
      text: runs.map((run) => runText(view, run)),
      hovertemplate: "%{text}<extra></extra>",
      marker: { color, size: 8, line: { width: 0.6, color: themeColors().soft } },
    },
  ];
  if (runs.length < whole.length || !minimum.coefficients) return traces;
  const [c2, c1, c0] = minimum.coefficients;
  const x = steps(minimum.sizes[0], minimum.sizes[minimum.sizes.length - 1], N_STEPS);
  const y = x.map((n) => c2 * Math.log(n) ** 2 + c1 * Math.log(n) + c0);
  const same = { legendgroup: name, showlegend: false };
  // Beneath the runs, which then answer where both lie under the pointer.
  traces.unshift(line(name, x, y, color, { ...same, dash: minimum.ok ? "solid" : "dot" }));
  const lowest = minimum.losses.indexOf(Math.min(...minimum.losses));
  const [n, loss] = minimum.ok
    ? [minimum.n_params, minimum.loss_nats]
    : [minimum.sizes[lowest], minimum.losses[lowest]];
  traces.push({
    type: "scatter",
    mode: "markers",
    ...same,
    x: [n],
    y: [loss],
    text: [
      `${name}: ${minimum.ok ? `N* ${short(n)}, D* ${short(minimum.n_tokens)}` : "refused"}` +
        `<br>${chartText(minimum.status)}`,
    ],
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      symbol: minimum.ok ? "star" : "star-open",
      size: 16,
      color,
      line: { width: 1, color: themeColors().ink },
    },
  });
  return traces;
}
