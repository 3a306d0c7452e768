// Live numbers: one socket; the page says which keys it shows, the server sends what changed of them.
// An element with data-live="topic/orders/in" data-as="rate" shows that field and follows it.
"use strict";
const Live = (() => {
  const state = $("#live");
  if (!state) return {};
  const known = new Map(); // key → fields
  let socket = null, back = 500, paused = false, told = "connecting", at = 0, watched = "";
  const keyOf = (path) => path.slice(0, path.lastIndexOf("/"));
  const fieldOf = (path) => path.slice(path.lastIndexOf("/") + 1);
  const numberOf = (path) => known.get(keyOf(path))?.[fieldOf(path)] ?? null;

  function show(name) {
    told = name;
    if (paused && name === "on") name = "paused";
    if (state.dataset.state === name) return;
    state.dataset.state = name;
    $("#live-text").textContent = state.dataset[`${name}Text`] ?? "";
  }
  function wanted() {
    const paths = [...$$("[data-live]").map((element) => element.dataset.live), ...Charts.keys()];
    return [...new Set(paths.filter((path) => path.includes("/")).map(keyOf))].filter((key) => key !== "cluster").sort();
  }
  function watch() {
    if (socket?.readyState !== WebSocket.OPEN) return;
    const keys = wanted(), text = JSON.stringify(keys);
    if (text === watched) return;
    watched = text;
    socket.send(JSON.stringify({ watch: keys }));
  }
  function put(element, text) { if (element.textContent !== text) element.textContent = text; }
  function paint() {
    for (const element of $$("[data-live]")) {
      const path = element.dataset.live;
      if (path === "at") { put(element, Format.moment(at)); continue; }
      const fields = known.get(keyOf(path));
      if (fields === undefined) continue;
      const form = Format[element.dataset.as] || Format.text;
      put(element, form(fields?.[fieldOf(path)] ?? null));
    }
    for (const dot of $$("[data-state-of]")) {
      const group = known.get(dot.dataset.stateOf);
      if (!group?.health) continue;
      const name = group.health;
      if (dot.classList.contains(name)) continue;
      dot.className = `state ${name}`;
      dot.setAttribute("aria-label", dot.dataset[name]);
    }
    for (const mark of $$("[data-alarm]")) mark.classList.toggle("on", /[1-9]/.test(mark.textContent));
    bars();
  }
  // The bars of a table are relative to its greatest value, so they move together
  function bars() {
    for (const table of $$("table.tops")) {
      const cells = $$("tbody tr", table).map((row) => [$(".bar .fill", row), numberOf($("td [data-live]", row)?.dataset.live ?? "/")]);
      const most = Math.max(0, ...cells.map(([, value]) => value ?? 0));
      for (const [fill, value] of cells) fill?.setAttribute("width", most && value ? Math.max(1.5, (100 * value) / most) : 0);
    }
  }
  // Lists that follow a value: their body is fetched again when it is not the one they were drawn at, at most once a
  // second, and not while the pointer is pressed on it or a text of it is marked
  let refreshed = 0;
  const drawnAt = (body) => (body.dataset.drawnAt === "" ? null : Number(body.dataset.drawnAt));
  const inHand = (body) => body.matches(":active") || (String(getSelection()) && body.contains(getSelection().anchorNode));
  function refresh() {
    if (document.hidden || $("dialog[open]") || Date.now() - refreshed < 1000) return;
    for (const body of $$("[data-refresh-on]")) {
      if (numberOf(body.dataset.refreshOn) === drawnAt(body) || inHand(body)) continue;
      refreshed = Date.now();
      body.dispatchEvent(new CustomEvent("refresh"));
    }
  }
  // What is fetched again keeps its picked row, and the focus where it was
  let kept = null;
  const face = (element) => element.getAttribute("href") ?? element.getAttribute("hx-get") ?? "";
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    const { target, requestConfig: { elt } } = detail, focused = target.contains(document.activeElement) ? document.activeElement : null;
    kept = null;
    if (elt === target && inHand(target)) detail.shouldSwap = false;
    else if (target.matches(".list-body, .job"))
      kept = {
        id: target.id, row: $("tr.picked", target)?.dataset.href, focused: Boolean(focused), face: focused && face(focused),
        words: focused?.textContent.trim(), focusVisible: Boolean(focused?.matches(":focus-visible")),
      };
  });
  function restore({ id, row, focused, face: wanted, words, focusVisible }) {
    const body = document.getElementById(id);
    if (!body) return; // a refusal took its place
    if (row) $$("tr[data-href]", body).find((each) => each.dataset.href === row)?.classList.add("picked");
    if (!focused || document.activeElement !== document.body) return;
    const all = $$("a, button", body);
    const again = all.find((one) => wanted && face(one) === wanted) ?? all.find((one) => words && one.textContent.trim() === words);
    again?.focus({ preventScroll: true, focusVisible });
  }
  function take(message) {
    at = message.at;
    known.set("cluster", message.cluster ?? {});
    for (const [key, fields] of Object.entries(message.rows)) {
      if (fields === null) known.set(key, null);
      else known.set(key, { ...(known.get(key) ?? {}), ...fields });
    }
    const old = Date.now() - at > 15000;
    show(message.trouble || !at || old ? "stale" : "on");
    $("#broker-dot")?.classList.toggle("ok", !message.trouble && !old);
    $("#broker-dot")?.classList.toggle("bad", Boolean(message.trouble) || old);
    if (!message.trouble && !old && $("#stale-note")) $("#stale-note").remove();
    if (paused) return;
    paint();
    refresh();
    Charts.push(Math.round(at / 1000), numberOf);
  }
  function connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}/ws/live/`);
    socket.onopen = () => { back = 500; watched = ""; watch(); };
    socket.onmessage = (event) => take(JSON.parse(event.data));
    socket.onclose = (event) => {
      show("off");
      if (event.code === 4401) { location.reload(); return; }
      setTimeout(connect, back * (0.5 + Math.random()));
      back = Math.min(back * 2, 15000);
    };
  }
  $("#live-button").addEventListener("click", (event) => {
    paused = !paused;
    event.currentTarget.setAttribute("aria-pressed", String(paused));
    show(told);
    if (!paused) paint();
  });
  document.addEventListener("htmx:afterSettle", () => {
    if (kept) restore(kept);
    kept = null;
    watch();
    if (!paused) paint();
  });
  connect();
  return { numberOf };
})();
