// Where everything of the octopus lies. Pure: the same fleet and width give the same picture.

// A replica's name where its service is known anyway.
export function short(service, id) {
  const rest = id.startsWith(`${service}-`) ? id.slice(service.length + 1) : id;
  return rest.length > 14 ? `${rest.slice(0, 8)}…` : rest;
}

// Services in the order in which a job meets them; others after them by name.
const ORDER = ["api", "scheduler", "registry", "appmanager"];

function rank(service) {
  const at = ORDER.indexOf(service);
  return at < 0 ? ORDER.length : at;
}

export function grouped(fleet) {
  const groups = new Map();
  for (const each of fleet) {
    if (!groups.has(each.service)) groups.set(each.service, []);
    groups.get(each.service).push(each);
  }
  const by = (a, b) => a.localeCompare(b, "en", { numeric: true });
  const found = [...groups].map(([service, replicas]) => ({
    service,
    replicas: replicas.sort((a, b) => by(a.host, b.host) || by(a.flavor, b.flavor) || by(a.id, b.id)),
  }));
  return found.sort((a, b) => rank(a.service) - rank(b.service) || by(a.service, b.service));
}

const HEAD = 40;
const TITLE = 46;
// Between two rows, where the labels of the ways between them stand.
const GAP = 40;

// Rings around a head; the first is full before the second begins.
function rings(count, cell) {
  const named = count <= 10;
  if (named) {
    const radius = Math.min(Math.max(96, count * 15), cell / 2 - 44);
    return { named, node: 13, places: ring(count, radius), reach: radius + 42 };
  }
  const node = count <= 30 ? 9 : count <= 100 ? 7 : 5.5;
  const step = 2 * node + 5;
  const places = [];
  let radius = HEAD + step;
  while (places.length < count) {
    const room = Math.floor((2 * Math.PI * radius) / step);
    places.push(...ring(Math.min(room, count - places.length), radius));
    radius += step;
  }
  return { named, node, places, reach: radius };
}

function ring(count, radius) {
  return Array.from({ length: count }, (_, index) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * (index + 0.5)) / count;
    return { x: Math.cos(angle) * radius, y: Math.sin(angle) * radius };
  });
}

// How far a group goes up (-1) or down (1) from its head; names stand below their nodes.
function extent(group, way) {
  const furthest = Math.max(...group.places.map((each) => each.y * way));
  const names = group.named && way > 0 ? 30 : 4;
  return Math.max(HEAD, furthest + group.node + names);
}

export function layout(fleet, width) {
  const groups = grouped(fleet);
  const columns = width < 640 || groups.length < 2 ? 1 : 2;
  const cell = width / columns;
  const heads = [];
  let top = 0;
  for (let at = 0; at < groups.length; at += columns) {
    const row = groups.slice(at, at + columns).map((group) => ({
      ...group,
      ...rings(group.replicas.length, cell),
    }));
    // No more room than the nodes take: three of them leave the top empty.
    const above = Math.max(...row.map((each) => extent(each, -1)));
    const below = Math.max(...row.map((each) => extent(each, 1)));
    row.forEach((group, column) => {
      const x = cell * (column + 0.5);
      const y = top + TITLE + above;
      heads.push({
        service: group.service,
        x,
        y,
        top,
        reach: group.reach,
        named: group.named,
        node: group.node,
        nodes: group.replicas.map((replica, index) => ({
          replica,
          x: x + group.places[index].x,
          y: y + group.places[index].y,
        })),
      });
    });
    top += TITLE + above + below + GAP;
  }
  return { heads, width, height: Math.max(top, 120), columns };
}

// A way from head to head, and where its label stands.
export function curve(from, to, columns) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = Math.hypot(dx, dy) || 1;
  // Always to the same side as seen from the caller: there and back are two ways.
  const bend = columns === 1 ? Math.min(150, 60 + length / 8) : 34;
  const side = columns === 1 ? { x: dy > 0 ? 1 : -1, y: 0 } : { x: -dy / length, y: dx / length };
  const control = {
    x: (from.x + to.x) / 2 + side.x * bend * (columns === 1 ? 1.6 : 2),
    y: (from.y + to.y) / 2 + side.y * bend * 2,
  };
  const start = toward(from, control);
  const end = toward(to, control);
  return {
    path: `M${start.x.toFixed(1)} ${start.y.toFixed(1)} Q${control.x.toFixed(1)} ${control.y.toFixed(1)} ${end.x.toFixed(1)} ${end.y.toFixed(1)}`,
    label: along(start, control, end, between(from, to, start, control, end)),
  };
}

// Where on its way a label stands: in the gap above the lower group, or in the middle of a row.
function between(from, to, start, control, end) {
  if (from.top === to.top) return 0.5;
  const wanted = Math.max(from.top, to.top) - GAP / 2;
  let [low, high] = [0, 1];
  for (let step = 0; step < 20; step++) {
    const t = (low + high) / 2;
    const before = along(start, control, end, t).y < wanted;
    if (before === to.y > from.y) low = t;
    else high = t;
  }
  return low;
}

function along(start, control, end, t) {
  const at = (key) => (1 - t) ** 2 * start[key] + 2 * t * (1 - t) * control[key] + t ** 2 * end[key];
  return { x: at("x"), y: at("y") };
}

function toward(from, to) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = Math.hypot(dx, dy) || 1;
  return { x: from.x + (dx / length) * (HEAD + 4), y: from.y + (dy / length) * (HEAD + 4) };
}

export const head = HEAD;

// So thick is a way by its calls a second.
export const thickness = (rate) => 1 + 2.4 * Math.log10(1 + rate);
