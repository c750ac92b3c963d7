// One question after the other without a page in between: the next pairs are loaded ahead, keys answer, and focus stays where it is.

import { isWaiting, keep, onOtherTab, onPost, waiting } from "./outbox.js";

const AHEAD = 5;
const SMALL = 128; // pixels: smaller pictures are shown to the pixel
const KEYS = {
  ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", t: "tie", 3: "tie",
  b: "both_bad", 4: "both_bad", s: "skip", 5: "skip", u: "undo", z: "undo", Backspace: "undo",
};
const KEYS_OFF = "attune-keys-off";

function prepareJudging() {
  const place = document.getElementById("judge");
  if (place?.dataset.question) new Judge(place).start();
}

class Judge {
  constructor(place) {
    this.place = place;
    this.form = place.querySelector("#judge-form");
    this.annotator = `?annotator=${encodeURIComponent(place.dataset.annotator)}`;
    this.current = { // what is on the screen and can be answered
      question: Number(place.dataset.question),
      prompt: place.querySelector("#judge-prompt").textContent,
      nodes: [...place.querySelectorAll(".pick img")],
    };
    this.coming = null; // what is on the screen once its pictures are there
    this.ahead = [];
    this.said = []; // in this tab, for undo
    this.isLooking = false;
    this.looksBackNext = false;
    this.last = place.dataset.last === undefined ? null : Number(place.dataset.last);
    const bar = place.querySelector("#judge-progress progress");
    [this.answered, this.total] = [bar.value, bar.max];
  }

