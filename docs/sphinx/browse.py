"""Look at pages in a headless Chromium: python docs/sphinx/browse.py FOLDER PAGE.html ...

Writes a picture of the first screen of each page, light, dark, as wide as a phone and long, and a PDF as printed, into
FOLDER, and prints what the browser complained about (scripts' errors, files that did not load). Needs a `chromium`;
speaks the DevTools protocol over tornado, which neuropil brings.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

PORT, PATIENCE = 9377, 120
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
]
VIEWS = {
    "light": (1280, 900, "light"),
    "dark": (1280, 900, "dark"),
    "phone": (390, 844, "light"),
    "long": (1100, 2200, "light"),
}
COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")


class Browser:
    """One page of a running Chromium."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self.complaints: list[str] = []
        self._seen: set[str] = set()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what the page complains about meanwhile is kept."""
        number = next(self._ids)
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                return message.get("result", {})

    async def until(self, event: str) -> None:
        """Wait for an event."""
        while event not in self._seen:
            await self._next()
        self._seen.clear()

    async def _next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self._socket.read_message(), PATIENCE)
        message: dict[str, Any] = json.loads(text or "{}")
        self._seen.add(message.get("method", ""))
        if message.get("method") in COMPLAINTS:
            self.complaints.append(json.dumps(message["params"])[:300])
        return message


async def look(folder: Path, pages: list[Path]) -> int:
    """Open each page in every view; return the number of complaints."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json") as answer:
        address = next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
    browser = Browser(await websocket_connect(address, max_message_size=2**28))
    for domain in ("Page", "Runtime", "Log", "Network"):
        await browser.call(f"{domain}.enable")
    for page in pages:
        for view, (width, height, scheme) in VIEWS.items():
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": view == "phone"}
            await browser.call("Emulation.setDeviceMetricsOverride", **size)
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            await browser.call("Emulation.setEmulatedMedia", features=media)
            await browser.call("Page.navigate", url=page.resolve().as_uri())
            await browser.until("Page.loadEventFired")
            await asyncio.sleep(0.5)
            made = await browser.call("Page.captureScreenshot", format="png")
            (folder / f"{page.stem}_{view}.png").write_bytes(base64.b64decode(made["data"]))
        printed = await browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        (folder / f"{page.stem}.pdf").write_bytes(base64.b64decode(printed["data"]))
    print("\n".join([*browser.complaints, f"{len(pages)} pages, {len(browser.complaints)} complaints"]))
    return len(browser.complaints)


def main(folder: Path, pages: list[Path]) -> int:
    """Start a Chromium of its own, look at the pages and end it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        words = ["chromium", *FLAGS, f"--user-data-dir={profile}", f"--remote-debugging-port={PORT}", "about:blank"]
        running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(PATIENCE):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json").close()
                    break
                except OSError:
                    time.sleep(1)
            return asyncio.run(look(folder, pages))
        finally:
            running.terminate()
            running.wait()


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])))
