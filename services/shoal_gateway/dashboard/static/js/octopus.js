// The fleet as heads with arms: services, their replicas, and the calls between them.
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { curve, grouped, head, layout, short, thickness } from "./layout.js";
import { STATES, rate, since, span, tally } from "./words.js";

const r2 = (value) => value.toFixed(1);

// A shape for each state, so that none is told by colour alone.
function shape(state, x, y, r) {
  const points = (list) => list.map(([dx, dy]) => `${r2(x + dx * r)},${r2(y + dy * r)}`).join(" ");
  switch (state) {
    case "BUSY":
      return html`<rect x=${x - r * 0.9} y=${y - r * 0.9} width=${r * 1.8} height=${r * 1.8} rx="2" />`;
    case "DRAINING":
      return html`<polygon points=${points([[-1.1, -0.8], [1.1, -0.8], [0, 1.15]])} />`;
    case "EJECTED":
      return html`<polygon points=${points([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]])} />`;
    case "SILENT":
      return html`<polygon points=${points([[-0.55, -1], [0.55, -1], [1.1, 0], [0.55, 1], [-0.55, 1], [-1.1, 0]])} />`;
    case "GONE":
      return html`<path class="cross" d=${`M${r2(x - r * 0.8)} ${r2(y - r * 0.8)}L${r2(x + r * 0.8)} ${r2(y + r * 0.8)}M${r2(x + r * 0.8)} ${r2(y - r * 0.8)}L${r2(x - r * 0.8)} ${r2(y + r * 0.8)}`} />`;
    default:
      return html`<circle cx=${x} cy=${y} r=${r} />`;
  }
}

const SIGNS = { BUSY: "B", DRAINING: "D", EJECTED: "E", SILENT: "?" };

export function Symbol({ state }) {
  return html`<svg class=${`symbol s-${state}`} viewBox="0 0 20 20" aria-hidden="true">
    ${shape(state, 10, 10, 7)}
  </svg>`;
}

export function State({ state }) {
  return html`<span class=${`state s-${state}`}><${Symbol} state=${state} />${state}</span>`;
}

export function Legend({ fleet }) {
  const counts = new Map(tally(fleet.map((each) => each.state)));
  return html`<ul class="legend" aria-label="States">
    ${STATES.map(
      (state) =>
        html`<li key=${state}><${State} state=${state} /> <b>${counts.get(state) ?? 0}</b></li>`,
    )}
  </ul>`;
}

export const keyOf = (replica) => `${replica.service}/${replica.id}`;

export function says(replica, total) {
  const parts = [replica.id, replica.state, replica.host, replica.flavor, `version ${replica.version || "unknown"}`];
  if (total) parts.push(`${rate(total[0])} calls`);
  if (replica.why) parts.push(replica.why);
  return parts.filter(Boolean).join(", ");
}

function Node({ place, node, named, common, total, selected, tab, onSelect, onMove }) {
  const { replica, x, y } = place;
  const other = replica.version !== common;
  const sign = named ? (SIGNS[replica.state] ?? "") : "";
  return html`<g
    class=${`node s-${replica.state} ${selected ? "selected" : ""}`}
    role="button"
    tabindex=${tab ? 0 : -1}
    aria-pressed=${selected ? "true" : "false"}
    aria-label=${says(replica, total)}
    data-key=${keyOf(replica)}
    data-state=${replica.state}
    onClick=${() => onSelect(keyOf(replica))}
    onKeyDown=${(event) => onMove(event, keyOf(replica))}
  >
    <title>${says(replica, total)}</title>
    <circle class="hit" cx=${x} cy=${y} r=${Math.max(node + 3, 9)} />
    ${other && html`<circle class="other" cx=${x} cy=${y} r=${node + 2.5} />`}
    ${shape(replica.state, x, y, node)}
    ${sign && html`<text class="sign" x=${x} y=${y + 4}>${sign}</text>`}
    ${named &&
    html`<text class="name" x=${x} y=${y + node + 13}>${short(replica.service, replica.id)}</text>
      <text class="where" x=${x} y=${y + node + 25}>${other ? replica.version : replica.host}</text>`}
  </g>`;
}

