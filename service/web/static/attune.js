// What a page does beside htmx. Each part looks for its own elements, and does nothing where there are none.
// What one page alone needs stands at its template.
import { showCurves } from "./curves.js";
import { showSlides } from "./slides.js";
import { lookCloser } from "./closer.js";
import { prepareSwipes } from "./swipe.js";
import { followRun } from "./live.js";
import { prepareDownloads } from "./downloads.js";
import { prepareJobForm } from "./job_form.js";
import { keepPlace } from "./place.js";
import { sendKept } from "./outbox.js";

function start() {
  keepPlace();
  showCurves();
  showSlides();
  prepareSwipes();
  lookCloser();
  followRun();
  prepareDownloads();
  prepareJobForm();
  sendKept();
}

start();
document.body.addEventListener("htmx:after:swap", () => {
  showSlides();
  prepareSwipes();
  lookCloser();
});
