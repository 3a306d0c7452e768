// Before the first paint: the system's theme where none was chosen, and the browser's time zone for the server.
(() => {
  const root = document.documentElement;
  if (root.dataset.theme !== "dark" && root.dataset.theme !== "light")
    root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  const known = document.cookie.split("; ").find((part) => part.startsWith("sluice_zone="));
  if (zone && known !== `sluice_zone=${zone}`)
    document.cookie = `sluice_zone=${zone}; path=/; max-age=31536000; samesite=lax`;
})();