function Head({ group, totals, selected, onSelect }) {
  const versions = tally(group.nodes.map((each) => each.replica.version || "?"));
  const flavors = tally(group.nodes.map((each) => each.replica.flavor).filter(Boolean));
  const keys = group.nodes.map((each) => keyOf(each.replica));
  // One stop for the tab key in each group; arrows go on from there.
  const [at, setAt] = useState(keys[0]);
  const tab = keys.includes(at) ? at : keys[0];
  const move = (event, key) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onSelect(key);
      return;
    }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const index = keys.indexOf(key);
    const next = event.key === "Home" ? 0 : event.key === "End" ? keys.length - 1 : (index + step + keys.length) % keys.length;
    setAt(keys[next]);
    event.currentTarget.parentNode.querySelector(`[data-key="${CSS.escape(keys[next])}"]`)?.focus();
  };
  // Callers that are no replicas themselves are not asked: of those nobody counts.
  const told = keys.filter((key) => totals[key]);
  const calls = told.length ? told.reduce((sum, key) => sum + totals[key][0], 0) : null;
  const alive = group.nodes.filter((each) => each.replica.state !== "GONE").length;
  const facts = [
    versions.map(([version, count]) => (versions.length > 1 ? `${version} ×${count}` : version)).join(", "),
    flavors.length > 1 ? flavors.map(([flavor, count]) => `${flavor} ×${count}`).join(", ") : "",
  ].filter(Boolean);
  return html`<g role="group" aria-label=${`${group.service}: ${alive} of ${group.nodes.length} replicas, ${rate(calls)} calls`}>
    <text class="title" x=${group.x} y=${group.top + 18}>${group.service} · ${alive === group.nodes.length ? alive : `${alive} of ${group.nodes.length}`}</text>
    <text class="facts" x=${group.x} y=${group.top + 34}>${facts.join(" · ")}</text>
    ${group.named &&
    group.nodes.map(
      ({ replica, x, y }) =>
        html`<line
          class=${`arm s-${replica.state}`}
          key=${keyOf(replica)}
          x1=${group.x}
          y1=${group.y}
          x2=${x}
          y2=${y}
          stroke-width=${r2(thickness(totals[keyOf(replica)]?.[0] ?? 0))}
        />`,
    )}
    <circle class="head" cx=${group.x} cy=${group.y} r=${head} />
    <text class="rate" x=${group.x} y=${group.y + 3}>${rate(calls)}</text>
    <text class="unit" x=${group.x} y=${group.y + 18}>calls</text>
    ${group.nodes.map(
      (place) =>
        html`<${Node}
          key=${keyOf(place.replica)}
          place=${place}
          node=${group.node}
          named=${group.named}
          common=${versions[0][0]}
          total=${totals[keyOf(place.replica)]}
          selected=${selected === keyOf(place.replica)}
          tab=${tab === keyOf(place.replica)}
          onSelect=${onSelect}
          onMove=${move}
        />`,
    )}
  </g>`;
}

function Edges({ picture, edges }) {
  const heads = new Map(picture.heads.map((each) => [each.service, each]));
  const found = Object.entries(edges)
    .map(([key, total]) => ({ key, ends: key.split(">"), total }))
    .filter(({ ends }) => heads.has(ends[0]) && heads.has(ends[1]) && ends[0] !== ends[1])
    .map((each) => ({
      ...each,
      ...curve(heads.get(each.ends[0]), heads.get(each.ends[1]), picture.columns),
    }));
  // Labels that would lie on one another stand below one another.
  const tags = [];
  for (const each of found.filter(({ total }) => total[0] > 0)) {
    const lines = each.total[1] > 0 ? 34 : 21;
    const hits = ({ label, total }) => {
      const below = label.y - each.label.y;
      const room = below > 0 ? lines : total[1] > 0 ? 34 : 21;
      return Math.abs(label.x - each.label.x) < 92 && Math.abs(below) < room;
    };
    for (let tries = 0; tries < 8 && tags.some(hits); tries++) each.label.y -= 12;
    tags.push(each);
  }
  return {
    ways: html`<g class="edges" aria-hidden="true">
      ${found.map(
        ({ key, path, total }) =>
          html`<path
            key=${key}
            data-edge=${key}
            class=${`edge ${total[1] > 0 ? "failing" : ""} ${total[0] > 0 ? "" : "still"}`}
            d=${path}
            stroke-width=${r2(thickness(total[0]))}
            marker-end="url(#arrow)"
          />`,
      )}
    </g>`,
    labels: html`<g class="labels" role="list" aria-label="Calls between services">
      ${tags.map(({ key, ends, label, total }) => {
          const text = `${rate(total[0])}${total[2] == null ? "" : ` · ${span(total[2])}`}`;
          const failing = total[1] > 0 ? `${rate(total[1])} fail` : "";
          return html`<g key=${key} role="listitem" aria-label=${`${ends[0]} calls ${ends[1]}: ${text} ${failing}`}>
            <rect class="tag" x=${label.x - 44} y=${label.y - 10} width="88" height=${failing ? 32 : 19} rx="9" />
            <text class="tagtext" x=${label.x} y=${label.y + 4}>${text}</text>
            ${failing && html`<text class="tagtext bad" x=${label.x} y=${label.y + 17}>${failing}</text>`}
          </g>`;
        },
      )}
    </g>`,
  };
}

