// The table of jobs, and one job: attempts, history, logs that follow, outputs.
import { html, useEffect, useRef, useState } from "./html.js";
import { ask } from "./live.js";
import { clock, moment, size, span } from "./words.js";

// Between two looks at the table while jobs change, milliseconds.
const REFRESH = 1000;
// Characters of a log that are kept on the page.
const LOG = 400_000;
const OVER = new Set(["SUCCEEDED", "FAILED", "CANCELLED", "DEAD"]);

export function JobState({ state }) {
  const sign = { SUCCEEDED: "✓", FAILED: "✕", DEAD: "✕", CANCELLED: "–", RUNNING: "▶" }[state] ?? "…";
  return html`<span class=${`job j-${state}`}><span aria-hidden="true">${sign}</span> ${state}</span>`;
}

function took(job) {
  if (!job.started) return "–";
  return span((job.ended || Date.now() / 1000) - job.started);
}

export function Jobs({ about, changes }) {
  const [states, setStates] = useState([]);
  const [owner, setOwner] = useState("");
  const [text, setText] = useState("");
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  const asked = useRef({ at: 0, timer: 0, turn: 0 });

  const load = async (page = "") => {
    const query = new URLSearchParams(states.map((each) => ["state", each]));
    if (owner) query.set("owner", owner);
    if (page) query.set("page", page);
    const turn = ++asked.current.turn;
    try {
      const answer = await ask(`api/jobs?${query}`);
      // An answer to an earlier question may come last.
      if (turn !== asked.current.turn) return;
      setFound((old) => (page ? { ...answer, jobs: [...old.jobs, ...answer.jobs] } : answer));
      setProblem("");
    } catch (error) {
      if (turn === asked.current.turn) setProblem(error.message);
    }
  };

  useEffect(() => {
    const timer = setTimeout(load, owner ? 250 : 0);
    return () => clearTimeout(timer);
  }, [states.join(), owner]);

  // While pages further down are shown, the table stands still.
  const refresh = () => found && found.jobs.length <= 100 && load();
  // A timer asks by the filters of when it ends, not of when it was set.
  const latest = useRef(refresh);
  latest.current = refresh;
  useEffect(() => {
    if (asked.current.timer) return;
    const wait = Math.max(0, asked.current.at + REFRESH - Date.now());
    asked.current.timer = setTimeout(() => {
      asked.current.timer = 0;
      asked.current.at = Date.now();
      latest.current();
    }, wait);
  }, [changes]);
  useEffect(() => () => clearTimeout(asked.current.timer), []);

  const needle = text.trim().toLowerCase();
  const shown = (found?.jobs ?? []).filter(
    (job) => !needle || `${job.id} ${job.application} ${job.owner} ${job.reason}`.toLowerCase().includes(needle),
  );
  const toggle = (state) =>
    setStates((old) => (old.includes(state) ? old.filter((each) => each !== state) : [...old, state]));
  return html`<section aria-label="Jobs">
    <div class="filters">
      <fieldset>
        <legend>State</legend>
        ${about.states.map(
          (state) =>
            html`<label key=${state} class="pick"><input type="checkbox" checked=${states.includes(state)} onChange=${() => toggle(state)} />${state.toLowerCase()}</label>`,
        )}
      </fieldset>
      <label class="field">Owner <input type="search" value=${owner} onInput=${(event) => setOwner(event.currentTarget.value)} placeholder="all" /></label>
      <label class="field">Contains <input type="search" value=${text} onInput=${(event) => setText(event.currentTarget.value)} placeholder="id, application, reason" /></label>
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${found && !shown.length && html`<p class="quiet">No jobs${states.length || owner || needle ? " like that" : " yet: submit some with shoal submit"}.</p>`}
    ${shown.length > 0 &&
    html`<div class="scroll">
      <table class="jobs">
        <thead>
          <tr><th scope="col">job</th><th scope="col">state</th><th scope="col">application</th><th scope="col">owner</th><th scope="col" class="n">starts</th><th scope="col">submitted</th><th scope="col" class="n">ran</th><th scope="col">reason</th></tr>
        </thead>
        <tbody>
          ${shown.map(
            (job) =>
              html`<tr key=${job.id}>
                <td data-label="job"><a href=${`#/jobs/${job.id}`}><code title=${job.id}>${job.id.slice(0, 8)}</code></a></td>
                <td data-label="state"><${JobState} state=${job.state} /></td>
                <td data-label="application">${job.application}</td>
                <td data-label="owner">${job.owner}</td>
                <td data-label="starts" class="n">${job.attempt}</td>
                <td data-label="submitted"><time title=${moment(job.submitted)}>${clock(job.submitted)}</time></td>
                <td data-label="ran" class="n">${took(job)}</td>
                <td data-label="reason" class="reason">${job.reason}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>`}
    ${found?.next && html`<p><button onClick=${() => load(found.next)}>Older jobs</button></p>`}
  </section>`;
}

function Log({ id }) {
  const [stream, setStream] = useState("stdout");
  const [text, setText] = useState("");
  const [state, setState] = useState("follows");
  const place = useRef(null);
  useEffect(() => {
    let kept = "";
    let attempt = 0;
    setText("");
    setState("follows");
    const source = new EventSource(`api/jobs/${id}/logs?stream=${stream}`);
    source.addEventListener("log", (event) => {
      const told = JSON.parse(event.data);
      if (attempt && told.attempt !== attempt) kept += `\n— start ${told.attempt} —\n`;
      attempt = told.attempt;
      kept = (kept + told.text).slice(-LOG);
      setText(kept);
    });
    source.addEventListener("problem", (event) => setState(JSON.parse(event.data).said));
    source.addEventListener("end", () => {
      setState((old) => (old === "follows" ? "complete" : old));
      source.close();
    });
    return () => source.close();
  }, [id, stream]);
  useEffect(() => {
    const box = place.current;
    // Whoever has scrolled up wants to read there.
    if (box && box.scrollHeight - box.scrollTop - box.clientHeight < 80) box.scrollTop = box.scrollHeight;
  }, [text]);
  return html`<section class="log">
    <h3>Log</h3>
    <div class="row" role="group" aria-label="Stream">
      ${["stdout", "stderr"].map(
        (each) => html`<button key=${each} aria-pressed=${each === stream ? "true" : "false"} onClick=${() => setStream(each)}>${each}</button>`,
      )}
      <span class="quiet">${state}</span>
    </div>
    <pre ref=${place} tabindex="0" aria-label=${`${stream} of the job`}>${text || (state === "follows" ? "…" : "(nothing)")}</pre>
  </section>`;
}

function Output({ id, file }) {
  const path = `api/jobs/${id}/outputs/${file.name.split("/").map(encodeURIComponent).join("/")}`;
  const picture = /\.png$/i.test(file.name);
  const [text, setText] = useState(null);
  const readable = /\.(txt|json|csv)$/i.test(file.name) && file.size <= 65_536;
  useEffect(() => {
    if (readable) fetch(path).then((answer) => (answer.ok ? answer.text() : "")).then(setText);
  }, [path]);
  return html`<li>
    <a href=${path} download=${file.name.split("/").pop()}>${file.name}</a> <span class="quiet">${size(file.size)} · sha256 ${file.sha256.slice(0, 12)}…</span>
    ${picture && html`<a href=${path} class="picture"><img src=${path} alt=${`Output ${file.name}`} loading="lazy" /></a>`}
    ${text && html`<pre class="preview" tabindex="0" aria-label=${`Content of ${file.name}`}>${text}</pre>`}
  </li>`;
}

// Each job has one of its own, by its key: an answer about another never comes here.
export function Job({ id, changes }) {
  const [job, setJob] = useState(null);
  const [problem, setProblem] = useState("");
  const timer = useRef(0);
  const over = job && OVER.has(job.state);
  const load = () =>
    ask(`api/jobs/${id}`).then(
      (answer) => {
        setJob(answer);
        setProblem("");
      },
      (error) => setProblem(error.message),
    );
  useEffect(() => {
    load();
  }, []);
  useEffect(() => {
    if (over || timer.current) return;
    timer.current = setTimeout(() => {
      timer.current = 0;
      load();
    }, REFRESH / 2);
  }, [changes]);
  useEffect(() => () => clearTimeout(timer.current), []);
  if (!job) return html`<section><p><a href="#/jobs">All jobs</a></p>${problem ? html`<p class="problem" role="alert">${problem}</p>` : html`<p class="quiet">Loading …</p>`}</section>`;
  const parameters = Object.entries(job.parameters);
  return html`<section aria-label=${`Job ${job.id}`} class="onejob">
    <p><a href="#/jobs">All jobs</a></p>
    <h2>${job.application} <${JobState} state=${job.state} /></h2>
    <p><code>${job.id}</code></p>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${job.reason && html`<p>${job.reason}</p>`}
    <dl>
      <div><dt>owner</dt><dd>${job.owner}</dd></div>
      <div><dt>flavor</dt><dd>${job.flavor}</dd></div>
      <div><dt>submitted</dt><dd>${moment(job.submitted)}</dd></div>
      <div><dt>waited</dt><dd>${job.started ? span(job.started - job.submitted) : "–"}</dd></div>
      <div><dt>ran</dt><dd>${took(job)}</dd></div>
      <div><dt>exit code</dt><dd>${job.exit_code ?? "–"}</dd></div>
      ${parameters.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    ${job.outputs.length > 0 && html`<h3>Outputs</h3><ul class="outputs">${job.outputs.map((file) => html`<${Output} key=${file.name} id=${id} file=${file} />`)}</ul>`}
    <h3>Attempts</h3>
    ${job.attempts.length
      ? html`<div class="scroll"><table>
          <thead><tr><th scope="col" class="n">start</th><th scope="col">outcome</th><th scope="col">host</th><th scope="col">manager</th><th scope="col">version</th><th scope="col">began</th><th scope="col" class="n">took</th><th scope="col" class="n">exit</th></tr></thead>
          <tbody>
            ${job.attempts.map(
              (each) => html`<tr key=${each.number}><td class="n">${each.number}</td><td>${each.outcome}</td><td>${each.host}</td><td>${each.manager}</td><td>${each.version || "–"}</td><td>${clock(each.started)}</td><td class="n">${each.ended ? span(each.ended - each.started) : "…"}</td><td class="n">${each.exit_code ?? "–"}</td></tr>`,
            )}
          </tbody>
        </table></div>`
      : html`<p class="quiet">It has not been started yet.</p>`}
    <h3>History</h3>
    <ol class="events">${job.events.map((each, at) => html`<li key=${at}><time>${clock(each.at)}</time> <${JobState} state=${each.state} /> <span>${each.message}</span></li>`)}</ol>
    <${Log} id=${id} />
  </section>`;
}
