// What a page does beside htmx. Each part looks for its own elements, and does nothing where there are none.
import { showCurves } from "./curves.js";
import { showSlides } from "./slides.js";
import { lookCloser } from "./closer.js";
import { prepareSwipes } from "./swipe.js";
import { followRun } from "./live.js";
import { prepareDownloads } from "./downloads.js";
import { prepareUploads } from "./uploads.js";
import { prepareJobForm } from "./job_form.js";
import { prepareJudging } from "./judge.js";
import { sendKept } from "./outbox.js";

function start() {
  showCurves();
  showSlides();
  prepareSwipes();
  lookCloser();
  followRun();
  prepareDownloads();
  prepareUploads();
  prepareJobForm();
  prepareJudging();
  sendKept();
}

start();
document.body.addEventListener("htmx:after:swap", () => {
  showSlides();
  prepareSwipes();
  lookCloser();
});
