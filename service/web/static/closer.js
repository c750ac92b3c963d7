// One prompt and seed of the picture that is shown, base and aligned over each other. The picture is one file, of which each side shows a part.

const FACTOR = 2; // by which what was enlarged already is shown

export function lookCloser() {
  const place = document.querySelector("[data-closer]");
  if (!place) return;
  if (!place.dataset.isReady) {
    place.dataset.isReady = "yes"; // it is skipped when the pictures around it are morphed
    place.querySelector("select").addEventListener("change", () => show(place));
    document.body.addEventListener("attune:slide", () => offer(place));
    document.body.addEventListener("click", (event) => event.target.matches(".slide img") && point(place, event));
  }
  offer(place);
}

function slideShown() {
  return document.querySelector(".slide:not([hidden])");
}

function tilesOf(slide) {
  const prompts = JSON.parse(slide.dataset.prompts);
  return slide.dataset.tiles.split(";").map((one) => {
    const [prompt, seed, baseX, baseY, policyX, policyY] = one.split(" ").map(Number);
    return { prompt: prompts[prompt], seed, corners: [[baseX, baseY], [policyX, policyY]] };
  });
}

// The choice of what the picture has; what was chosen stays so in the next picture that has it.
function offer(place) {
  const slide = slideShown();
  place.hidden = !slide?.dataset.tiles;
  if (place.hidden) return;
  const select = place.querySelector("select");
  const names = tilesOf(slide).map(({ prompt, seed }) => `${prompt} · seed ${seed}`);
  if (names.join("\n") !== [...select.options].map((one) => one.textContent).join("\n")) {
    const before = select.selectedOptions[0]?.textContent;
    select.replaceChildren(...names.map((name, index) => new Option(name, index)));
    select.value = Math.max(0, names.indexOf(before));
  }
  show(place);
}

function show(place) {
  const slide = slideShown();
  const { prompt, seed, corners } = tilesOf(slide)[Number(place.querySelector("select").value)];
  const [width, height, imageWidth, imageHeight] = slide.dataset.tile.split(" ").map(Number);
  const factor = imageWidth < width ? FACTOR : 1;
  place.querySelectorAll("svg").forEach((svg, index) => {
    svg.setAttribute("viewBox", `${corners[index].join(" ")} ${width} ${height}`);
    svg.setAttribute("width", factor * width);
    svg.setAttribute("height", factor * height);
    svg.classList.toggle("small", imageWidth < width);
    svg.setAttribute("aria-label", `${svg.dataset.name} at step ${slide.dataset.step}: ${prompt}`);
    svg.querySelector("image").setAttribute("href", slide.querySelector("img").getAttribute("src"));
  });
  const isReduced = imageWidth > width;
  place.querySelector("[data-reduced]").textContent = isReduced
    ? `Reduced to ${width} x ${height} pixels; the models draw ${imageWidth} x ${imageHeight}.` : "";
  const link = place.querySelector("a");
  link.textContent = isReduced ? "Draw it at full size" : "Draw it again in the playground";
  const address = new URL(link.href);
  const told = { prompt, seed, checkpoint: slide.dataset.checkpoint };
  for (const [name, value] of Object.entries(told)) address.searchParams.set(name, value);
  link.href = address;
  link.hidden = !slide.dataset.checkpoint; // other weights would be drawn
  place.querySelector("[data-gone]").hidden = !link.hidden;
}

// A click into the picture chooses what is there.
function point(place, event) {
  const [width, height] = slideShown().dataset.tile?.split(" ").map(Number) ?? [];
  const scale = event.target.naturalWidth / event.target.clientWidth;
  const [x, y] = [scale * event.offsetX, scale * event.offsetY];
  const isIn = ([left, top]) => x >= left && x < left + width && y >= top && y < top + height;
  const found = width ? tilesOf(slideShown()).findIndex(({ corners }) => corners.some(isIn)) : -1;
  if (found < 0) return;
  place.querySelector("select").value = found;
  show(place);
  place.scrollIntoView({ block: "nearest" });
}
