// The marks that charts share: groups of runs, lines with bands, axes.
"use strict";

const BLUE = "#0072b2";
const VERMILION = "#d55e00";
const GREEN = "#009e73";
const ORANGE = "#e69f00";
const GREY = "#808080";
const PERCENT = (level) => `${Math.round(100 * level)}%`;

/** Colours of the page as they stand: charts follow light and dark. */
function themeColors() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--ink"), paper: read("--paper"), line: read("--line"), soft: read("--soft") };
}

/** Runs with a loss by what is said of them; every group has a mark of its own. */
function runGroups(view) {
  const known = view.runs.filter((run) => Number.isFinite(run.loss_nats));
  const fitted = known.filter((run) => view.isFitted.has(run.index));
  const isHeldOut = (run) => run.role === "held_out";
  const others = known.filter((run) => !view.isFitted.has(run.index));
  return [
    { name: "fitted", symbol: "circle", runs: fitted.filter((run) => !run.reason) },
    {
      name: "fitted, with a flag",
      symbol: "circle-open",
      runs: fitted.filter((run) => run.reason),
    },
    {
      name: "left out of the fit",
      symbol: "x-thin-open",
      runs: others.filter((r) => !isHeldOut(r)),
    },
    { name: "held out, never fitted", symbol: "star", size: 14, runs: others.filter(isHeldOut) },
  ].filter((group) => group.runs.length);
}

/** One trace a group; x and y are functions of a run, `more` adds a line to what hovering shows. */
function runTraces(view, x, y, more = () => "") {
  return runGroups(view)
    .map((group) => ({
      type: "scatter",
      mode: "markers",
      name: `${group.name} (${group.runs.length})`,
      x: group.runs.map(x),
      y: group.runs.map(y),
      customdata: group.runs.map((run) => run.run_id),
      text: group.runs.map((run) => runText(view, run) + more(run)),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        symbol: group.symbol,
        size: group.size ?? 9,
        color: group.runs.map((run) => sizeColor(view, view.n(run))),
        line: { width: group.symbol.endsWith("open") ? 1.8 : 0.6, color: themeColors().paper },
      },
    }))
    .map((trace) => openMarks(trace));
}

/** Open symbols are drawn by their line alone, which then carries the colour. */
function openMarks(trace) {
  if (trace.marker.symbol.endsWith("open")) trace.marker.line.color = trace.marker.color;
  return trace;
}

function runText(view, run) {
  const loss = `loss ${fixed(run.loss_nats)} ± ${fixed(run.loss_se_document)}`;
  const reason = run.reason ? `<br>${chartText(run.reason)}` : "";
  return (
    `${run.label}<br>N ${short(view.n(run))}, D ${short(run.n_tokens)}, C ${short(view.c(run))}` +
    `<br>${loss}${reason}`
  );
}

function line(name, x, y, color, more = {}) {
  const { dash = "solid", width = 2, ...rest } = more;
  return {
    type: "scatter",
    mode: "lines",
    name,
    x,
    y,
    line: { color, dash, width },
    hovertemplate: `${name}<br>%{x:.3s}, %{y:.4~g}<extra></extra>`,
    ...rest,
  };
}

/** The area between two lines; points without an interval are left out. */
function band(x, intervals, color, name = "interval") {
  const kept = x.map((v, i) => [v, intervals[i]]).filter(([, pair]) => pair !== null);
  const there = kept.map(([v]) => v);
  return {
    type: "scatter",
    mode: "lines",
    name,
    x: [...there, ...[...there].reverse()],
    y: [...kept.map(([, pair]) => pair[0]), ...kept.map(([, pair]) => pair[1]).reverse()],
    fill: "toself",
    fillcolor: `${color}33`,
    line: { width: 0, color },
    hoverinfo: "skip",
    showlegend: false,
  };
}

/** A layout in the page's colours. `x` and `y` are {title, log, ...}; log follows the selection. */
function layoutOf(view, x, y, more = {}) {
  const { ink, line: grid } = themeColors();
  const scale = view.state.scale;
  const axis = ({ title, log = true, ...rest }, isLog) => ({
    title: { text: chartText(title) },
    type: log && isLog ? "log" : "linear",
    gridcolor: grid,
    zerolinecolor: grid,
    linecolor: grid,
    exponentformat: "power",
    automargin: true,
    ...rest,
  });
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12 },
    margin: { l: 60, r: 15, t: 10, b: 50 },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
    // By itself plotly puts a grey bar over the chart where the page shows through.
    modebar: { bgcolor: "rgba(0,0,0,0)", color: grid, activecolor: ink },
    hovermode: "closest",
    hoverlabel: { align: "left" },
    xaxis: axis(x, scale !== "linear"),
    yaxis: axis(y, scale === "log"),
    uirevision: `${view.state.n} ${view.state.c} ${scale}`,
    ...more,
  };
}

/** A chart that has nothing to draw, with the reason in its middle. */
function emptyChart(view, reason) {
  const note = {
    text: chartText(reason),
    showarrow: false,
    x: 0.5,
    y: 0.5,
    xref: "paper",
    yref: "paper",
  };
  const layout = layoutOf(view, { title: "", visible: false }, { title: "", visible: false });
  return {
    data: [],
    layout: { ...layout, annotations: [note] },
    sentence: `${reason[0].toUpperCase()}${reason.slice(1)}.`,
    table: { heads: [], rows: [] },
  };
}
