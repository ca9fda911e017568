// Wires the page of two studies: the same charts, table and downloads over both.
"use strict";

const SIDES = [BLUE, VERMILION]; // baseline, new

const COMPARE_CHARTS = {
  gain: gainChart,
  compute: bothComputes,
  allocation: bothAllocations,
  residuals: bothResiduals,
};

function sideRuns(view, k, x, y, more) {
  return runTraces(view, x, y, more).map((trace) => {
    const isOpen = trace.marker.symbol.endsWith("open");
    const line = isOpen ? { ...trace.marker.line, color: SIDES[k] } : trace.marker.line;
    return {
      ...trace,
      name: `${chartText(view.study.title)}: ${trace.name}`,
      marker: { ...trace.marker, color: SIDES[k], line },
    };
  });
}

function gainChart(views, payload) {
  const known = payload.gains.filter((gain) => gain.ok);
  if (!known.length) {
    const reason = payload.obstacle || payload.gains[0].status;
    return emptyChart(views[0], `no gain can be stated: ${reason}`);
  }
  const x = known.map((gain) => gain.train_flops);
  const bounded = (gain) =>
    isMissing(gain.interval[0]) || isMissing(gain.interval[1]) ? null : gain.interval;
  const data = [
    line("no gain", [x[0], x[x.length - 1]], [1, 1], GREY, { dash: "dash", width: 1 }),
    band(x, known.map(bounded), VERMILION),
    line(
      "gain",
      x,
      known.map((gain) => gain.ratio),
      VERMILION,
      {
        mode: "lines+markers",
        text: known.map(
          (gain) =>
            `×${short(gain.ratio)} ${spanText(gain.interval, short)}<br>${chartText(gain.status)}`,
        ),
        hovertemplate: "C %{x:.3s}<br>%{text}<extra></extra>",
      },
    ),
  ];
  const [old, fresh] = payload.studies.map((study) => study.title);
  return {
    data,
    layout: layoutOf(views[0], { title: `C of ${fresh} (6ND)` }, { title: "gain" }),
    sentence:
      `How many times the compute ${old} needs for the loss that ${fresh} has at C, along ` +
      `the joint fits of all runs (C = 6ND), with ${PERCENT(known[0].interval_level)} band; ` +
      "1 is no gain.",
    table: {
      heads: ["C", "gain", "interval", "status"],
      rows: payload.gains.map((g) => [
        short(g.train_flops),
        short(g.ratio),
        spanText(g.interval, short),
        g.status,
      ]),
    },
  };
}

function bothComputes(views) {
  const data = views.flatMap((view, k) => {
    const marks = sideRuns(view, k, view.c, (run) => run.loss_nats);
    return [...frontierTraces(view, k, "loss"), ...marks];
  });
  const [first] = views;
  return {
    data,
    layout: layoutOf(first, { title: cTitle(first) }, { title: lossTitle(first) }),
    sentence:
      "Final losses of both studies against compute, with each law at its optimal size and " +
      "its band; a law that is refitted here has none.",
    table: bothRuns(views),
  };
}

function bothAllocations(views) {
  const data = views.flatMap((view, k) => frontierTraces(view, k, "n"));
  if (!data.length) return emptyChart(views[0], "neither study has a law");
  const [first] = views;
  return {
    data,
    layout: layoutOf(
      first,
      { title: cTitle(first) },
      { title: `optimal size N* (${first.state.n})` },
    ),
    sentence: "Optimal size against compute by the law of each study (approach 3), with its band.",
    table: {
      heads: ["study", "exponent a if C = 6ND", "law"],
      rows: views.map((view) => [
        view.study.title,
        view.law.p ? fixed(closedAllocation(view.law.p).a, 3) : "–",
        lawText(view),
      ]),
    },
  };
}

function frontierTraces(view, k, name) {
  if (!view.law.p || !view.convention.range.c.length) return [];
  const { computes, stars, bands } = lawFrontier(view);
  const label = `${chartText(view.study.title)}: ${lawName(view)}`;
  const curve = line(
    label,
    computes,
    stars.map((star) => star[name]),
    SIDES[k],
    { dash: ["dash", "solid"][k] },
  );
  return bands ? [band(computes, bands[name], SIDES[k]), curve] : [curve];
}

function bothResiduals(views) {
  const known = views.filter((view) => view.law.p);
  if (!known.length) return emptyChart(views[0], "neither study has a law");
  const miss = (view) => (run) => 100 * (run.loss_nats / predictedOf(view, run) - 1);
  const data = known.flatMap((view) => sideRuns(view, views.indexOf(view), view.c, miss(view)));
  return {
    data,
    layout: layoutOf(
      views[0],
      { title: cTitle(views[0]) },
      { title: "measured over predicted, %", log: false },
    ),
    sentence: "How far the runs of each study lie from its own law.",
    table: bothRuns(views),
  };
}

function bothRuns(views) {
  const tables = views.map(runTable);
  const rows = tables.flatMap((found, k) =>
    found.rows.map((row) => [views[k].study.title, ...row]),
  );
  return { heads: ["study", ...tables[0].heads], rows };
}

/** The runs of both as one study, for table, sizes and downloads. */
function joined(payload, studies) {
  const runs = studies.flatMap((study) =>
    study.runs.map((run) => ({ ...run, study: study.title })),
  );
  const columns = new Map(
    studies.flatMap((study) => study.columns).map((column) => [column.name, column]),
  );
  const sizes = new Map(studies.flatMap((study) => study.sizes).map((size) => [size.name, size]));
  return {
    title: payload.title,
    runs,
    columns: [{ name: "study", label: "study" }, ...columns.values()],
    sizes: [...sizes.values()].sort((a, b) => a.n - b.n),
    conventions: studies[0].conventions.filter(({ n, c }) =>
      studies[1].conventions.some((other) => other.n === n && other.c === c),
    ),
    fits: Object.fromEntries(studies.map((study) => [study.title, study.fits])),
  };
}

async function main() {
  const payload = JSON.parse(document.getElementById("report-data").textContent);
  const studies = payload.studies.map(studyOf);
  await wire(joined(payload, studies), studies[0].headline, async (state) => {
    const views = studies.map((study) => viewOf(study, state));
    showLaw(views.map((view) => `${view.study.title}: ${lawText(view)}`).join("\n"), views);
    for (const [name, chart] of Object.entries(COMPARE_CHARTS)) {
      await drawChart(name, () => chart(views, payload));
    }
  });
}

main();
