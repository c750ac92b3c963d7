"""The browser of the tests: Debian's Chromium, or what goes by its name elsewhere."""

import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
