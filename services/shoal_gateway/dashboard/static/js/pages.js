// ZooKeeper's servers, and the configuration with its history.
import { html, useEffect, useState } from "./html.js";
import { ask } from "./live.js";
import { moment } from "./words.js";

const number = (value, unit = "") => (value == null ? "–" : `${value}${unit}`);

export function ZooKeeper({ zookeeper }) {
  return html`<section aria-label="ZooKeeper">
    <h2>ZooKeeper</h2>
    <p>${(zookeeper.quorum ?? "").replace(/^./, (each) => each.toUpperCase())}. The dashboard's own session is ${zookeeper.session}.</p>
    <div class="scroll"><table class="zookeeper">
      <thead><tr><th scope="col">server</th><th scope="col">is</th><th scope="col" class="n">sessions</th><th scope="col" class="n">connections</th><th scope="col" class="n">latency</th><th scope="col" class="n">longest</th><th scope="col" class="n">waiting</th><th scope="col" class="n">nodes</th><th scope="col" class="n">answered in</th><th scope="col">version</th></tr></thead>
      <tbody>
        ${(zookeeper.members ?? []).map(
          (each) => html`<tr key=${each.address}>
            <td><code>${each.address}</code></td>
            <td class=${each.mode ? `z-${each.mode}` : "z-none"}>${each.mode ? `${each.mode === "leader" ? "★ " : ""}${each.mode}` : html`<b>✕</b> ${each.problem}`}${each.synced != null ? ` (${each.synced} followers in step)` : ""}${each.mode && each.problem ? html` <span class="quiet">${each.problem}</span>` : ""}</td>
            <td class="n">${number(each.sessions)}</td>
            <td class="n">${number(each.connections)}</td>
            <td class="n">${number(each.latency?.toFixed(1), " ms")}</td>
            <td class="n">${number(each.worst, " ms")}</td>
            <td class="n">${number(each.outstanding)}</td>
            <td class="n">${number(each.nodes)}</td>
            <td class="n">${each.answered == null ? "–" : `${each.answered.toFixed(1)} ms`}</td>
            <td>${each.version || "–"}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <p class="quiet">Sessions, where the leader or a lone server tells them, are those of the whole ensemble; latency is the mean since the server's start.</p>
  </section>`;
}

const shown = (value) => (value === null || value === undefined ? "none" : JSON.stringify(value));

function flat(document, above = "") {
  return Object.entries(document ?? {}).flatMap(([name, value]) =>
    value && typeof value === "object" && !Array.isArray(value) ? flat(value, `${above}${name}.`) : [[`${above}${name}`, value]],
  );
}

export function Configuration() {
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let shut = false;
    const load = () =>
      ask("api/config").then(
        (answer) => {
          if (!shut) (setFound(answer), setProblem(""));
        },
        (error) => !shut && setProblem(error.message),
      );
    load();
    const timer = setInterval(load, 5000);
    return () => {
      shut = true;
      clearInterval(timer);
    };
  }, []);
  return html`<section aria-label="Configuration">
    <h2>Configuration</h2>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <p class="quiet">What a document does not set, each replica's command line does, or else the default. Change it with <code>shoal config</code>.</p>
    <div class="documents">${(found ?? []).map((each) => {
      const set = new Map(flat(each.document));
      return html`<article key=${each.name} class="document">
        <h3>${each.name}</h3>
        <div class="scroll"><table>
          <thead><tr><th scope="col">field</th><th scope="col">set to</th><th scope="col">default</th></tr></thead>
          <tbody>
            ${flat(each.defaults).map(
              ([path, value]) => html`<tr key=${path} class=${set.has(path) ? "set" : ""}><td><code>${path}</code></td><td>${set.has(path) ? html`<b>${shown(set.get(path))}</b>` : "–"}</td><td>${shown(value)}</td></tr>`,
            )}
          </tbody>
        </table></div>
        ${each.versions.length
          ? html`<h4>History</h4><ol class="versions">
              ${each.versions.map(
                (version) => html`<li key=${version.version}>
                  <b>version ${version.version}</b> <time>${moment(version.when)}</time> ${version.who || "somebody"}${version.why ? `: ${version.why}` : ""}${version.restores != null ? ` (back to version ${version.restores})` : ""}
                  ${version.changes === null
                    ? html`<div class="quiet">what it changed is not kept any more</div>`
                    : version.changes.map(([path, was, now]) => html`<div key=${path}><code>${path}</code> ${shown(was)} → <b>${shown(now)}</b></div>`)}
                </li>`,
              )}
            </ol>`
          : html`<p class="quiet">Nobody has written it yet.</p>`}
      </article>`;
    })}</div>
  </section>`;
}
