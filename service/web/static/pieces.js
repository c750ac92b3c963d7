// A file sent piece by piece: what has arrived stays on the server, and is asked for where a connection broke.

const PIECE = 8 * 2 ** 20;
const TRIES = 8; // in a row that bring nothing
const LONGEST_WAIT = 15; // seconds between tries
const STALLED = 60_000; // ms in which nothing leaves
const IN_A_MOMENT = [408, 425, 429, 502, 503, 504];
const CODES_IN_A_MOMENT = ["upload_offset_differs", "idempotency_in_flight"];

class BrokenError extends Error {}
class AtWorkError extends Error {} // another request makes something of the upload

// What the server said, as `{status, code, detail}`; it says the same of the same request.
export class RefusedError extends Error {
  constructor(status, problem) {
    super(problem.detail || `the server answered ${status}`);
    this.status = status;
    this.code = problem.code;
  }
}

// One file on its way. `csrf` is the session's token, `tell(bytes)` hears how much has left, `say(turn)` that a connection broke.
export class Sending {
  constructor(root, csrf, tell, say) {
    Object.assign(this, { root, csrf, tell, say, failures: 0, reached: 0 });
  }

  // The upload that is announced so under this key, once however often it is asked for.
  announce(said, key) {
    return this.patiently(() => this.ask("POST", "", { "Idempotency-Key": key }, said));
  }

  find(id) {
    return this.patiently(() => this.ask("GET", `/${id}`));
  }

  discard(id) {
    return this.patiently(() => this.ask("DELETE", `/${id}`));
  }

  // Send what is missing of the file, and what the upload has become then.
  async complete(id, file) {
    await this.patiently(() => this.sendRest(id, file));
    return this.patiently(() => this.ask("POST", `/${id}/finish`));
  }

  async sendRest(id, file) {
    let { offset, status } = await this.ask("GET", `/${id}`);
    this.hasReached(offset);
    while (status === "receiving" && offset < file.size) {
      this.tell(offset);
      await this.sendPiece(id, file.slice(offset, offset + PIECE), offset);
      offset = Math.min(offset + PIECE, file.size);
      this.hasReached(offset);
    }
    this.tell(file.size);
  }

  // A try that brought something was no failure, though its connection broke.
  hasReached(offset) {
    if (offset <= this.reached) return;
    this.reached = offset;
    this.failures = 0;
  }

  sendPiece(id, piece, offset) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch does not say how far an upload is
      let stalled = 0;
      const watch = () => {
        clearTimeout(stalled);
        stalled = setTimeout(() => request.abort(), STALLED);
      };
      request.open("PATCH", `${this.root}/v1/uploads/${id}`);
      request.setRequestHeader("Upload-Offset", offset);
      request.setRequestHeader("Content-Type", "application/offset+octet-stream");
      if (this.csrf) request.setRequestHeader("X-CSRF-Token", this.csrf);
      request.upload.addEventListener("progress", (event) => {
        watch();
        this.tell(offset + event.loaded);
      });
      request.addEventListener("load", () => {
        if (request.status === 204) return resolve();
        reject(refusal(request.status, parsed(request.responseText)));
      });
      for (const name of ["error", "abort"]) request.addEventListener(name, () => reject(new BrokenError()));
      request.addEventListener("loadend", () => clearTimeout(stalled));
      watch();
      request.send(piece);
    });
  }

  async ask(method, path, headers = {}, body = undefined) {
    const said = { Accept: "application/json", ...headers };
    if (this.csrf) said["X-CSRF-Token"] = this.csrf;
    if (body) said["Content-Type"] = "application/json";
    let answer, text;
    try {
      answer = await fetch(`${this.root}/v1/uploads${path}`, { method, headers: said, body: body && JSON.stringify(body) });
      text = await answer.text();
    } catch {
      throw new BrokenError();
    }
    if (!answer.ok) throw refusal(answer.status, parsed(text));
    return parsed(text);
  }

  // What the task brings, which is begun again where a connection broke or the server will answer in a moment.
  async patiently(task) {
    for (;;) {
      try {
        return await task();
      } catch (error) {
        if (error instanceof BrokenError) this.failures += 1;
        else if (!(error instanceof AtWorkError)) throw error;
        if (this.failures > TRIES) throw new Error("The connection broke. Press Upload to go on; what has arrived stays.");
        if (this.failures) this.say(this.failures);
      }
      await connected(Math.min(2 ** this.failures, LONGEST_WAIT) * 500);
    }
  }
}

function refusal(status, problem) {
  if (problem.code === "upload_finishing") return new AtWorkError();
  const passes = CODES_IN_A_MOMENT.includes(problem.code) || IN_A_MOMENT.includes(status);
  return passes ? new BrokenError() : new RefusedError(status, problem);
}

function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return {};
  }
}

// After so many milliseconds, or as soon as the browser has a connection again.
function connected(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    addEventListener("online", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
