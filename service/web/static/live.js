// What the stream of a run's events says, handed to the page: points to the curves, and a word that something changed to htmx.

const CHANGES = ["phase_changed", "warning_raised", "run_stopped", "run_failed", "run_completed", "result_selected", "evaluation_completed", "done"];

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
    const { data } = JSON.parse(event.detail.data);
    const metrics = Object.fromEntries(Object.entries(data.metrics).map(([name, value]) => [`validation/${name}`, value]));
    tell("attune:step", { step: data.step, metrics });
  });
  live.addEventListener("probe_completed", (event) => {
    const { data } = JSON.parse(event.detail.data);
    if (data.metrics) tell("attune:step", { step: data.step, metrics: data.metrics });
  });
  for (const name of CHANGES) live.addEventListener(name, () => tell("attune:changed", {}));
}

function showStep({ step, total_steps: total }) {
  const bar = document.querySelector("#progress progress");
  const numbers = document.querySelector("#progress .numbers");
  if (bar && total) bar.value = (100 * step) / total;
  if (numbers) numbers.textContent = `${step}/${total}`;
}

function tell(name, detail) {
  document.body.dispatchEvent(new CustomEvent(name, { detail }));
}
