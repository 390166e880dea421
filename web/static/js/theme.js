// Before the first paint: the theme that was chosen, and whether scripts run at all.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* storage is off: follow the system */ }
  const show = () => {
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen; else delete root.dataset.theme;
    root.classList.toggle("dark", chosen ? chosen === "dark" : dark.matches);
  };
  root.classList.add("scripted");
  dark.addEventListener("change", show);
  show();
  globalThis.switchTheme = () => {
    chosen = root.classList.contains("dark") ? "light" : "dark";
    try { localStorage.setItem("theme", chosen); } catch { /* for this page only, then */ }
    show();
  };
})();
