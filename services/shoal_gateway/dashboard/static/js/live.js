// What the server tells of the fleet: one stream of events, kept here, and components that look.
import { useEffect, useState } from "./html.js";

const KEPT = 600;
const MARKERS = 500;

export const live = {
  connected: false,
  began: false,
  fleet: [],
  columns: [],
  rows: [],
  markers: [],
  tick: { edges: {}, replicas: {}, flows: [], zookeeper: { members: [] }, jobs: 0 },
};

const watchers = new Set();
let drawn = false;

function changed() {
  // Many events, one drawing.
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    for (const each of watchers) each();
  });
}

export function useLive() {
  const [, turn] = useState(0);
  useEffect(() => {
    const look = () => turn((n) => n + 1);
    watchers.add(look);
    look();
    return () => watchers.delete(look);
  }, []);
  return live;
}

function merge(rows) {
  for (const row of rows) {
    const last = live.rows.length ? live.rows[live.rows.length - 1][0] : -Infinity;
    if (row[0] > last) live.rows.push(row);
    else {
      const index = live.rows.findIndex((each) => each[0] === row[0]);
      if (index >= 0) live.rows[index] = row;
    }
  }
  if (live.rows.length > KEPT) live.rows = live.rows.slice(-KEPT);
}

export function connect() {
  const source = new EventSource("events");
  const on = (name, take) =>
    source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      live.connected = true;
      live.began = true;
      changed();
    });
  on("fleet", (fleet) => {
    live.fleet = fleet;
  });
  on("history", ({ columns, rows, markers }) => {
    Object.assign(live, { columns, rows, markers });
  });
  on("markers", (markers) => {
    live.markers = [...live.markers, ...markers].slice(-MARKERS);
  });
  on("tick", (tick) => {
    merge(tick.rows);
    live.tick = tick;
  });
  source.onerror = () => {
    live.connected = false;
    changed();
    // The browser comes again by itself, except after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

export async function ask(path, options) {
  const answer = await fetch(path, options);
  let document = {};
  try {
    document = await answer.json();
  } catch {
    // Said below by its status.
  }
  if (!answer.ok) throw new Error(document.error ?? `the dashboard answered ${answer.status}`);
  return document;
}
