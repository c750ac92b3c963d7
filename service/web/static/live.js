// What the stream of a run's events says, handed to the page: points to the curves, and a word that something changed to htmx.

const CHANGES = ["phase_changed", "warning_raised", "run_stopped", "run_failed", "run_completed", "result_selected", "evaluation_completed", "done"];

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function followRun() {
  const live = document.getElementById("live");
  if (!live) return;
  let latest = null;
  live.addEventListener("step_completed", (event) => {
    const { data } = JSON.parse(event.detail.data);
    tell("attune:step", { step: data.step, metrics: data.metrics });
    latest = data;
    showStep(data);
  });
  // What was asked for before a step and is answered after it would take the reader back.
  document.body.addEventListener("htmx:after:swap", () => {
    const shown = document.querySelector("#progress .numbers");
    if (latest && shown && parseInt(shown.textContent, 10) < latest.step) showStep(latest);
  });
  live.addEventListener("validation_completed", (event) => {
    tellPoints("validation", JSON.parse(event.detail.data).data);
  });
  live.addEventListener("probe_completed", (event) => {
    tellPoints("held_out", JSON.parse(event.detail.data).data);
  });
  for (const name of CHANGES) live.addEventListener(name, () => tell("attune:changed", {}));
}

// Under the names that the API gives them, so that a page that was opened later shows the same curves.
function tellPoints(prefix, { step, metrics }) {
  const named = Object.entries(metrics || {}).map(([name, value]) => [`${prefix}/${name}`, value]);
  tell("attune:step", { step, metrics: Object.fromEntries(named) });
}

function showStep({ step, total_steps: total, eta_seconds: seconds }) {
  const bar = document.querySelector("#progress progress");
  const numbers = document.querySelector("#progress .numbers");
  if (bar && total) bar.value = (100 * step) / total;
  if (numbers) numbers.textContent = `${step}/${total}`;
  const eta = document.getElementById("eta");
  if (!eta || seconds === null || seconds === undefined) return;
  eta.textContent = duration(seconds);
  eta.parentElement.hidden = false;
}

// As `duration` of service/web/words.py says it: the two largest units.
function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  let left = Math.round(seconds);
  const parts = [];
  for (const [size, unit] of UNITS) {
    if (left >= size || (parts.length && unit !== "s")) {
      parts.push(`${Math.floor(left / size)} ${unit}`);
      left %= size;
    }
    if (parts.length === 2) break;
  }
  return parts.filter((part) => !part.startsWith("0 ")).join(" ");
}

function tell(name, detail) {
  document.body.dispatchEvent(new CustomEvent(name, { detail }));
}
