// Dark or light: the system's choice until the reader makes one, which is kept.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      return localStorage.getItem("cmass-theme");
    } catch {
      return null; // storage is forbidden: the system's choice stands
    }
  };
  const inForce = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const chosen = kept();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const other = inForce() === "dark" ? "Light" : "Dark";
      button.textContent = other;
      button.setAttribute("aria-label", `${other} colours`);
      dispatchEvent(new Event("cmass-theme"));
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = inForce() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem("cmass-theme", root.dataset.theme);
      } catch {
        // for this page alone
      }
      show();
    });
    dark.addEventListener("change", show);
    show();
  });
})();
