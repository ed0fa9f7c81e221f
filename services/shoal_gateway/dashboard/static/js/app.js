// The page: what is shown where.
import { html, render, useEffect, useState } from "./html.js";
import { ReplicaActions, UpgradeActions } from "./actions.js";
import { CHARTS, Chart, Happened } from "./charts.js";
import { Job, Jobs } from "./jobs.js";
import { ask, connect, useLive } from "./live.js";
import { grouped } from "./layout.js";
import { Detail, Hosts, Legend, Octopus, keyOf } from "./octopus.js";
import { Configuration, ZooKeeper } from "./pages.js";

const TABS = [
  ["", "Fleet"],
  ["jobs", "Jobs"],
  ["zookeeper", "ZooKeeper"],
  ["config", "Configuration"],
];
const SPANS = [
  [120, "2 min"],
  [600, "10 min"],
];

function usePlace() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/");
  const [place, setPlace] = useState(read());
  useEffect(() => {
    const turn = () => setPlace(read());
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  return place;
}

// Only what somebody who can't see the picture must know is spoken: that something broke.
function Spoken({ markers }) {
  const last = markers.filter((each) => each.kind === "fault" || each.kind === "zookeeper").pop();
  return html`<p class="unseen" aria-live="polite">${last && Date.now() / 1000 - last.at < 20 ? last.text : ""}</p>`;
}

function Fleet({ about, live }) {
  const [selected, setSelected] = useState("");
  const [view, setView] = useState("services");
  const [seconds, setSeconds] = useState(SPANS[0][0]);
  const select = (key) => setSelected((old) => (old === key ? "" : key));
  const chosen = live.fleet.find((each) => keyOf(each) === selected);
  const shown = { fleet: live.fleet, tick: live.tick, selected, onSelect: select };
  return html`<div class="fleet">
    <section class="picture-of-fleet" aria-label="Fleet">
      <div class="row">
        <h2>Replicas</h2>
        <div class="row" role="group" aria-label="Arranged">
          ${["services", "hosts"].map((each) => html`<button key=${each} aria-pressed=${view === each ? "true" : "false"} onClick=${() => setView(each)}>by ${each}</button>`)}
        </div>
      </div>
      <${Legend} fleet=${live.fleet} />
      ${!live.fleet.length && html`<p class="quiet">${live.began ? "No replica is announced. Start a fleet with shoal up." : "Waiting for the first news …"}</p>`}
      ${live.fleet.length > 0 && (view === "services" ? html`<${Octopus} ...${shown} />` : html`<${Hosts} ...${shown} />`)}
      ${chosen && html`<${Detail} ...${shown} onClose=${() => setSelected("")}><${ReplicaActions} about=${about} replica=${chosen} /></${Detail}>`}
      <${UpgradeActions} about=${about} services=${grouped(live.fleet).map((each) => each.service)} />
    </section>
    <section class="charts" aria-label="Charts">
      <div class="row">
        <h2>The last</h2>
        <div class="row" role="group" aria-label="Time shown">
          ${SPANS.map(([value, text]) => html`<button key=${value} aria-pressed=${seconds === value ? "true" : "false"} onClick=${() => setSeconds(value)}>${text}</button>`)}
        </div>
      </div>
      ${CHARTS.map((chart) => html`<${Chart} key=${chart.title} chart=${chart} live=${live} seconds=${seconds} />`)}
      <${Happened} markers=${live.markers} />
    </section>
  </div>`;
}

function App() {
  const live = useLive();
  const [place, id] = usePlace();
  const [about, setAbout] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    const load = () => ask("api/about").then((answer) => (setAbout(answer), setProblem("")), (error) => setProblem(error.message));
    load();
  }, [live.connected]);
  const faults = live.fleet.filter((each) => each.state !== "UP" && each.state !== "BUSY").length;
  useEffect(() => {
    document.title = faults ? `(${faults}) Shoal` : "Shoal";
  }, [faults]);
  const page = () => {
    if (!about) return html`<p class="quiet">${problem || "Loading …"}</p>`;
    if (place === "jobs") return id ? html`<${Job} key=${id} id=${id} changes=${live.tick.jobs} />` : html`<${Jobs} about=${about} changes=${live.tick.jobs} />`;
    if (place === "zookeeper") return html`<${ZooKeeper} zookeeper=${live.tick.zookeeper} />`;
    if (place === "config") return html`<${Configuration} />`;
    return html`<${Fleet} about=${about} live=${live} />`;
  };
  return html`
    <a class="skip" href="#main">To the content</a>
    <header class="top">
      <h1><img src="static/icon.svg" alt="" width="26" height="26" /> Shoal</h1>
      <nav aria-label="Pages">
        ${TABS.map(([key, text]) => html`<a key=${key} href=${`#/${key}`} aria-current=${(place ?? "") === key ? "page" : undefined}>${text}</a>`)}
      </nav>
      <p class="session">
        <code>${about?.title ?? ""}</code>
        <span class=${live.connected ? "on" : "off"}>${live.connected ? "● live" : live.began ? "○ the dashboard does not answer" : "○ connecting"}</span>
      </p>
    </header>
    <${Spoken} markers=${live.markers} />
    <main id="main" tabindex="-1">${page()}</main>
  `;
}

connect();
const place = document.getElementById("app");
place.textContent = "";
render(html`<${App} />`, place);
