// The log of a run goes on as it is written: what is new is put below what is there, which stays as the reader has it.

const SOON_MS = 5000; // as often as a worker keeps what was written
const SILENT_MS = 15000;
const CLOSE = 4; // pixels

const place = document.getElementById("logs");
let timer = null;
let dueAt = Infinity;
let isAsking = false;
let hasEnded = false;

if (place && document.getElementById("live")) {
  document.body.addEventListener("attune:step", () => askIn(SOON_MS));
  document.body.addEventListener("attune:changed", () => askIn(0));
  document.addEventListener("visibilitychange", () => document.hidden || askIn(0));
  askIn(SOON_MS);
}

function askIn(milliseconds) {
  const at = Date.now() + milliseconds;
  if (at >= dueAt) return;
  clearTimeout(timer);
  dueAt = at;
  timer = setTimeout(ask, milliseconds);
}

async function ask() {
  dueAt = Infinity;
  if (document.hidden || hasEnded) return;
  if (isAsking) return askIn(SOON_MS); // two answers to one question would be written twice
  isAsking = true;
  try {
    const answer = await fetch(`${location.pathname}?seen=${encodeURIComponent(place.dataset.seen)}`, { headers: { Accept: "application/json" } });
    if (answer.ok) hasEnded = show(await answer.json());
    else hasEnded = answer.status === 404;
  } catch {
    // The server is away: it is asked again.
  } finally {
    isAsking = false;
  }
  if (!hasEnded) askIn(SILENT_MS);
}

function show({ pieces, seen, has_ended }) {
  for (const piece of pieces) write(piece);
  place.dataset.seen = seen;
  return has_ended;
}

function write({ attempt, text, follows }) {
  document.getElementById("no-log")?.remove();
  const log = document.getElementById(`log-${attempt}`) || begin(attempt);
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < CLOSE;
  log.append(follows || !log.textContent ? text : `…\n${text}`);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function begin(attempt) {
  const heading = document.createElement("h2");
  heading.textContent = `Attempt ${attempt}`;
  const log = document.createElement("pre");
  Object.assign(log, { className: "log", id: `log-${attempt}`, tabIndex: 0 });
  place.append(heading, log);
  return log;
}
