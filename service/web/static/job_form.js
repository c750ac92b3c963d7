// What is wrong with a spec, as the server's verdict says it, told at the controls that it is about.

export function prepareJobForm() {
  const form = document.getElementById("job-form");
  if (!form) return;
  let open = false; // the part "from elsewhere", which each verdict brings anew
  form.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".elsewhere")) open = event.target.open;
  }, true);
  document.body.addEventListener("htmx:after:swap", () => {
    const details = form.querySelector(".elsewhere");
    if (details) details.open = open;
    tellAtFields(form);
  });
  tellAtFields(form);
}

function tellAtFields(form) {
  const errors = [...form.querySelectorAll("[data-error]")].map((one) => [one.dataset.error, one.querySelector("span").textContent]);
  for (const field of form.querySelectorAll("[data-pointer]")) {
    const { pointer } = field.dataset;
    const isAbout = (where) => where === pointer || ("leaf" in field.dataset && where.startsWith(`${pointer}/`));
    const words = errors.filter(([where]) => isAbout(where)).map(([, message]) => message).join(" ");
    const place = field.querySelector(":scope > .error");
    if (place && place.textContent.trim() !== words) place.textContent = words;
    if (place) place.hidden = !words;
    const control = field.querySelector(":scope > input:not([type=hidden]), :scope > select, :scope > textarea, :scope > .tick input");
    if (words) control?.setAttribute("aria-invalid", "true");
    else control?.removeAttribute("aria-invalid");
  }
}
