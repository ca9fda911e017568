// The law L = E + A / N^alpha + B / D^beta as analysis/ computes it, and a refit of it.
//
// Parameters p are [E, A, B, alpha, beta]. No function here touches the page, so that all of them
// run in Node and are held there against analysis/.
"use strict";

const GRID_SIZE = 512; // sizes among which an optimum is searched, as in frontier.allocation
const LEAST_DRAWS = 20;
const EXPONENTS = [1e-3, 3];
const N_PARAMETERS = 5;

function lossOf(p, n, d) {
  return p[0] + p[1] * n ** -p[3] + p[2] * d ** -p[4];
}

/** Linear quantile of sorted numbers, as NumPy's. */
function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/** Central percentile interval of the finite draws; null if they are too few or most failed. */
function intervalOf(draws, level) {
  const finite = Float64Array.from(draws.filter(Number.isFinite)).sort();
  if (finite.length < Math.max(LEAST_DRAWS, draws.length / 2)) return null;
  return [quantile(finite, (1 - level) / 2), quantile(finite, (1 + level) / 2)];
}

/** Loss at a size and data with the intervals of its mean and of one new run. */
function predictRun(fit, n, d) {
  const means = fit.draws.map((p) => lossOf(p, n, d));
  const runs = fit.noise.flatMap((row) => row.map((noise, i) => means[i] * Math.exp(noise)));
  return {
    loss: lossOf(fit.parameters, n, d),
    mean: intervalOf(means, fit.level),
    newRun: intervalOf(runs, fit.level),
  };
}

/** Exponent a and factor G of N* = G (C/6)^a where C = 6ND. */
function closedAllocation(p) {
  const both = p[3] + p[4];
  return { a: p[4] / both, factor: ((p[3] * p[1]) / (p[4] * p[2])) ** (1 / both) };
}

function closedOptimum(p, c) {
  const { a, factor } = closedAllocation(p);
  const n = factor * (c / 6) ** a;
  return { n, d: c / 6 / n };
}

/** Log FLOPs per token at a log size by the ladder's monotone cubic; NaN beyond its ends. */
function logFlopsPerToken(ladder, logN) {
  const x = ladder.log_n;
  const last = x.length - 1;
  if (!(logN >= x[0] - 1e-12 && logN <= x[last] + 1e-12)) return NaN;
  let i = 0;
  while (i < last - 1 && logN > x[i + 1]) i += 1;
  const h = x[i + 1] - x[i];
  const t = (logN - x[i]) / h;
  const [y0, y1] = [ladder.log_flops[i], ladder.log_flops[i + 1]];
  const [m0, m1] = [ladder.slopes[i] * h, ladder.slopes[i + 1] * h];
  const [t2, t3] = [t * t, t * t * t];
  return (
    (2 * t3 - 3 * t2 + 1) * y0 + (t3 - 2 * t2 + t) * m0 + (3 * t2 - 2 * t3) * y1 + (t3 - t2) * m1
  );
}

const gridOfLadder = new WeakMap();

function ladderGrid(ladder) {
  if (!gridOfLadder.has(ladder)) {
    const low = ladder.log_n[0];
    const step = (ladder.log_n[ladder.log_n.length - 1] - low) / (GRID_SIZE - 1);
    const logN = Float64Array.from({ length: GRID_SIZE }, (_, i) => low + i * step);
    gridOfLadder.set(ladder, { step, logN, logF: logN.map((x) => logFlopsPerToken(ladder, x)) });
  }
  return gridOfLadder.get(ladder);
}

/** Size and tokens of least loss at a compute under the ladder's FLOPs; NaN at its ends. */
function ladderOptimum(p, ladder, c) {
  const { step, logN, logF } = ladderGrid(ladder);
  const logC = Math.log(c);
  const loss = (i) =>
    p[0] + p[1] * Math.exp(-p[3] * logN[i]) + p[2] * Math.exp(-p[4] * (logC - logF[i]));
  let best = 0;
  let lowest = Infinity;
  for (let i = 0; i < GRID_SIZE; i += 1) {
    const value = loss(i);
    if (value < lowest) [best, lowest] = [i, value];
  }
  if (best === 0 || best === GRID_SIZE - 1) return { n: NaN, d: NaN };
  const [left, right] = [loss(best - 1), loss(best + 1)];
  const bend = Math.max(left - 2 * lowest + right, Number.MIN_VALUE);
  const shift = Math.min(Math.max((0.5 * (left - right)) / bend, -0.5), 0.5);
  const star = logN[best] + shift * step;
  return { n: Math.exp(star), d: Math.exp(logC - logFlopsPerToken(ladder, star)) };
}

