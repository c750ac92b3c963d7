// A file on its way to the API: dropped or chosen, with how far it is, and tried again under the same key where the connection broke.

const TRIES = 5;

export function prepareUploads() {
  const form = document.getElementById("upload");
  if (!form) return;
  const file = form.querySelector("input[type=file]");
  for (const name of ["dragover", "drop"]) form.addEventListener(name, (event) => event.preventDefault());
  form.addEventListener("dragover", () => form.classList.add("over"));
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    form.classList.remove("over");
    if (event.dataTransfer.files.length) file.files = event.dataTransfer.files;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, crypto.randomUUID ? crypto.randomUUID() : String(Math.random()), 1);
  });
}

function send(form, key, turn) {
  const bar = form.querySelector("progress");
  const percent = form.querySelector("[data-percent]");
  const alert = form.querySelector("[role=alert]");
  const button = form.querySelector("button");
  const request = new XMLHttpRequest(); // fetch does not say how far an upload is
  const fields = new FormData(form);
  if (!fields.get("name")) fields.delete("name");
  request.open("POST", form.action);
  request.setRequestHeader("Idempotency-Key", key);
  request.setRequestHeader("Accept", "application/json");
  if (form.dataset.csrf) request.setRequestHeader("X-CSRF-Token", form.dataset.csrf);
  button.disabled = true;
  bar.hidden = false;
  alert.hidden = true;
  request.upload.addEventListener("progress", (event) => {
    bar.value = (100 * event.loaded) / event.total;
    percent.textContent = `${Math.round(bar.value)} %`;
  });
  const fail = (words) => {
    button.disabled = false;
    bar.hidden = true;
    percent.textContent = "";
    alert.textContent = words;
    alert.hidden = false;
  };
  request.addEventListener("load", () => {
    const answer = JSON.parse(request.responseText || "{}");
    if (request.status === 201) location.assign(form.dataset.then + answer.id);
    else fail(answer.detail || `the server answered ${request.status}`);
  });
  request.addEventListener("error", () => {
    if (turn >= TRIES) return fail("The connection broke. Press Upload to try again; nothing is stored twice.");
    percent.textContent = `connection lost, trying again (${turn})`;
    setTimeout(() => send(form, key, turn + 1), 1000 * 2 ** turn);
  });
  request.send(fields);
}
