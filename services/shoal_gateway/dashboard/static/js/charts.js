// Lines over time, a point a second, with what happened as marks across them.
import uPlot from "uplot";
import { html, useEffect, useRef, useState } from "./html.js";
import { clock, span } from "./words.js";

const SIGNS = { fault: "✕", upgrade: "▲", leave: "▼", join: "+", zookeeper: "Z", action: "!" };
const HEIGHT = 150;
// Marks that are drawn; all are listed.
const DRAWN = new Set(["fault", "upgrade", "zookeeper", "action"]);

export const CHARTS = [
  {
    title: "Jobs per second",
    series: [
      { column: "submitted", label: "submitted", colour: "--c1" },
      { column: "succeeded", label: "succeeded", colour: "--c2" },
      { column: "failed", label: "failed", colour: "--c3", dash: [2, 2] },
      { column: "requeued", label: "started again", colour: "--c4", dash: [6, 3] },
    ],
    value: (value) => (value == null ? "–" : String(value)),
  },
  {
    title: "From submit to success",
    series: [
      { column: "p50", label: "median", colour: "--c2" },
      { column: "p95", label: "95 %", colour: "--c1", dash: [6, 3] },
    ],
    value: span,
    points: true,
  },
  {
    title: "Calls between replicas per second",
    series: [
      { column: "calls", label: "calls", colour: "--c1" },
      { column: "failures", label: "failed", colour: "--c3", dash: [2, 2] },
    ],
    value: (value) => (value == null ? "–" : value.toFixed(1)),
  },
  {
    title: "Latency of these calls, long polls too",
    series: [{ column: "latency", label: "mean of callers' estimates", colour: "--c1" }],
    value: span,
  },
];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function marks(getMarkers) {
  return {
    hooks: {
      draw: (plot) => {
        const { ctx, bbox } = plot;
        const ratio = devicePixelRatio;
        ctx.save();
        ctx.font = `${11 * ratio}px system-ui, sans-serif`;
        ctx.textAlign = "center";
        let last = -Infinity;
        for (const each of getMarkers()) {
          if (!DRAWN.has(each.kind)) continue;
          const x = plot.valToPos(each.at, "x", true);
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.strokeStyle = ctx.fillStyle = css(`--m-${each.kind}`);
          ctx.lineWidth = ratio;
          ctx.setLineDash([3 * ratio, 3 * ratio]);
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          // Several at once need one sign only.
          if (x - last > 9 * ratio) ctx.fillText(SIGNS[each.kind], x, bbox.top - 3 * ratio);
          last = x;
        }
        ctx.restore();
      },
    },
  };
}

function options(chart, width, getMarkers, onCursor) {
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width,
    height: HEIGHT,
    padding: [16, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { show: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, high > 0 ? 0 : 1, low)] } },
    axes: [
      { ...axis, space: 70, size: 26, values: (_, ticks) => ticks.map((each) => clock(each)) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map((each) => chart.value(each)) },
    ],
    series: [
      { label: "at", value: (_, value) => clock(value) },
      ...chart.series.map((each) => ({
        label: each.label,
        stroke: css(each.colour),
        width: 1.6,
        dash: each.dash,
        spanGaps: Boolean(chart.points),
        points: chart.points ? { show: true, size: 4 } : { show: false },
        value: (_, value) => chart.value(value),
      })),
    ],
    plugins: [marks(getMarkers)],
    hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)] },
  };
}

function data(chart, live, seconds) {
  const index = chart.series.map((each) => live.columns.indexOf(each.column));
  const rows = live.rows.slice(-seconds);
  return [rows.map((row) => row[0]), ...index.map((at) => rows.map((row) => row[at]))];
}

export function Chart({ chart, live, seconds }) {
  const place = useRef(null);
  const plot = useRef(null);
  const markers = useRef([]);
  markers.current = live.markers;
  const current = useRef(null);
  const [at, setAt] = useState(null);
  current.current = data(chart, live, seconds);
  useEffect(() => {
    const make = (width) => {
      plot.current?.destroy();
      plot.current = new uPlot(options(chart, width, () => markers.current, setAt), current.current, place.current);
    };
    const observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (!width) return;
      if (plot.current) plot.current.setSize({ width, height: HEIGHT });
      else make(width);
    });
    observer.observe(place.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => plot.current && make(plot.current.width);
    dark.addEventListener("change", repaint);
    return () => {
      dark.removeEventListener("change", repaint);
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [chart]);
  useEffect(() => {
    plot.current?.setData(current.current);
  });
  // The second under the pointer, else the last whole one.
  const shown = (values) => values[at ?? values.length - 2] ?? null;
  const [times, ...lines] = current.current;
  const said = chart.series.map((each, index) => `${each.label} ${chart.value(shown(lines[index]))}`);
  return html`<figure class="chart">
    <figcaption>${chart.title} <span class="quiet">${at == null ? "" : clock(shown(times))}</span></figcaption>
    <ul class="key">
      ${chart.series.map(
        (each, index) =>
          html`<li key=${each.label}>
            <svg viewBox="0 0 24 8" aria-hidden="true"><line x1="0" y1="4" x2="24" y2="4" stroke=${`var(${each.colour})`} stroke-width="2.5" stroke-dasharray=${(each.dash ?? []).join(" ")} /></svg>
            ${each.label} <b>${chart.value(shown(lines[index]))}</b>
          </li>`,
      )}
    </ul>
    <div ref=${place} role="img" aria-label=${`${chart.title}: ${said.join(", ")}`}></div>
  </figure>`;
}

export function Happened({ markers }) {
  const shown = markers.slice(-40).reverse();
  return html`<section class="happened" aria-label="What happened">
    <h2>What happened</h2>
    ${shown.length
      ? html`<ol>
          ${shown.map(
            (each) =>
              html`<li key=${`${each.at} ${each.text}`}>
                <span class=${`sign m-${each.kind}`} aria-hidden="true">${SIGNS[each.kind] ?? "·"}</span>
                <time>${clock(each.at)}</time> <span>${each.text}</span>
              </li>`,
          )}
        </ol>`
      : html`<p class="quiet">Nothing since the dashboard was started.</p>`}
  </section>`;
}
