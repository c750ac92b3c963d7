// Pictures of several steps, one at a time: the slider says which. Without a script all stand below each other.

export function showSlides() {
  for (const slider of document.querySelectorAll("[data-slides]")) {
    const place = slider.closest(".slides");
    const slides = [...place.querySelectorAll(".slide")];
    const output = place.querySelector("output");
    const show = () => {
      slides.forEach((slide, index) => { slide.hidden = index !== Number(slider.value); });
      output.textContent = slides[Number(slider.value)].dataset.step;
      slider.setAttribute("aria-valuetext", `step ${output.textContent}`);
    };
    if (!slider.dataset.isReady) slider.addEventListener("input", show);
    slider.dataset.isReady = "yes";
    show();
  }
}
