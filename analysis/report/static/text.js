// Numbers as text, text from outside for charts, and the filter of the table of runs.
"use strict";

/** Text that a chart shows as it is: charts read some HTML tags and entities. */
function chartText(value) {
  return String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function isMissing(value) {
  return value === null || value === undefined || Number.isNaN(value);
}

/** Three digits and a unit: 8.24k, 1.2M; powers of ten from 1e10 on. */
function short(value) {
  if (isMissing(value)) return "–";
  for (const [unit, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= unit && Math.abs(value) < 1e10) {
      return `${Number((value / unit).toPrecision(3))}${letter}`;
    }
  }
  const rounded = Number(value.toPrecision(3));
  return Math.abs(rounded) >= 1e10 ? rounded.toExponential() : String(rounded);
}

function fixed(value, digits = 4) {
  return isMissing(value) ? "–" : value.toFixed(digits);
}

function spanText(bounds, form) {
  return bounds === null || isMissing(bounds[0])
    ? "[none]"
    : `[${form(bounds[0])}, ${form(bounds[1])}]`;
}

/** A cell of the table of runs. */
function cellText(value) {
  if (isMissing(value)) return "–";
  if (typeof value !== "number") return String(value);
  const rounded = Number(value.toPrecision(5));
  if (Math.abs(value) >= 1e7) return rounded.toExponential();
  return Number.isInteger(value) ? value.toLocaleString("en") : String(rounded);
}

const COMPARISON = /([A-Za-z_][\w]*)\s*(<=|>=|!=|=|<|>)\s*("[^"]*"|\S+)/g;
const COMPARED = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

/**
 * A test of a row from a line such as `n_layers > 2 status = finished lr`: comparisons by name of
 * column, and words that some cell must hold. Returns {test} or {error}.
 */
function rowFilter(line, names) {
  const tests = [];
  for (const [, name, sign, given] of line.matchAll(COMPARISON)) {
    if (!names.includes(name)) return { error: `no column ${name}; use ${names.join(", ")}` };
    const value = given.replace(/^"|"$/g, "");
    const wanted = Number(value);
    if (Number.isNaN(wanted) && sign.match(/[<>]/)) return { error: `${value} is not a number` };
    tests.push((row) => compared(row[name], sign, value, wanted));
  }
  const rest = line.replace(COMPARISON, " ").replace(/\band\b/g, " ");
  const words = rest.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) =>
    names
      .map((name) => cellText(row[name]))
      .join("\n")
      .toLowerCase();
  if (words.length) tests.push((row) => words.every((word) => text(row).includes(word)));
  return { test: (row) => tests.every((test) => test(row)) };
}

function compared(cell, sign, text, wanted) {
  if (typeof cell === "number" && !Number.isNaN(wanted)) return COMPARED[sign](cell, wanted);
  if (sign.match(/[<>]/)) return false;
  return COMPARED[sign](isMissing(cell) ? "" : String(cell), text);
}

/** Rows in order of a column, what is missing last. */
function sortedRows(rows, name, descending) {
  const sign = descending ? -1 : 1;
  return [...rows].sort((one, other) => {
    const [a, b] = [one[name], other[name]];
    if (isMissing(a) || isMissing(b)) return Number(isMissing(a)) - Number(isMissing(b));
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  });
}

/** Rows as CSV (RFC 4180); a text that a spreadsheet would run as a formula gets an apostrophe. */
function csvOf(rows, names) {
  const cell = (value) => {
    if (isMissing(value)) return "";
    const text =
      typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((line) => line.map(cell).join(","))
    .join("\r\n")
    .concat("\r\n");
}
