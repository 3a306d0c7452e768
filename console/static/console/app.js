// The frame's behaviour: navigation, theme, dialogs, toasts, the keyboard. Live numbers are in live.js, charts in charts.js.
"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const root = document.documentElement;
const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

// Navigation on small screens
const rail = $("#rail"), burger = $("#burger"), scrim = $("#scrim");
const openRail = (open) => {
  if (!rail) return;
  rail.classList.toggle("open", open);
  scrim.hidden = !open;
  burger.setAttribute("aria-expanded", String(open));
};
burger?.addEventListener("click", () => openRail(!rail.classList.contains("open")));
scrim?.addEventListener("click", () => openRail(false));

// Theme: at once here, kept with the account
$("#theme")?.addEventListener("click", (event) => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  document.dispatchEvent(new CustomEvent("themechange"));
  const body = new URLSearchParams({ theme, quiet: "1" });
  fetch(event.currentTarget.dataset.url, { method: "POST", body, headers: { "X-CSRFToken": csrf() }, keepalive: true });
});

// Dialogs and the drawer: htmx puts their content in, this shows them
const holders = { "drawer-body": "#drawer", "dialog-body": "#dialog" };
document.addEventListener("htmx:afterSwap", (event) => {
  const holder = holders[event.detail.target.id];
  if (!holder) return;
  const dialog = $(holder); // none where the dialog has a page of its own
  if (dialog && !dialog.open) dialog.showModal();
  prepare(event.detail.target);
  $("[autofocus]", event.detail.target)?.focus();
});
// A second click on what opens a dialog must not take away what was typed since the first
document.addEventListener("htmx:beforeRequest", (event) => {
  const dialog = $(holders[event.detail.target.id] ?? "dialog.none");
  if (dialog?.open && !dialog.contains(event.detail.elt)) event.preventDefault();
});
document.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog");
  if (dialog && (event.target === dialog || event.target.closest("[data-close]"))) dialog.close();
  else if (event.target.closest(".dialog-page [data-close]")) history.length > 1 ? history.back() : location.assign("/");
  if (event.target.closest("[data-keys]")) showKeys();
  const menu = event.target.closest("[data-menu]");
  for (const open of $$("[data-menu][open]")) if (open !== menu) open.open = false;
  if (!event.target.closest(".finder")) $("#finder-hits")?.replaceChildren();
});
const showKeys = () => { const keys = $("#keys"); if (keys && !keys.open) keys.showModal(); };

// A row is as good as its link
document.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-href]");
  if (!row || event.target.closest("a, button, input, label, select") || String(getSelection())) return;
  open_row(row, event.metaKey || event.ctrlKey);
});
const open_row = (row, aside) => {
  const link = $("a", row);
  if (aside) window.open(row.dataset.href, "_blank", "noopener");
  else if (link) link.click();
  else location.assign(row.dataset.href);
};

// Fields that depend on another: data-when="name=value"; buttons armed by typing a name
function prepare(scope) {
  for (const part of $$("[data-when]", scope)) {
    const [name, value] = part.dataset.when.split("=");
    const source = part.closest("form")?.elements[name];
    if (source) part.hidden = source.value !== value;
  }
  for (const field of $$("[data-must-equal]", scope)) {
    const button = $(`[data-armed-by="${field.name}"]`, field.closest("form"));
    if (button) button.disabled = field.value.trim() !== field.dataset.mustEqual;
  }
  for (const mark of $$("[data-alarm]", scope)) mark.classList.toggle("on", /[1-9]/.test(mark.textContent));
}
for (const kind of ["input", "change"]) document.addEventListener(kind, (event) => prepare(event.target.closest("form") || document));

// Times: what they are relative to now, on hover
document.addEventListener("mouseover", (event) => {
  const time = event.target.closest?.("time[data-moment]");
  if (time) time.title = Format.ago(Date.parse(time.dateTime));
});

