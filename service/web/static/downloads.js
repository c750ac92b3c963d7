// A form of a checkpoint that a worker has yet to make: the button waits for it, and then the browser downloads it.

const PATIENCE_SECONDS = 300;

export function prepareDownloads() {
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.("[data-download]");
    if (!link || link.dataset.isReady) return;
    event.preventDefault();
    const name = link.textContent;
    const until = Date.now() + 1000 * PATIENCE_SECONDS;
    while (Date.now() < until) {
      const answer = await fetch(link.href, { method: "GET", headers: { Range: "bytes=0-0" }, credentials: "same-origin" }).catch(() => null);
      if (!answer) return fail(link, name, "no connection");
      if (answer.status !== 202) {
        if (!answer.ok) return fail(link, name, (await answer.json().catch(() => ({}))).detail || "failed");
        answer.body?.cancel();
        link.textContent = name;
        link.dataset.isReady = "yes";
        link.click();
        return;
      }
      const { percent } = await answer.json();
      link.textContent = percent ? `${name} ${Math.round(percent)} %` : `${name} …`;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get("Retry-After") || 1)));
    }
    fail(link, name, "it takes long; try again later");
  });
}

function fail(link, name, why) {
  link.textContent = `${name}: ${why}`;
}
