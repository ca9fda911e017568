// The table of runs: sorted by a click or a key on a heading, filtered, and a switch for each run.
"use strict";

const MOST_ROWS = 200; // until more are asked for

function makeRunTable(study, state, changed) {
  const table = document.getElementById("runs-table");
  const columns = study.columns.filter(({ name }) =>
    study.runs.some((run) => !isMissing(run[name])),
  );
  const names = columns.map(({ name }) => name);
  const sorting = { name: "", descending: false };
  let mostRows = MOST_ROWS;
  const filter = document.getElementById("runs-filter");
  const said = document.getElementById("runs-count");

  const head = table.querySelector("thead tr");
  head.replaceChildren(
    headCell("shown"),
    ...columns.map(({ name, label }) => {
      const cell = headCell("");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.title = `column ${name}: sort`;
      button.dataset.column = name;
      button.addEventListener("click", () => {
        sorting.descending = sorting.name === name && !sorting.descending;
        sorting.name = name;
        draw();
      });
      cell.append(button);
      cell.dataset.column = name;
      return cell;
    }),
  );

  function draw() {
    for (const cell of head.children) {
      const isSorted = cell.dataset.column !== undefined && cell.dataset.column === sorting.name;
      if (!isSorted) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
    }
    const { test, error } = rowFilter(filter.value, names);
    filter.setAttribute("aria-invalid", String(Boolean(error)));
    const kept = error ? [] : study.runs.filter(test);
    const rows = sorting.name ? sortedRows(kept, sorting.name, sorting.descending) : kept;
    const shown = rows.slice(0, mostRows).map((run) => runRow(run, names, state, changed));
    if (rows.length > mostRows) shown.push(moreRow(rows.length - mostRows, names.length + 1, more));
    table.tBodies[0].replaceChildren(...shown);
    said.textContent = error ?? `${rows.length} of ${study.runs.length} runs`;
    table.dataset.rows = String(rows.length);
    return rows;
  }

  function more() {
    const first = mostRows;
    mostRows = Infinity;
    draw();
    table.tBodies[0].rows[first].querySelector("input").focus();
  }

  filter.addEventListener("input", draw);
  document.getElementById("runs-hide-others").addEventListener("click", () => {
    const kept = new Set(draw().map((run) => run.run_id));
    for (const run of study.runs) if (!kept.has(run.run_id)) state.hiddenRuns.add(run.run_id);
    draw();
    changed();
  });
  return draw;
}

function headCell(text) {
  const cell = document.createElement("th");
  cell.scope = "col";
  cell.textContent = text;
  return cell;
}

/** The last row of a long table: a button for the rest. */
function moreRow(count, width, more) {
  const row = document.createElement("tr");
  const cell = row.insertCell();
  cell.colSpan = width;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `Show the other ${count} rows`;
  button.addEventListener("click", more);
  cell.append(button);
  return row;
}

function runRow(run, names, state, changed) {
  const row = document.createElement("tr");
  row.dataset.run = run.run_id;
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = !state.hiddenRuns.has(run.run_id);
  box.setAttribute("aria-label", `show run ${run.run_id}`);
  box.addEventListener("change", () => {
    if (box.checked) state.hiddenRuns.delete(run.run_id);
    else state.hiddenRuns.add(run.run_id);
    changed();
  });
  const first = document.createElement("td");
  first.append(box);
  row.append(
    first,
    ...names.map((name) => {
      const cell = document.createElement("td");
      cell.textContent = cellText(run[name]);
      if (typeof run[name] === "number") cell.className = "number";
      return cell;
    }),
  );
  return row;
}
