// Before anything is drawn: the theme that the reader chose last, else the system's.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("report-theme");
  } catch {
    // A page from file:// may have no storage; then the system decides.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
