// Pictures of several steps, one at a time: the slider says which. Without a script all stand below each other.

const prepared = new WeakSet();
let chosen = null; // the step that the reader went to; none follows the newest

export function showSlides() {
  for (const slider of document.querySelectorAll("[data-slides]")) {
    if (!prepared.has(slider)) slider.addEventListener("input", () => { choose(slider); show(slider); });
    prepared.add(slider);
    const place = slidesOf(slider).findIndex((slide) => slide.dataset.step === chosen);
    slider.value = place < 0 ? slider.max : place;
    show(slider);
  }
}

function slidesOf(slider) {
  return [...slider.closest(".slides").querySelectorAll(".slide")];
}

function choose(slider) {
  chosen = slider.value === slider.max ? null : slidesOf(slider)[Number(slider.value)].dataset.step;
}

function show(slider) {
  const slides = slidesOf(slider);
  const output = slider.closest(".slides").querySelector("output");
  slides.forEach((slide, index) => { slide.hidden = index !== Number(slider.value); });
  output.textContent = slides[Number(slider.value)].dataset.step;
  slider.setAttribute("aria-valuetext", `step ${output.textContent}`);
  slider.dispatchEvent(new Event("attune:slide", { bubbles: true }));
}