// Links to copy
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy-link], [data-copy]");
  if (!button) return;
  const text = button.dataset.copy ?? new URL(button.dataset.copyLink, location).href;
  try { await navigator.clipboard.writeText(text); toast(button.dataset.said); }
  catch { window.prompt("", text); }
});

// Toasts
const toasts = $("#toasts");
function toast(text, kind = "success") {
  const made = document.createElement("div");
  made.className = `toast ${kind}`;
  made.dataset.toast = "";
  const words = document.createElement("span");
  words.textContent = text;
  made.append(words);
  toasts.append(made);
  expire(made);
}
const loaded = new Promise((done) => {
  if (document.readyState === "complete") done();
  else addEventListener("load", done, { once: true });
});
const expire = (one) => loaded.then(() => setTimeout(() => one.remove(), one.classList.contains("error") ? 12000 : 5000));
$$("[data-toast]").forEach(expire);
new MutationObserver((changes) => {
  for (const change of changes) for (const node of change.addedNodes) if (node.dataset && "toast" in node.dataset) expire(node);
}).observe(toasts, { childList: true });
document.addEventListener("click", (event) => event.target.closest("[data-dismiss]")?.closest("[data-toast]")?.remove());

// The finder: Enter opens the first hit of what was typed, once the answer to it is there
let entered = false;
document.addEventListener("htmx:afterSwap", (event) => {
  const finder = $("#finder");
  if (event.detail.target.id !== "finder-hits" || !finder) return;
  event.detail.target.dataset.of = event.detail.requestConfig.parameters.get("q");
  if (entered) enter(finder);
});
const enter = (finder) => {
  const hits = $("#finder-hits");
  entered = hits.dataset.of !== finder.value;
  if (!entered) $("a", hits)?.click();
};
document.addEventListener("input", () => { entered = false; });

// The keyboard
const LEADER_MS = 3000;
let leader = 0;
const typing = () => /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName) || document.activeElement?.isContentEditable;
const picked = () => $("tr.picked");
const pick = (step) => {
  const rows = $$("tbody tr[data-href]");
  if (!rows.length) return;
  const at = rows.indexOf(picked());
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  document.activeElement?.closest(".list-body")?.contains(next) && document.activeElement.blur();
  picked()?.classList.remove("picked");
  next.classList.add("picked");
  next.scrollIntoView({ block: "nearest" });
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    openRail(false);
    entered = false;
    $("#finder-hits")?.replaceChildren();
    if (typing() && !document.activeElement.closest("dialog")) document.activeElement.blur();
    return;
  }
  if (event.target.id === "finder") {
    const hits = $$("#finder-hits a");
    if (event.key === "Enter") { event.preventDefault(); enter(event.target); }
    if (event.key === "ArrowDown" && hits.length) { event.preventDefault(); hits[0].focus(); }
    return;
  }
  if (event.target.closest?.("#finder-hits") && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const hits = $$("#finder-hits a"), at = hits.indexOf(document.activeElement);
    event.preventDefault();
    (hits[at + (event.key === "ArrowDown" ? 1 : -1)] || $("#finder")).focus();
    return;
  }
  if (typing() || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (leader && event.timeStamp - leader < LEADER_MS) {
    leader = 0;
    const link = $(`[data-go="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); location.assign(link.href); }
    return;
  }
  leader = 0;
  const act = {
    "/": () => $("#finder")?.focus(),
    f: () => ($("[data-filter]") || $("#finder"))?.focus(),
    g: () => { leader = event.timeStamp; },
    j: () => pick(1),
    k: () => pick(-1),
    Enter: () => { if (picked() && document.activeElement === document.body) open_row(picked(), false); },
    p: () => $("#live-button")?.click(),
    "?": showKeys,
  }[event.key];
  if (!act) return;
  if (event.key !== "Enter") event.preventDefault();
  act();
});

prepare(document);
document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