/** N* and D* at a compute: along the ladder, or in closed form without one. */
function optimumOf(p, ladder, c) {
  return ladder ? ladderOptimum(p, ladder, c) : closedOptimum(p, c);
}

/** The optimum of the fit and its intervals over the draws. */
function optimumWithIntervals(fit, ladder, c) {
  const star = optimumOf(fit.parameters, ladder, c);
  const draws = fit.draws.map((p) => optimumOf(p, ladder, c));
  const over = (name) =>
    intervalOf(
      draws.map((draw) => draw[name]),
      fit.level,
    );
  return { ...star, nInterval: over("n"), dInterval: over("d") };
}

/** N* and D* of a fitted power law of compute, with intervals over its draws. */
function powerLawAt(approach, level, c) {
  const logC = Math.log(c);
  const over = (i) =>
    intervalOf(
      approach.draws.map((line) => Math.exp(line[i] * logC + line[i + 1])),
      level,
    );
  return {
    n: approach.n_coefficient * c ** approach.a,
    d: approach.d_coefficient * c ** approach.b,
    nInterval: over(0),
    dInterval: over(2),
  };
}

/** Why so few points cannot determine the law; empty if they can. */
function tooFew(points) {
  const cells = new Set(points.map((q) => `${q.n},${q.d}`)).size;
  if (cells <= N_PARAMETERS) {
    return `${cells} distinct (N, D) for ${N_PARAMETERS} parameters; more are needed`;
  }
  for (const [letter, name] of [
    ["N", "n"],
    ["D", "d"],
  ]) {
    const count = new Set(points.map((q) => q[name])).size;
    if (count < 3) return `${count} distinct ${letter}; at least 3 are needed`;
  }
  return "";
}

/**
 * Least squares in log loss, by Levenberg-Marquardt in centred coordinates within bounds.
 *
 * points: objects of n, d, loss. start: parameters to begin from; a coarse grid of exponents is
 * tried beside it. Returns parameters p, or p null with the reason in `status`.
 */
function refit(points, start) {
  const reason = tooFew(points);
  if (reason) return { p: null, status: `too few points: ${reason}` };
  const problem = centred(points);
  const starts = [0.1, 0.35, 1].flatMap((a) => [0.1, 0.35, 1].map((b) => coarse(problem, a, b)));
  if (start) starts.unshift(toCentred(problem, start));
  const found = starts.map((theta) => levenbergMarquardt(problem, theta));
  const best = found.reduce((one, other) => (other.value < one.value ? other : one));
  const bound = ["A", "B", "alpha", "beta"].filter((_, i) => isAtBound(problem, best.theta, i + 1));
  if (!best.converged) return { p: null, status: "not converged" };
  if (bound.length) return { p: null, status: `at a bound: ${bound.join(", ")}` };
  const [floor, a, b, alpha, beta] = best.theta;
  const p = [floor, a * Math.exp(alpha * problem.xMean), b * Math.exp(beta * problem.zMean)];
  const status = isAtBound(problem, best.theta, 0) ? "converged; floor at zero" : "converged";
  return { p: [...p, alpha, beta], status, value: best.value };
}

