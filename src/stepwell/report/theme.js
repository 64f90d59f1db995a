// Runs before the first paint: #dark or #light in the address, then what the reader chose last, then the system.
(function () {
  const known = (name) => (name === "dark" || name === "light" ? name : null);
  let chosen = null;
  try { chosen = localStorage.getItem("stepwell-theme"); } catch { /* private windows refuse storage */ }
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = known(location.hash.slice(1)) || known(chosen) || system;
})();
