// Buttons that break and mend a local fleet; there only where the dashboard was started so.
import { html, useState } from "./html.js";
import { ask } from "./live.js";

export function useAct(about, onDone) {
  const [busy, setBusy] = useState("");
  const [said, setSaid] = useState("");
  const act = async (action, name, version = "") => {
    setBusy(`${action} ${name} …`);
    setSaid("");
    try {
      const answer = await ask("api/actions", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Shoal-Token": about.actions.token },
        body: JSON.stringify({ action, name, version }),
      });
      setSaid(answer.said);
      onDone?.();
    } catch (error) {
      setSaid(error.message);
    } finally {
      setBusy("");
    }
  };
  return { act, busy, said };
}

function Said({ busy, said }) {
  return html`<p class="said" role="status">${busy || said}</p>`;
}

export function ReplicaActions({ about, replica }) {
  const { act, busy, said } = useAct(about);
  if (!about.actions) return null;
  const [host, id] = [replica.host, replica.id];
  const button = (text, action, name, danger) =>
    html`<button class=${danger ? "danger" : ""} disabled=${Boolean(busy)} onClick=${() => (!danger || confirm(`${text}: ${name}?`)) && act(action, name)}>${text}</button>`;
  return html`<div class="actions" role="group" aria-label="Actions">
    ${replica.state === "GONE" ? button("Start", "start", id) : html`${button("Kill", "kill", id, true)} ${button("Restart", "restart", id)}`}
    ${host && button(`Kill ${host}`, "kill", host, true)} ${host && button(`Start ${host}`, "start", host)}
    <${Said} busy=${busy} said=${said} />
  </div>`;
}

export function UpgradeActions({ about, services }) {
  const { act, busy, said } = useAct(about);
  const versions = about.actions?.versions ?? [];
  const [service, setService] = useState(services[0] ?? "");
  const [version, setVersion] = useState(versions[0] ?? "");
  if (!about.actions) return null;
  return html`<form
    class="actions upgrade"
    aria-label="Upgrade"
    onSubmit=${(event) => {
      event.preventDefault();
      act("upgrade", service || services[0], version || versions[0]);
    }}
  >
    <label>Upgrade <select value=${service} onChange=${(event) => setService(event.currentTarget.value)}>${services.map((each) => html`<option key=${each}>${each}</option>`)}</select></label>
    <label>to <select value=${version} onChange=${(event) => setVersion(event.currentTarget.value)}>${versions.map((each) => html`<option key=${each}>${each}</option>`)}</select></label>
    <button disabled=${Boolean(busy)}>Upgrade</button>
    <${Said} busy=${busy} said=${said} />
  </form>`;
}
