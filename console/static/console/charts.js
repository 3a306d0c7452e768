// Charts: the past from /history/, the present from the live socket (live.js calls `Charts.push`).
"use strict";
const Charts = (() => {
  const token = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colours = ["--series-1", "--series-2", "--series-3", "--series-4"];
  const dashes = [[], [5, 4], [2, 3], [8, 3]];
  const charts = [];
  // Axis labels as exact as their step, so that no two are alike; counts have whole steps only
  const steps = [...Array(17).keys()].flatMap((power) => [1, 2, 5].map((first) => Number(`${first}e${power - 4}`)));
  const counted = (form) => form === Format.rate || form === Format.num;
  const labels = (form, ticks, step) => {
    if (!counted(form)) return ticks.map(form);
    const compact = ticks.at(-1) >= 1e6, unit = compact ? step / 10 ** (3 * Math.floor(Math.log10(ticks.at(-1)) / 3)) : step;
    const places = Math.min(6, Math.max(0, Math.ceil(-Math.log10(unit) - 1e-9)));
    const exact = new Intl.NumberFormat("en", { notation: compact ? "compact" : "standard", minimumFractionDigits: compact ? 0 : places, maximumFractionDigits: places });
    return ticks.map((tick) => exact.format(tick));
  };
  let span = Number(sessionStorage.getItem("window")) || 3600;

  class Chart {
    constructor(element) {
      this.element = element;
      this.keys = element.dataset.series.split(",");
      this.names = element.dataset.names.split(",");
      this.form = Format[element.dataset.as];
      this.data = [[], ...this.keys.map(() => [])];
      this.pending = [];
      this.step = 1;
      this.legend();
      this.load();
    }
    legend() {
      const holder = $(`[data-legend="${this.element.id}"]`);
      this.values = this.names.map((name, index) => {
        const item = document.createElement("span"), line = document.createElement("i"), value = document.createElement("b");
        item.className = `s${index + 1}`;
        line.setAttribute("aria-hidden", "true");
        value.textContent = "–";
        item.append(line, name, " ", value);
        holder.append(item);
        return value;
      });
    }
    async load() {
      const query = new URLSearchParams(this.keys.map((key) => ["series", key]));
      query.set("window", span);
      const asked = (this.asked = Symbol());
      this.loaded = false;
      try {
        const answer = await (await fetch(`${this.element.dataset.url}?${query}`)).json();
        if (this.asked !== asked) return;
        this.data = [answer.at, ...answer.values];
        this.step = answer.step;
      } catch { /* the live numbers draw it all the same */ }
      this.loaded = true;
      const last = this.data[0].at(-1) ?? 0;
      for (const point of this.pending) if (point[0] > last) this.add(point);
      this.pending = [];
      this.draw();
    }
    push(at, values) {
      const point = [at, ...values];
      values.forEach((value, index) => { this.values[index].textContent = this.form(value); });
      if (!this.loaded) { this.pending.push(point); return; }
      const last = this.data[0].at(-1) ?? 0;
      if (at - last < Math.min(this.step, 30)) return;
      this.add(point);
      if (!document.hidden) this.draw();
    }
    add(point) {
      const last = this.data[0].at(-1);
      if (last && point[0] - last > Math.max(5, 3 * this.step)) {
        this.data[0].push(last + this.step);
        for (let index = 1; index < this.data.length; index++) this.data[index].push(null);
      }
      point.forEach((value, index) => this.data[index].push(value));
      while (this.data[0].length && this.data[0][0] < point[0] - span) for (const column of this.data) column.shift();
    }
    draw() {
      const some = this.data.slice(1).some((column) => column.some((value) => value != null));
      let none = $(".none", this.element);
      if (!some) {
        this.plot?.destroy();
        this.plot = null;
        if (!none) {
          none = document.createElement("p");
          none.className = "none";
          none.textContent = this.element.dataset.none;
          this.element.append(none);
        }
        return;
      }
      none?.remove();
      if (this.plot) this.plot.setData(this.data);
      else this.build();
    }
    build() {
      this.plot?.destroy();
      const { element, form } = this;
      const axis = token("--text-3"), grid = token("--line"), font = "11px Inter, sans-serif";
      const filled = (plot) => {
        const shade = plot.ctx.createLinearGradient(0, plot.bbox.top, 0, plot.bbox.top + plot.bbox.height);
        shade.addColorStop(0, token("--series-1-fill"));
        shade.addColorStop(1, token("--series-1-none"));
        return shade;
      };
      const times = (plot, ticks, _axis, _space, step) =>
        ticks.map((tick) => (step < 60 && plot.width >= 480 ? Format.second : Format.minute).format(tick * 1000));
      this.plot = new uPlot({
        width: element.clientWidth,
        height: element.clientHeight,
        legend: { show: false },
        padding: [10, 14, 0, 0],
        cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false }, sync: { key: "charts" } },
        hooks: { setCursor: [(plot) => this.hover(plot)] },
        scales: {
          x: { time: true, range: (_plot, low, high) => [Math.max(high - span, Math.min(low, high - 300)), high] },
          y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.15 : 1] },
        },
        axes: [
          { stroke: axis, font, grid: { show: false }, ticks: { show: false }, gap: 6, size: 28, space: (plot) => (plot?.width < 480 ? 56 : 84), values: times },
          { stroke: axis, font, grid: { stroke: grid, width: 1 }, ticks: { show: false }, gap: 6, size: 56, space: 44, ...(counted(form) && { incrs: form === Format.num ? steps.filter((step) => step >= 1) : steps }), values: (_plot, ticks, _axis, _space, step) => labels(form, ticks, step) },
        ],
        series: [
          {},
          ...this.keys.map((_key, index) => ({
            stroke: token(colours[index]), width: 2, dash: dashes[index], points: { show: false },
            spanGaps: false, fill: index === 0 ? filled : undefined,
          })),
        ],
      }, this.data, element);
    }
    hover(plot) {
      const at = plot.cursor.idx;
      if (at == null) return;
      this.values.forEach((value, index) => { value.textContent = this.form(this.data[index + 1][at]); });
    }
  }

  // Sparklines: the last minutes of one series, no axes
  const sparks = new Map();
  function spark(canvas, data) {
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const known = data.filter((value) => value != null);
    if (known.length < 2) return;
    const low = Math.min(...known), high = Math.max(...known), reach = high - low || 1;
    const x = (index) => (index / (data.length - 1)) * (width - 4) + 1;
    const y = (value) => (high === low ? height / 2 : height - 3 - ((value - low) / reach) * (height - 6));
    pen.strokeStyle = pen.fillStyle = token("--spark");
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    data.forEach((value, index) => {
      if (value == null) { drawing = false; return; }
      if (drawing) pen.lineTo(x(index), y(value)); else pen.moveTo(x(index), y(value));
      drawing = true;
    });
    pen.stroke();
    if (data.at(-1) != null) { pen.beginPath(); pen.arc(x(data.length - 1), y(data.at(-1)), 2.2, 0, 7); pen.fill(); }
  }
  async function loadSpark(canvas) {
    const key = canvas.dataset.spark;
    sparks.set(canvas, []);
    const url = $("[data-chart]")?.dataset.url;
    if (!url) return;
    try {
      const answer = await (await fetch(`${url}?${new URLSearchParams({ series: key, window: 300 })}`)).json();
      sparks.set(canvas, [...answer.values[0].slice(-90), ...sparks.get(canvas)].slice(-120));
      spark(canvas, sparks.get(canvas));
    } catch { /* it fills as numbers arrive */ }
  }

  function push(at, numberOf) {
    for (const chart of charts) chart.push(at, chart.keys.map(numberOf));
    for (const [canvas, data] of sparks) {
      data.push(numberOf(canvas.dataset.spark));
      if (data.length > 120) data.shift();
      if (!document.hidden) spark(canvas, data);
    }
  }
  const buttons = $$("[data-window]");
  const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.window) === span)));
  if (!buttons.some((button) => Number(button.dataset.window) === span)) span = 3600;
  mark();
  for (const button of buttons) button.addEventListener("click", () => {
    span = Number(button.dataset.window);
    sessionStorage.setItem("window", span);
    mark();
    charts.forEach((chart) => { chart.plot?.destroy(); chart.plot = null; chart.load(); });
  });
  for (const element of $$("[data-chart]")) charts.push(new Chart(element));
  for (const canvas of $$("[data-spark]")) loadSpark(canvas);
  const redraw = () => { for (const chart of charts) if (chart.plot) chart.build(); for (const [canvas, data] of sparks) spark(canvas, data); };
  document.addEventListener("themechange", redraw);
  new ResizeObserver(() => {
    for (const chart of charts) chart.plot?.setSize({ width: chart.element.clientWidth, height: chart.element.clientHeight });
    for (const [canvas, data] of sparks) spark(canvas, data);
  }).observe(document.body);
  const keys = () => [...charts.flatMap((chart) => chart.keys), ...$$("[data-spark]").map((canvas) => canvas.dataset.spark)];
  return { push, keys };
})();
