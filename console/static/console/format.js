// How values look: the same rules as console/templatetags/sluice.py. Unknown is a dash.
"use strict";
const Format = (() => {
  const chinese = document.documentElement.lang.startsWith("zh");
  const words = chinese
    ? { s: "秒", m: "分", h: "小时", d: "天" }
    : { s: "s", m: "min", h: "h", d: "d" };
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const dash = "–";
  const num = (v) => (v == null ? dash : Number.isInteger(v) || Math.abs(v) >= 100 ? whole.format(v) : tenth.format(v));
  const rate = (v) => (v == null ? dash : v >= 100 || v === 0 ? whole.format(v) : tenth.format(v));
  const size = (v) => {
    if (v == null) return dash;
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (Math.abs(v) >= 1024 && unit < units.length - 1) { v /= 1024; unit++; }
    return `${unit === 0 || v >= 100 ? whole.format(v) : tenth.format(v)} ${units[unit]}`;
  };
  const span = (v) => {
    if (v == null) return dash;
    const t = Math.trunc(v);
    if (t < 60) return `${t} ${words.s}`;
    if (t < 3600) return `${Math.trunc(t / 60)} ${words.m} ${t % 60} ${words.s}`;
    if (t < 86400) return `${Math.trunc(t / 3600)} ${words.h} ${Math.trunc((t % 3600) / 60)} ${words.m}`;
    return `${Math.trunc(t / 86400)} ${words.d} ${Math.trunc((t % 86400) / 3600)} ${words.h}`;
  };
  const zone = document.documentElement.dataset.zone || "UTC";
  const clock = (options) => {
    const base = { hourCycle: "h23", ...options };
    try { return new Intl.DateTimeFormat("sv-SE", { ...base, timeZone: zone }); }
    catch { return new Intl.DateTimeFormat("sv-SE", base); }
  };
  const full = clock({ year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const minute = clock({ hour: "2-digit", minute: "2-digit" });
  const second = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const moment = (v) => (v == null || v < 0 ? dash : full.format(v));
  const ago = (at) => {
    const seconds = Math.round((at - Date.now()) / 1000);
    const relative = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
    for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]])
      if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
    return relative.format(seconds, "second");
  };
  return { num, rate, size, span, moment, text: (v) => (v == null || v === "" ? dash : String(v)), ago, minute, second, full };
})();
