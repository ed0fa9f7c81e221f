// Numbers and times as people read them.
export const STATES = ["UP", "BUSY", "DRAINING", "EJECTED", "SILENT", "GONE"];

export function rate(value) {
  if (value == null) return "–";
  if (value === 0) return "0/s";
  if (value < 0.1) return "<0.1/s";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}/s`;
}

export function span(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const since = (at) => (at ? span(Math.max(0, Date.now() / 1000 - at)) : "–");

export function clock(at) {
  return at ? new Date(at * 1000).toLocaleTimeString([], { hour12: false }) : "–";
}

export function moment(at) {
  return at ? new Date(at * 1000).toLocaleString([], { hour12: false }) : "–";
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = "";
  for (const each of units) {
    value /= 1024;
    unit = each;
    if (value < 1024) break;
  }
  return `${value.toFixed(1)} ${unit}`;
}

// "3 of 0.1.0, 1 of 1.1": how often each value stands in a list, the most frequent first.
export function tally(values) {
  const counts = new Map();
  for (const each of values) counts.set(each, (counts.get(each) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}
