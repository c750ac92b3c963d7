// A form that brings a file: dropped or chosen, with how far it is. The same file, chosen again after a reload, goes on where it was.
import { RefusedError, Sending } from "./pieces.js";

const PREFIX = "attune-upload ";
const HASHED = 2 ** 20;

function prepareUploads() {
  const form = document.getElementById("upload");
  if (!form) return;
  const file = form.querySelector("input[type=file]");
  for (const name of ["dragover", "drop"]) form.addEventListener(name, (event) => event.preventDefault());
  form.addEventListener("dragover", () => form.classList.add("over"));
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    form.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    file.dispatchEvent(new Event("change"));
  });
  file.addEventListener("change", () => restore(form, file.files[0]));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, file.files[0]);
  });
  tellUnfinished(form);
}

async function send(form, file) {
  const shown = new Shown(form, file.size);
  const sending = sendingOf(form, shown);
  try {
    const place = PREFIX + (await fingerprint(form, file));
    const said = saidIn(form, file);
    let kept = read(place);
    if (kept && JSON.stringify(kept.said) !== JSON.stringify(said)) kept = null;
    if (kept?.id && !(await isThere(sending, kept.id))) kept = null;
    kept ||= { key: crypto.randomUUID?.() ?? String(Math.random()), said };
    write(place, kept); // before it is announced: what is lost then is announced once more under the same key
    kept.id ||= (await sending.announce(said, kept.key)).id;
    write(place, kept);
    const made = await sending.complete(kept.id, file).catch(async (error) => {
      const isOver = error.status === 422 || error.code === "too_many_pieces"; // nobody goes on with it
      if (isOver || error.status === 404) forget(place);
      if (isOver) await sending.discard(kept.id).catch(() => {});
      throw error;
    });
    forget(place);
    location.assign(form.dataset.then + made.id);
  } catch (error) {
    shown.fail(error.message);
  }
}

function sendingOf(form, shown) {
  return new Sending(form.dataset.root, form.dataset.csrf, shown.tell, shown.say);
}

async function isThere(sending, id) {
  try {
    await sending.find(id);
    return true;
  } catch (error) {
    if (error instanceof RefusedError && error.status === 404) return false;
    throw error;
  }
}

// What the form says of the file, as it is announced.
function saidIn(form, file) {
  const fields = new FormData(form);
  const said = { purpose: form.dataset.purpose, filename: file.name, size_bytes: file.size };
  for (const [name, value] of fields) if (typeof value === "string" && value) said[name] = value;
  return said;
}

// How far the form's file is.
class Shown {
  constructor(form, size) {
    this.bar = form.querySelector("progress");
    this.percent = form.querySelector("[data-percent]");
    this.alert = form.querySelector("[role=alert]");
    this.button = form.querySelector("button:not([type=button])");
    this.button.disabled = true;
    this.bar.hidden = false;
    this.alert.hidden = true;
    this.tell = (bytes) => {
      this.bar.value = (100 * bytes) / size;
      this.percent.textContent = bytes < size ? `${Math.floor(this.bar.value)} %` : "100 %, being stored";
    };
    this.say = (turn) => {
      this.percent.textContent = `connection lost, trying again (${turn})`;
    };
  }

  fail(words) {
    this.button.disabled = false;
    this.bar.hidden = true;
    this.percent.textContent = "";
    this.alert.textContent = words;
    this.alert.hidden = false;
  }
}

// --- what is kept in the browser over a reload ---------------------------------------------------------------------

// The same for the same file: what it is for, its name, size and time, and its first MiB.
async function fingerprint(form, file) {
  const bytes = new Uint8Array(await file.slice(0, HASHED).arrayBuffer());
  let [a, b] = [0xdeadbeef, 0x41c6ce57]; // cyrb53: browsers have SHA-256 over HTTPS alone
  for (const byte of bytes) {
    a = Math.imul(a ^ byte, 2654435761);
    b = Math.imul(b ^ byte, 1597334677);
  }
  const hash = (a >>> 0).toString(16) + (b >>> 0).toString(16);
  return [form.dataset.purpose, file.name, file.size, file.lastModified, hash].join(" ");
}

// Say of a file that was on its way what was said of it then.
async function restore(form, file) {
  const kept = file && read(PREFIX + (await fingerprint(form, file)));
  if (!kept) return;
  for (const control of form.elements) {
    if (control.type === "checkbox") control.checked = control.name in kept.said;
    else if (control.name && control.type !== "file") control.value = kept.said[control.name] ?? "";
  }
}

// Tell which files are not here whole, and let each be forgotten.
async function tellUnfinished(form) {
  const list = form.querySelector("[data-unfinished]");
  const sending = new Sending(form.dataset.root, form.dataset.csrf, () => {}, () => {});
  for (const place of places(form.dataset.purpose)) {
    const { id } = read(place) ?? {};
    const found = id && (await sending.find(id).catch((error) => (error.status === 404 ? null : undefined)));
    if (found === undefined) continue;
    if (found === null || ["finished", "refused"].includes(found.status)) {
      forget(place);
      continue;
    }
    const line = document.createElement("li");
    const percent = Math.floor((100 * found.offset) / found.size_bytes);
    line.append(`${found.filename}: ${percent} % has arrived. Choose the same file again to go on. `);
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Discard" });
    button.setAttribute("aria-label", `Discard ${found.filename}`);
    button.addEventListener("click", async () => {
      await sending.discard(id).catch(() => {});
      forget(place);
      line.remove();
      list.hidden = !list.children.length;
    });
    line.append(button);
    list.append(line);
    list.hidden = false;
  }
}

function read(place) {
  try {
    return JSON.parse(localStorage.getItem(place));
  } catch {
    return null;
  }
}

function write(place, kept) {
  try {
    localStorage.setItem(place, JSON.stringify(kept));
  } catch {
    // a browser that keeps nothing goes on over broken connections, but not over a reload
  }
}

function forget(place) {
  try {
    localStorage.removeItem(place);
  } catch {
    // nothing is kept here
  }
}

function places(purpose) {
  try {
    return Object.keys(localStorage).filter((one) => one.startsWith(`${PREFIX}${purpose} `));
  } catch {
    return [];
  }
}

prepareUploads();
