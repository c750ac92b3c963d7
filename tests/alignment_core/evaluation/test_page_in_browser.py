"""The page in a real browser: nothing asked of the network, nothing to complain about, nothing run."""

import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.alignment_core.evaluation.pages import full_page
from tests.servers.chromium import CHROMIUM

QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--hide-scrollbars"),
    *("--disable-features=OptimizationHints,MediaRouter,Translate", "--enable-logging=stderr", "--v=0"),
)
ADDRESS = "http://report.test/report.html"
ITS_MAKERS = re.compile(r"^(https?://)?[a-z0-9.-]*\b(google|googleapis|gstatic|gvt1)\.com\b")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    pytest.mark.timeout(120),
]


@dataclass
class Network:
    """All that the browser can reach: a proxy that answers with one page and writes down what it is asked."""

    page: str = ""
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def for_the_page(self) -> list[str]:
        """What was asked, without what the browser asks its makers by itself, whatever it is told."""
        return [address for address in self.asked if not ITS_MAKERS.search(address)]


@pytest.fixture
def network() -> Iterator[Network]:
    found = Network()

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.page.encode() if self.path == ADDRESS else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            found.asked.append(self.path)
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def visit(network: Network, folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What the browser prints when it opens the page, and what its console says."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--proxy-server=127.0.0.1:{network.port}"]
    done = subprocess.run([*command, *arguments, ADDRESS], capture_output=True, text=True, check=True, timeout=100)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_asks_for_nothing_and_says_nothing_to_the_console(network: Network, tmp_path: Path) -> None:
    network.page = full_page()
    dom, console = visit(network, tmp_path, "--dump-dom")
    assert network.for_the_page() == [ADDRESS]
    assert console == []
    assert "Better: colour rose" in dom
    assert "<script" not in dom


def test_a_page_that_does_ask_or_run_would_be_found_out(network: Network, tmp_path: Path) -> None:
    page = full_page()
    network.page = page.replace("<main>", "<main><script>console.log('ran')</script><b style='color:red'>b</b>")
    _, console = visit(network, tmp_path, "--dump-dom")
    assert len(console) >= 2, "its own policy stops a script and a style, and the console says so"
    assert not any('"ran"' in line for line in console)
    start = page.index('<meta http-equiv="Content-Security-Policy"')
    open_page = page[:start] + page[page.index(">", start) + 1 :]
    network.page = open_page.replace("<main>", "<main><img src='http://elsewhere.test/a.png' alt=''>")
    network.asked.clear()
    visit(network, tmp_path, "--dump-dom")
    assert "http://elsewhere.test/a.png" in network.asked


@pytest.mark.parametrize("width", [500, 1200])
def test_no_part_of_the_page_is_wider_than_the_screen(network: Network, tmp_path: Path, width: int) -> None:
    # A page that is too wide is drawn over its right edge, where there is nothing but paper otherwise.
    network.page = full_page()
    picture = tmp_path / "page.png"
    visit(network, tmp_path, f"--screenshot={picture}", f"--window-size={width},2600")
    edge = Image.open(picture).convert("RGB").crop((width - 6, 0, width, 2600))
    assert edge.getcolors() == [(6 * 2600, (255, 255, 255))]


MEASURE = """<script>
const hidden = [...document.querySelectorAll('.rewards td')].filter(cell => cell.getBoundingClientRect().right > innerWidth);
document.body.dataset.hidden = hidden.map(cell => cell.dataset.is).join();
document.body.dataset.width = innerWidth;
</script></body>"""


def test_no_figure_of_a_reward_is_beyond_the_edge_of_a_phone(network: Network, tmp_path: Path) -> None:
    page = full_page()
    start = page.index('<meta http-equiv="Content-Security-Policy"')  # it would forbid the test's script
    network.page = (page[:start] + page[page.index(">", start) + 1 :]).replace("</body>", MEASURE)
    dom, _ = visit(network, tmp_path, "--dump-dom", "--window-size=500,900")
    assert 'data-width="500"' in dom
    assert 'data-hidden=""' in dom