function Ways({ picture, flows, selected }) {
  if (!selected) return null;
  const places = new Map();
  for (const group of picture.heads)
    for (const each of group.nodes) places.set(keyOf(each.replica), each);
  return html`<g class="single" aria-hidden="true">
    ${flows
      .map(([from, fromId, to, toId, value]) => [`${from}/${fromId}`, `${to}/${toId}`, value])
      .filter(([a, b]) => (a === selected || b === selected) && places.has(a) && places.has(b))
      .map(([a, b, value]) => {
        const [from, to] = [places.get(a), places.get(b)];
        return html`<line key=${`${a}>${b}`} class=${a === selected ? "out" : "in"} x1=${from.x} y1=${from.y} x2=${to.x} y2=${to.y} stroke-width=${r2(thickness(value))} />`;
      })}
  </g>`;
}

function useWidth() {
  const place = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return [place, width];
}

export function Octopus({ fleet, tick, selected, onSelect }) {
  const [place, width] = useWidth();
  const picture = useMemo(() => (width ? layout(fleet, width) : null), [fleet, width]);
  const edges = picture && Edges({ picture, edges: tick.edges });
  return html`<div class="octopus" ref=${place}>
    ${picture &&
    html`<svg width=${picture.width} height=${picture.height} viewBox=${`0 0 ${picture.width} ${picture.height}`} role="group" aria-label="Services and their replicas">
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
          <path d="M0 0 8 4 0 8z" class="arrow" />
        </marker>
      </defs>
      ${edges.ways}
      <${Ways} picture=${picture} flows=${tick.flows} selected=${selected} />
      ${picture.heads.map(
        (group) =>
          html`<${Head} key=${group.service} group=${group} totals=${tick.replicas} selected=${selected} onSelect=${onSelect} />`,
      )}
      ${edges.labels}
    </svg>`}
  </div>`;
}

export function Hosts({ fleet, tick, selected, onSelect }) {
  const hosts = new Map();
  for (const { replicas } of grouped(fleet))
    for (const each of replicas) {
      const name = each.host || "no host told";
      if (!hosts.has(name)) hosts.set(name, []);
      hosts.get(name).push(each);
    }
  const names = [...hosts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return html`<ul class="hosts">
    ${names.map(
      (name) =>
        html`<li key=${name}>
          <h3>${name} <span class="quiet">${hosts.get(name)[0].zone}</span></h3>
          ${hosts.get(name).map(
            (each) =>
              html`<button key=${keyOf(each)} class=${`chip s-${each.state}`} aria-pressed=${selected === keyOf(each) ? "true" : "false"} aria-label=${says(each, tick.replicas[keyOf(each)])} onClick=${() => onSelect(keyOf(each))}>
                <${Symbol} state=${each.state} />${each.id}
              </button>`,
          )}
        </li>`,
    )}
  </ul>`;
}

export function Detail({ fleet, tick, selected, onClose, children }) {
  const replica = fleet.find((each) => keyOf(each) === selected);
  if (!replica) return null;
  const total = tick.replicas[selected];
  const name = (service, id) => `${service}/${id}`;
  const callers = tick.flows.filter(([, , to, id]) => name(to, id) === selected);
  const callees = tick.flows.filter(([from, id]) => name(from, id) === selected);
  const list = (flows, at) =>
    flows.length
      ? flows
          .filter((each) => each[4] > 0)
          .sort((a, b) => b[4] - a[4])
          .slice(0, 8)
          .map((each) => `${each[at]} ${rate(each[4])}`)
          .join(", ") || "none now"
      : "not told";
  return html`<section class="detail" aria-label=${`Replica ${replica.id}`}>
    <header>
      <h3>${replica.id}</h3>
      <${State} state=${replica.state} />
      <button class="plain" onClick=${onClose} aria-label="Close">✕</button>
    </header>
    ${replica.why && html`<p>${replica.why}</p>`}
    <dl>
      <div><dt>service</dt><dd>${replica.service}</dd></div>
      <div><dt>host</dt><dd>${replica.host || "–"}</dd></div>
      <div><dt>zone</dt><dd>${replica.zone || "–"}</dd></div>
      <div><dt>version</dt><dd>${replica.version || "–"}</dd></div>
      <div><dt>flavor</dt><dd>${replica.flavor || "–"}</dd></div>
      <div><dt>address</dt><dd><code>${replica.target}</code></dd></div>
      <div><dt>announced</dt><dd>${since(replica.since)} ago</dd></div>
      <div><dt>is called</dt><dd>${total ? `${rate(total[0])}, ${rate(total[1])} fail, ${total[3]} in flight, ${span(total[2])}` : "–"}</dd></div>
      <div><dt>by</dt><dd>${list(callers, 1)}</dd></div>
      <div><dt>calls</dt><dd>${list(callees, 3)}</dd></div>
    </dl>
    ${children}
  </section>`;
}