function centred(points) {
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const [logN, logD] = [points.map((q) => Math.log(q.n)), points.map((q) => Math.log(q.d))];
  const [xMean, zMean] = [mean(logN), mean(logD)];
  const losses = points.map((q) => q.loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  return {
    xMean,
    zMean,
    x: logN.map((v) => v - xMean),
    z: logD.map((v) => v - zMean),
    y: losses.map(Math.log),
    lowest: low,
    middle: Math.exp(mean(losses.map(Math.log))),
    low: [1e-6 * low, 1e-6 * low, 1e-6 * low, EXPONENTS[0], EXPONENTS[0]],
    high: [high, 1e3 * high, 1e3 * high, EXPONENTS[1], EXPONENTS[1]],
  };
}

function toCentred(problem, p) {
  const a = p[1] * Math.exp(-p[3] * problem.xMean);
  const b = p[2] * Math.exp(-p[4] * problem.zMean);
  return clamp(problem, [p[0], a, b, p[3], p[4]]);
}

function coarse(problem, alpha, beta) {
  const floor = 0.6 * problem.lowest;
  const share = (problem.middle - floor) / 2;
  return clamp(problem, [floor, share, share, alpha, beta]);
}

function clamp(problem, theta) {
  return theta.map((v, i) => Math.min(Math.max(v, problem.low[i]), problem.high[i]));
}

function isAtBound(problem, theta, i) {
  return theta[i] <= problem.low[i] || theta[i] >= problem.high[i];
}

function levenbergMarquardt(problem, first) {
  let theta = first;
  let damping = 1e-3;
  let now = normalEquations(problem, theta);
  for (let step = 0; step < 300; step += 1) {
    // A coordinate that the descent would push through its bound stays there.
    const free = theta.map(
      (v, i) =>
        !(v <= problem.low[i] && now.sides[i] < 0) && !(v >= problem.high[i] && now.sides[i] > 0),
    );
    const move = solveDamped(now.matrix, now.sides, free, damping);
    const tried = clamp(
      problem,
      theta.map((v, i) => v + move[i]),
    );
    const next = normalEquations(problem, tried);
    if (next.value <= now.value) {
      const moved = Math.max(...tried.map((v, i) => Math.abs(v - theta[i]) / (Math.abs(v) + 1e-9)));
      [theta, now, damping] = [tried, next, Math.max(damping / 10, 1e-12)];
      if (moved < 1e-11) return { theta, value: now.value, converged: true };
    } else {
      damping *= 10;
      if (damping > 1e12) return { theta, value: now.value, converged: true };
    }
  }
  return { theta, value: now.value, converged: false };
}

/** Half the sum of squares, J^T J and J^T r of the log residuals. */
function normalEquations(problem, theta) {
  const [floor, a, b, alpha, beta] = theta;
  const matrix = theta.map(() => new Float64Array(N_PARAMETERS));
  const sides = new Float64Array(N_PARAMETERS);
  let value = 0;
  for (let k = 0; k < problem.y.length; k += 1) {
    const byN = Math.exp(-alpha * problem.x[k]);
    const byD = Math.exp(-beta * problem.z[k]);
    const total = floor + a * byN + b * byD;
    const r = problem.y[k] - Math.log(total);
    const slopes = [1, byN, byD, -a * problem.x[k] * byN, -b * problem.z[k] * byD];
    for (let i = 0; i < N_PARAMETERS; i += 1) {
      const slope = slopes[i] / total;
      sides[i] += slope * r;
      for (let j = 0; j <= i; j += 1) matrix[i][j] += (slope * slopes[j]) / total;
    }
    value += 0.5 * r * r;
  }
  for (let i = 0; i < N_PARAMETERS; i += 1) {
    for (let j = 0; j < i; j += 1) matrix[j][i] = matrix[i][j];
  }
  return { value, matrix, sides };
}

/** Solve (M + damping diag M) move = sides over the free coordinates, by elimination. */
function solveDamped(matrix, sides, free, damping) {
  const kept = [...sides.keys()].filter((i) => free[i]);
  const rows = kept.map((i) => [
    ...kept.map((j) => matrix[i][j] * (i === j ? 1 + damping : 1)),
    sides[i],
  ]);
  const size = kept.length;
  for (let i = 0; i < size; i += 1) {
    const pivot = rows[i][i] || Number.MIN_VALUE;
    for (let k = i + 1; k < size; k += 1) {
      const factor = rows[k][i] / pivot;
      for (let j = i; j <= size; j += 1) rows[k][j] -= factor * rows[i][j];
    }
  }
  const move = new Array(sides.length).fill(0);
  for (let i = size - 1; i >= 0; i -= 1) {
    let rest = rows[i][size];
    for (let j = i + 1; j < size; j += 1) rest -= rows[i][j] * move[kept[j]];
    move[kept[i]] = rest / (rows[i][i] || Number.MIN_VALUE);
  }
  return move;
}
