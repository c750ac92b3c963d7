// Two pictures of the same noise, one over the other with a handle between them. Without a script they stand beside each other.

const OVER = "attune-swipe-over"; // how this tab wants the next ones

export function prepareSwipes() {
  for (const place of document.querySelectorAll("[data-swipe]:not(.ready)")) prepare(place);
}

function prepare(place) {
  const over = place.querySelector("[data-over]");
  const handle = place.querySelector(".handle");
  const [first, second] = place.querySelectorAll("figcaption");
  const show = () => {
    place.classList.toggle("over", over.checked);
    handle.hidden = place.querySelector(".grip").hidden = !over.checked;
    place.style.setProperty("--at", `${handle.value}%`);
    handle.setAttribute("aria-valuetext", `${first.textContent} to ${handle.value} %, then ${second.textContent}`);
  };
  over.checked = (sessionStorage.getItem(OVER) ?? (over.checked ? "yes" : "no")) === "yes";
  over.addEventListener("change", () => {
    sessionStorage.setItem(OVER, over.checked ? "yes" : "no");
    show();
  });
  handle.addEventListener("input", show);
  over.closest("label").hidden = false;
  place.classList.add("ready");
  show();
}
