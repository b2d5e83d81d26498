"""Logs in to the dashboard in headless Chromium by WebDriver, and takes its picture.

    python browse.py BASE_URL PICTURE.png < token

Prints the page's text. Speaks the W3C WebDriver protocol by the standard library alone.
"""

import base64
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Browser:
    def __init__(self, driver="chromedriver"):
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.profile = tempfile.TemporaryDirectory()
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,1000",
                     f"--user-data-dir={self.profile.name}"]
        options = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}}
        for _ in range(100):
            try:
                self.session = self.call("POST", "/session", options)["sessionId"]
                break
            except OSError:
                time.sleep(0.1)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def find(self, css):
        return next(iter(self.do("POST", "/element", {"using": "css selector", "value": css}).values()))

    def close(self):
        try:
            self.call("DELETE", f"/session/{self.session}")
        finally:
            self.process.terminate()
            self.process.wait()
            self.profile.cleanup()


def main():
    base, picture = sys.argv[1:3]
    token = sys.stdin.readline().strip()
    browser = Browser()
    try:
        browser.do("POST", "/url", {"url": base + "/"})
        browser.do("POST", f"/element/{browser.find('input[name=token]')}/value", {"text": token})
        browser.do("POST", f"/element/{browser.find('form button')}/click", {})
        for _ in range(100):
            if browser.do("GET", "/url").rstrip("/") == base:
                break
            time.sleep(0.1)
        height = browser.do("POST", "/execute/sync", {"script": "return document.documentElement.scrollHeight", "args": []})
        browser.do("POST", "/window/rect", {"width": 1280, "height": min(int(height) + 150, 6000)})
        print(browser.do("POST", "/execute/sync", {"script": "return document.body.innerText", "args": []}))
        with open(picture, "wb") as file:
            file.write(base64.b64decode(browser.do("GET", "/screenshot")))
    finally:
        browser.close()


if __name__ == "__main__":
    main()
