"""Chromium, and a page in it as a test looks at it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator

from selenium import webdriver

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
SIZE = (1280, 900)
READY_SECONDS = 20.0


@contextlib.contextmanager
def started() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, that asks for nothing by itself."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-sync"),
            *("--disable-component-update", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"),
        ):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def resize(driver, width, height, *, mobile=False):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate(driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


class Page:
    """A page in the browser, as a test looks at it."""

    def __init__(self, driver: webdriver.Chrome, path: pathlib.Path):
        self.driver, self.path = driver, path

    def open(self, **chosen):
        """Loads the page with an address that chooses something."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.path.as_uri()}#{urllib.parse.urlencode(chosen)}")
        self.wait("return document.body.dataset.ready === 'yes'")
        return self.settle()

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition):
        deadline = time.monotonic() + READY_SECONDS
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.02)

    def settle(self):
        """Waits for a group that is being unpacked and drawn."""
        self.wait(
            "const row = document.querySelector('.trajectories');"
            "return document.querySelector('.empty') ||"
            " (row && row.children.length === Number(row.dataset.count))"
        )
        return self

    def texts(self, selector):
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )

    def press(self, *pressed):
        for key in pressed:
            self.driver.switch_to.active_element.send_keys(key)
        return self.settle()

    def choose(self, name, value):
        """Sets a filter as a person would."""
        self.run(
            "const input = document.getElementById(arguments[0]);"
            "if (input.type === 'checkbox') input.click();"
            "else { input.value = arguments[1];"
            " input.dispatchEvent(new Event('input', {bubbles: true})); }",
            *(name, value),
        )
        return self.settle()

    @property
    def question(self):
        return self.texts("#question")[0]

    @property
    def count(self):
        return self.run("return document.getElementById('count').value")

    @property
    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self):
        """Addresses that the browser asked for since the last look."""
        found = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in found if e["method"] == "Network.requestWillBeSent"]
        return {request["request"]["url"].split("#")[0] for request in sent}
