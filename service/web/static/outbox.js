// Votes on their way: each is kept in this browser until the server has it, whatever becomes of the connection, the tab or the session.
// One entry a question, the last word of all tabs; votes are idempotent, so what is sent twice is there once.

const PREFIX = "attune-vote ";
const LONGEST_WAIT = 15; // seconds between tries
const TIMEOUT = 20_000;
const here = new Map(); // where a browser keeps nothing
const listeners = new Set();
let csrf = null;
let isSending = false;
let wait = 1;
let timer = 0;

// What is said of the question at this address: a choice, or null, which takes it back.
export function keep(address, choice) {
  write(PREFIX + address, JSON.stringify({ choice, at: Date.now() }));
  wait = 1;
  return sendKept();
}

// The votes below an address that the server does not have yet.
export function waiting(below) {
  return keys().filter((key) => key.startsWith(PREFIX + below));
}

export function isWaiting(address) {
  return read(PREFIX + address) !== null;
}

// Told after every try: {sent: address, answer}, {refused: words}, {isOffline: true}, {isSignedOut: true}, or {isEmpty: true} at the end.
export function onPost(listener) {
  listeners.add(listener);
}

// A word of another tab: what was said there of the question at this address.
export function onOtherTab(listener) {
  addEventListener("storage", (event) => {
    if (!event.key?.startsWith(PREFIX) || event.newValue === null) return;
    listener(event.key.slice(PREFIX.length), JSON.parse(event.newValue).choice);
  });
}

export async function sendKept() {
  if (isSending) return;
  isSending = true;
  clearTimeout(timer);
  const left = new Set(); // those of somebody else's key, or that came back: not tried again now
  try {
    for (let entry = first(left); entry; entry = first(left)) {
      const outcome = await send(entry);
      if (outcome === "later") return;
      if (outcome === "left") left.add(entry.key);
    }
    wait = 1;
    tell({ isEmpty: true });
  } finally {
    isSending = false;
  }
}

async function send({ key, address, text, choice }, isRenewed = false) {
  const body = choice === null ? {} : { body: JSON.stringify({ choice }), headers: { "Content-Type": "application/json" } };
  const headers = { Accept: "application/json", ...body.headers, ...(token() ? { "X-CSRF-Token": token() } : {}) };
  const method = choice === null ? "DELETE" : "PUT";
  let answer;
  try {
    answer = await fetch(address, { ...body, method, headers, credentials: "same-origin", keepalive: true, signal: AbortSignal.timeout(TIMEOUT) });
  } catch {
    return again({ isOffline: true });
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) {
    if (read(key) === text) forget(key); // what was said meanwhile goes next
    tell({ sent: address, answer: told });
    return "sent";
  }
  if ([401, 403].includes(answer.status) && !isRenewed && (await renewed())) return send({ key, address, text, choice }, true);
  if (answer.status === 401) return again({ isSignedOut: true });
  if (answer.status >= 500 || [408, 409, 425, 429].includes(answer.status)) return again({ isOffline: true });
  if (told.errors?.some((one) => one.code === "annotator_is_key")) return "left"; // kept until its own key is back
  if (read(key) === text) forget(key);
  tell({ refused: told.detail || `the server answered ${answer.status}` });
  return "sent";
}

function again(why) {
  tell(why);
  timer = setTimeout(sendKept, 1000 * wait);
  wait = Math.min(2 * wait, LONGEST_WAIT);
  return "later";
}

// After a new sign-in in another tab the page's CSRF token is an old one.
async function renewed() {
  const home = document.querySelector(".brand").getAttribute("href"); // ends in a slash, whatever a proxy puts before it
  const answer = await fetch(`${home}v1/sessions/current`, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return false;
  csrf = (await answer.json()).csrf_token;
  return true;
}

function token() {
  return csrf ?? document.querySelector("input[name=csrf]")?.value;
}

function first(left) {
  const entries = keys().filter((key) => !left.has(key)).map((key) => ({ key, address: key.slice(PREFIX.length), text: read(key) }));
  return entries.filter((one) => one.text).map((one) => ({ ...one, ...JSON.parse(one.text) })).sort((a, b) => a.at - b.at)[0];
}

function tell(what) {
  for (const listener of listeners) listener(what);
}

// --- where they are kept ---------------------------------------------------------------------------------------------

function keys() {
  let kept = [];
  try {
    kept = Object.keys(localStorage);
  } catch {
    // no storage is allowed
  }
  return [...new Set([...kept, ...here.keys()])].filter((key) => key.startsWith(PREFIX));
}

function read(key) {
  try {
    return localStorage.getItem(key) ?? here.get(key) ?? null;
  } catch {
    return here.get(key) ?? null;
  }
}

function write(key, text) {
  try {
    localStorage.setItem(key, text);
  } catch {
    here.set(key, text);
  }
}

function forget(key) {
  here.delete(key);
  try {
    localStorage.removeItem(key);
  } catch {
    // it was never there
  }
}

addEventListener("online", () => { wait = 1; sendKept(); });
