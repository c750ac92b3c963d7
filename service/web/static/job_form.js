// The common fields and the spec are one thing: what is typed into a field is written into the JSON, and the other way round.

export function prepareJobForm() {
  const form = document.getElementById("job-form");
  if (!form) return;
  const text = form.querySelector("textarea[name=spec]");
  const fields = [...form.querySelectorAll("[data-path]")];
  const show = () => {
    const spec = read(text);
    if (!spec) return;
    for (const field of fields) {
      const value = field.dataset.path.split(".").reduce((inner, key) => inner?.[key], spec);
      if (document.activeElement !== field) field.value = typeof value === "object" ? (value?.name ?? "") : (value ?? "");
    }
  };
  text.addEventListener("input", show);
  for (const field of fields) field.addEventListener("input", () => write(text, field));
  show();
}

function read(text) {
  try {
    return JSON.parse(text.value);
  } catch {
    return null;
  }
}

function write(text, field) {
  const spec = read(text);
  if (!spec || (field.type === "number" && field.value !== "" && Number.isNaN(field.valueAsNumber))) return;
  const path = field.dataset.path.split(".");
  const last = path.pop();
  let inner = spec;
  for (const key of path) inner = inner[key] ??= {};
  if (field.value === "") delete inner[last];
  else inner[last] = field.type === "number" ? field.valueAsNumber : field.value;
  text.value = JSON.stringify(spec, null, 2);
}
