"""The picture of a page for the README: `python -m tests.browser.picture http://127.0.0.1:8000/jobs/new docs/images/new-job-page.png`.

Of a server that runs, in light, as few bytes as 256 colours allow; with `--whole` down to its end, and smaller.
"""

import io
import os
from argparse import ArgumentParser
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

from tests.servers.chromium import CHROMIUM

SCREEN = ViewportSize(width=1280, height=900)
COLOURS = 256
OF_A_WHOLE_PAGE = 0.75  # pixels of the picture for each of the screen


def picture_of(address: str, *, is_whole: bool = False) -> Image.Image:
    """What somebody sees who opens the page, once nothing is on its way to it."""
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=no_sandbox)
        scale = OF_A_WHOLE_PAGE if is_whole else 1
        page = browser.new_page(viewport=SCREEN, device_scale_factor=scale, color_scheme="light", locale="en-GB")
        page.goto(address, wait_until="networkidle")
        png = page.screenshot(full_page=is_whole)
        browser.close()
    return Image.open(io.BytesIO(png)).convert("RGB")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("out", type=Path)
    parser.add_argument("--whole", action="store_true", help="the page down to its end")
    arguments = parser.parse_args()
    picture = picture_of(arguments.address, is_whole=arguments.whole)
    picture.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