  start() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.say(event.submitter?.value);
    });
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("visibilitychange", () => document.hidden || this.look(true));
    addEventListener("pageshow", (event) => event.persisted && this.look(true));
    onPost((told) => this.hear(told));
    onOtherTab((address, choice) => choice !== null && this.leaveOut(address));
    this.offerKeys();
    this.look();
  }

  address(question) {
    return this.place.dataset.votes + question + this.annotator;
  }

  say(choice) {
    if (choice === "undo") return this.undo();
    if (!this.current || !choice) return;
    if (choice !== "skip" && !this.current.nodes.every((node) => node.complete && node.naturalWidth)) {
      return this.notice("The pictures are not here yet. Skip leaves this pair out.");
    }
    this.wasRefused = false;
    const { question } = this.current;
    this.said.push(this.current);
    this.current = null;
    this.count(this.answered + 1);
    this.advance();
    keep(this.address(question), choice);
  }

  undo() {
    const before = this.said.pop();
    if (!before && this.last === null) return;
    const next = this.current ?? this.coming;
    if (next) this.ahead.unshift(next);
    [this.current, this.coming] = [null, null];
    this.count(this.answered - 1);
    if (before) this.show(before);
    else this.busy(true); // it comes with the answer to the question what is next
    const question = before?.question ?? this.last;
    if (!before) this.last = null;
    keep(this.address(question), null);
  }

  advance() {
    if (this.ahead.length) this.show(this.ahead.shift());
    else this.busy(true);
    if (this.ahead.length < AHEAD - 2) this.look();
  }

  async show(next) {
    this.coming = next;
    this.busy(true); // until its pictures can be seen nothing can be said of them
    await Promise.all(next.nodes.map((node) => node.decode().catch(() => {}))); // what cannot be shown can be skipped
    if (this.coming !== next) return;
    [this.current, this.coming] = [next, null];
    this.place.querySelectorAll(".pick img").forEach((node, index) => node.replaceWith(next.nodes[index]));
    this.place.querySelector("#judge-prompt").textContent = next.prompt;
    this.place.dataset.question = next.question;
    this.form.elements.question.value = next.question;
    this.busy(false);
  }

  // Ask what is next, and load its pictures. `isBack`: other tabs may have answered what is shown.
  async look(isBack = false) {
    if (this.isLooking) return void (this.looksBackNext ||= isBack);
    this.isLooking = true;
    const limit = Math.min(20, AHEAD + 1 + waiting(this.place.dataset.votes).length);
    const address = `${this.place.dataset.next + this.annotator}&limit=${limit}`;
    const answer = await fetch(address, { credentials: "same-origin" }).catch(() => null);
    this.isLooking = false;
    if (answer?.status === 401) return this.hear({ isSignedOut: true });
    if (!answer?.ok) return void setTimeout(() => this.look(isBack), 3000);
    const { data, progress } = await answer.json();
    const mine = new Set(this.said.map((one) => one.question));
    const asked = data.filter((one) => !mine.has(one.question) && !isWaiting(this.address(one.question)));
    const isSettled = !waiting(this.place.dataset.votes).length;
    if (isBack && isSettled && this.current && !asked.some((one) => one.question === this.current.question)) this.current = null;
    const shown = (this.current ?? this.coming)?.question;
    const known = new Map(this.ahead.map((one) => [one.question, one]));
    this.ahead = asked.filter((one) => one.question !== shown).map((one) => known.get(one.question) ?? this.loaded(one));
    if (isSettled) this.settle(progress);
    if (shown === undefined) this.goOn(data, isSettled);
    if (this.looksBackNext) {
      this.looksBackNext = false;
      this.look(true);
    }
  }

  goOn(data, isSettled) {
    if (this.ahead.length) this.show(this.ahead.shift());
    else if (isSettled && !data.length) location.assign(this.place.dataset.done);
    else if (isSettled) { // another tab has taken back what was said here: asked again
      this.said = [];
      this.look();
    }
  }

  // What the server says of how far this person is, once it has everything that was said.
  settle(progress) {
    this.last = progress.last;
    this.count(progress.answered);
  }

  hear({ answer, refused, isOffline, isSignedOut, isEmpty }) {
    const num = waiting(this.place.dataset.votes).length;
    if (answer && !num) this.hearProgress(answer.progress);
    const kept = num === 1 ? "One answer is" : `${num} answers are`;
    if (isOffline) this.notice(`No connection. ${kept} kept in this browser and sent again by itself; you can go on.`);
    if (isSignedOut) this.notice(`You are signed out. ${num ? `${kept} kept in this browser. ` : ""}Sign in in another tab, and come back to this one.`);
    if (refused) this.notice(`An answer was refused: ${refused}`);
    this.wasRefused ||= Boolean(refused);
    if (!isEmpty) return;
    if (!this.wasRefused) this.notice("");
    if (!this.current && !this.coming) this.look();
  }

  // Where more is answered than was said here, another browser of this person has said it: what it answered is not asked again.
  hearProgress(progress) {
    const isElsewhere = progress.answered !== this.answered;
    this.settle(progress);
    if (isElsewhere) this.look(true);
  }

  leaveOut(address) {
    this.ahead = this.ahead.filter((one) => this.address(one.question) !== address);
    if (!this.current || this.address(this.current.question) !== address) return;
    this.current = null;
    this.advance();
  }

  loaded({ question, prompt, left, right }) {
    const nodes = [left, right].map(({ image_url, width, height }) => {
      const node = new Image(width, height);
      node.alt = "";
      node.className = width <= SMALL ? "small" : "";
      node.src = image_url.startsWith("/") ? this.place.dataset.root + image_url : image_url;
      return node;
    });
    return { question, prompt, nodes };
  }

  press(event) {
    const choice = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const isTyped = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if (!choice || this.areKeysOff || isTyped || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.say(choice);
  }

  offerKeys() {
    const label = this.place.querySelector("#judge-keys");
    const box = label.querySelector("input");
    label.hidden = false;
    this.areKeysOff = stored(KEYS_OFF) === "yes";
    box.checked = !this.areKeysOff;
    box.addEventListener("change", () => {
      this.areKeysOff = !box.checked;
      store(KEYS_OFF, box.checked ? "no" : "yes");
    });
  }

  count(answered) {
    this.answered = Math.max(0, Math.min(answered, this.total));
    this.place.querySelector("#judge-progress progress").value = this.answered;
    this.place.querySelector("#judge-count").textContent = `${this.answered}/${this.total}`;
    const canUndo = this.said.length > 0 || this.last !== null;
    this.form.querySelector("[value=undo]").setAttribute("aria-disabled", String(!canUndo));
  }

  // Nothing is disabled, so that focus stays.
  busy(isBusy) {
    this.place.setAttribute("aria-busy", String(isBusy));
  }

  notice(words) {
    const place = this.place.querySelector("#judge-notice");
    if (place.textContent !== words) place.textContent = words;
  }
}

function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // asked again on the next page
  }
}

prepareJudging();
