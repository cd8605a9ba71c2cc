"""A real browser without a window: Debian's Chromium, driven by its own driver. It reaches this machine and nothing else."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

SHOTS = Path(__file__).parents[2] / "screenshots"
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps", "--mute-audio", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1100,900",
)  # fmt: skip


@contextmanager
def browser(profile):
    """One browser with an empty profile in this directory."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))
    try:
        driver.set_page_load_timeout(30)
        yield driver
    finally:
        driver.quit()


@contextmanager
def seen(driver, name):
    """What is on the screen when something inside fails is kept as a picture, and the failure names it."""
    try:
        yield
    except BaseException as error:
        SHOTS.mkdir(exist_ok=True)
        picture = SHOTS / f"{name}.png"
        driver.save_screenshot(str(picture))
        error.add_note(f"the screen: {picture} at {driver.current_url}")
        raise
