// The page of one study: its charts and its calculator.
"use strict";

const CHARTS = {
  compute: computeChart,
  isoflop: isoflopChart,
  law: lawChart,
  surface: surfaceChart,
  allocation: allocationChart,
  exponents: exponentsChart,
  predicted: predictedChart,
  residuals: residualsChart,
  heldout: heldOutChart,
  curves: curvesChart,
};

async function main() {
  const study = studyOf(JSON.parse(document.getElementById("report-data").textContent));
  const calculate = makeCalculator(study);
  const drawCharts = async (state) => {
    const view = viewOf(study, state);
    showLaw(lawText(view), [view]);
    for (const [name, chart] of Object.entries(CHARTS)) await drawChart(name, () => chart(view));
  };
  await wire(study, study.headline, drawCharts, calculate);
}

main();
