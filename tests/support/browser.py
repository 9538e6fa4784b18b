"""A real browser without a window, in which a test looks at a page."""

from collections.abc import Iterator
import contextlib
import shutil
import unittest

from playwright import sync_api


@contextlib.contextmanager
def chromium() -> Iterator[sync_api.Browser]:
  """Starts Chromium; yields the browser.

  Raises:
    unittest.SkipTest: if Chromium is not installed.
  """
  path = shutil.which('chromium')
  if path is None:
    raise unittest.SkipTest('needs chromium')
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=path)
    try:
      yield browser
    finally:
      browser.close()
