"""A real browser without a screen, for tests: Debian's Chromium with WebGL in software, driven by Selenium."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import imageio.v3 as iio
import numpy as np
import pytest

FLAGS = (
    "--headless=new",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


@contextmanager
def browser(size: tuple[int, int] = (1000, 700)) -> Iterator[Browser]:
    """Give a browser, or skip the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here; scripts/browser installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    window = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    try:
        yield Browser(opened, size)
    finally:
        opened.quit()


class Browser:
    """What tests do with a browser."""

    def __init__(self, driver: Any, size: tuple[int, int]) -> None:
        self.driver, self.size = driver, size
        self._requests: list[str] = []

    def open(self, link: str) -> None:
        self.driver.get(link)

    def picture(self) -> np.ndarray:
        """What the page looks like, (y, x, 3) uint8."""
        return iio.imread(io.BytesIO(self.driver.get_screenshot_as_png()))[..., :3]

    def until(self, true: Callable[[np.ndarray], bool], seconds: float = 120) -> np.ndarray:
        """Wait for a picture of which something is true, and which no longer changes; return it."""
        end, before = time.monotonic() + seconds, self.picture()
        while time.monotonic() < end:
            time.sleep(0.2)
            now = self.picture()
            if true(now) and np.array_equal(now, before):
                return now
            before = now
        raise AssertionError(f"the picture did not become what it should within {seconds} s")

    def click(self, x: int, y: int, *keys: str) -> None:
        """Move the mouse and press it, with keys held down."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        moved = ActionBuilder(self.driver)
        moved.pointer_action.move_to_location(x, y)
        moved.perform()
        time.sleep(1)  # until the page has found out what is there
        actions = ActionBuilder(self.driver)
        for key in keys:
            actions.key_action.key_down(key)
            actions.pointer_action.pause(0)
        actions.pointer_action.pointer_down().pointer_up()
        actions.key_action.pause(0).pause(0)
        for key in keys:
            actions.key_action.key_up(key)
        actions.perform()

    def press(self, key: str, *held: str) -> None:
        """Press a key with others held down."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver)
        for one in held:
            chain.key_down(one)
        chain.send_keys(key)
        for one in held:
            chain.key_up(one)
        chain.perform()

    def said(self) -> str:
        """The text of the page."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until the page says something."""
        end = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < end, f"the page did not say {text!r} within {seconds} s: {self.said()[-300:]}"
            time.sleep(0.05)

    def errors(self) -> list[str]:
        """What the console calls an error."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]

    def hosts(self) -> set[str]:
        """Hosts that any request went to."""
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        self._requests += [
            one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"
        ]
        return {urlsplit(url).hostname or "" for url in self._requests if urlsplit(url).scheme not in ("data", "blob")}
