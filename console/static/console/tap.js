// Watching one client's packets: a socket of its own, rows as they come, newest first.
"use strict";
(() => {
  const box = $("#tap");
  if (!box) return;
  const rows = $("#tap-rows"), state = $("#tap-state"), dot = $("#tap-dot");
  const start = $("#tap-start"), stop = $("#tap-stop"), pause = $("#tap-pause");
  const KEPT = 400;
  let socket = null, paused = false, shown = 0, dropped = 0, until = 0, waiting = [], name = "idle";

  function say(next, more = "") {
    name = next;
    const text = more ? `${box.dataset[next]} ${more}` : box.dataset[next];
    if (state.textContent !== text) state.textContent = text;
    dot.className = `dot ${next === "on" ? "ok" : next === "ended" ? "bad" : ""}`;
    const watching = socket !== null;
    start.hidden = watching;
    stop.hidden = pause.hidden = !watching;
    $("#tap-seconds").disabled = watching;
  }
  function element(tag, css, text) {
    const made = document.createElement(tag);
    if (css) made.className = css;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function facts(row) {
    const found = [];
    if (row.qos !== undefined) found.push(`QoS ${row.qos}`);
    if (row.dup) found.push("DUP");
    if (row.retain) found.push("RETAIN");
    if (row.id !== undefined) found.push(`#${row.id}`);
    for (const code of row.codes ?? []) found.push(code);
    if (row.size !== undefined) found.push(Format.size(row.size));
    for (const field of ["protocol", "keep_alive", "clean", "username", "will", "reason"])
      if (row[field] !== undefined) found.push(`${field.replace("_", " ")} ${row[field]}`);
    for (const [key, value] of Object.entries(row.properties ?? {})) found.push(`${key}: ${value}`);
    return found;
  }
  function line(row) {
    const made = element("li", `packet ${row.way}`);
    const head = element("div", "packet-head");
    const time = element("time", "mono", Format.second.format(row.at * 1000));
    time.dateTime = new Date(row.at * 1000).toISOString();
    const way = element("span", "way", row.way === "in" ? "→" : "←");
    way.setAttribute("aria-hidden", "true");
    head.append(time, way, element("b", "", row.type), element("span", "hidden", box.dataset[row.way]));
    if (row.topic !== undefined) head.append(element("span", "mono wrap", row.topic));
    for (const each of row.filters ?? []) head.append(element("span", "mono wrap", each));
    made.append(head, element("p", "packet-facts", facts(row).join(" · ")));
    if (row.payload) made.append(element("pre", "packet-payload", row.payload));
    return made;
  }
  function put(list) {
    const fragment = document.createDocumentFragment();
    for (const row of list.slice(-KEPT).reverse()) fragment.append(line(row));
    rows.prepend(fragment);
    while (rows.childElementCount > KEPT) rows.lastElementChild.remove();
    $("#tap-empty").hidden = rows.childElementCount > 0;
  }
  function count() {
    $("#tap-shown").textContent = Format.num(shown);
    $("#tap-dropped").textContent = Format.num(dropped);
  }
  function take(message) {
    if (message.began) { until = message.began.until; say("on"); return; }
    if (message.rows) {
      shown += message.rows.length;
      dropped += message.dropped;
      if (paused) waiting = [...waiting, ...message.rows].slice(-KEPT);
      else put(message.rows);
      count();
      if (!paused && name !== "ended") say(message.connected ? "on" : "absent");
    }
    if (message.ended !== undefined) end(message.ended);
  }
  function end(why) {
    until = 0;
    const gone = socket;
    socket = null;
    if (paused) toggle();
    say("ended", box.dataset[`why${why[0]?.toUpperCase()}${why.slice(1)}`] ?? why);
    gone?.close();
    start.focus();
  }
  function toggle() {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    $("span", pause).textContent = paused ? box.dataset.resume : box.dataset.pause;
    if (!paused) { put(waiting); waiting = []; }
    say(paused ? "paused" : socket ? "on" : "idle");
  }
  start.addEventListener("click", () => {
    rows.replaceChildren();
    shown = dropped = 0;
    count();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const made = socket = new WebSocket(`${scheme}://${location.host}/ws/tap/`);
    say("asking");
    pause.focus();
    made.onopen = () =>
      made.send(JSON.stringify({ tap: { client: box.dataset.client, seconds: Number($("#tap-seconds").value) } }));
    made.onmessage = (event) => take(JSON.parse(event.data));
    made.onclose = (event) => {
      if (socket !== made) return;
      if (event.code === 4401) { location.reload(); return; }
      end(box.dataset.lost);
    };
  });
  stop.addEventListener("click", () => socket?.send(JSON.stringify({ stop: {} })));
  pause.addEventListener("click", toggle);
  addEventListener("pagehide", () => socket?.close());
  setInterval(() => { $("#tap-left").textContent = until ? Format.span(Math.max(0, (until - Date.now()) / 1000)) : "–"; }, 500);
})();
