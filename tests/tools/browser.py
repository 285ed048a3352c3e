"""Headless Chromium, driven over its own protocol: no driver to install beside it."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,800",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One page of a browser of its own; a context manager."""

    def __init__(self, url: str, folder: Path) -> None:
        from websockets.sync.client import connect

        assert CHROMIUM, "no Chromium on the PATH; scripts/install-chromium.sh installs it"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", url]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = wait_for(lambda: (folder / "DevToolsActivePort").read_text().split()[0], 60, OSError, IndexError)
        pages = wait_for(lambda: _pages(port), 60, OSError)
        self.socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
        self.numbers = itertools.count(1)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def call(self, method: str, **params):
        """The result of one command of the protocol."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, expression: str):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self) -> str:
        """What can be read on the page."""
        return self.run("document.body ? document.body.innerText : ''")

    def click(self, label: str) -> None:
        """Clicks on the button with this label."""
        assert self.run(
            f"(() => {{ const b = [...document.querySelectorAll('button')].find(e => e.innerText.trim() == {label!r});"
            "if (b) b.click(); return !!b; })()"
        ), f"no button {label!r}"

    def screenshot(self) -> bytes:
        """PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


def wait_for(condition, seconds: float, *errors: type[Exception]):
    """The first true value of `condition`, asked again and again; `errors` count as not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except errors:
            pass
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def _pages(port: str) -> list:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        return [page for page in json.load(answer) if page["type"] == "page"]
