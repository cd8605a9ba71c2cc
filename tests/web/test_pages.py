"""The pages in a real browser: signing in, what a participant's people see, deciding, texts of strangers, and a page of elsewhere that tries to act."""

import asyncio

import pytest
import pytest_asyncio
from admin_world import BOTH, LIVE, TEST, admin_world, undecided
from aiohttp import web
from aiohttp.test_utils import TestServer
from browser import browser, seen
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from bridge.journal.people import Decision, Scope
from bridge.submission import SubmissionState
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ATTACK = (
    "<form method=post action='{url}'><input name=reason value=x></form><script>document.forms[0].submit()</script>"
)


def until(driver, holds):
    """Wait until this holds. chromedriver that is asked in the moment of leaving a page answers with errors of many kinds, which say nothing: it is asked again."""
    WebDriverWait(driver, 20, poll_frequency=0.05, ignored_exceptions=[WebDriverException]).until(holds)


def pressed(driver, element, *, leaves=True):
    """Click, and be on the next page, whole: a click does not wait for it by itself."""
    driver.execute_script("window.before = true")
    element.click()
    if leaves:
        until(driver, lambda _: driver.execute_script("return !window.before && document.readyState == 'complete'"))


class Page:
    """The browser at the admin listener; each step runs on a thread, for the listener lives on the loop."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    async def do(self, step):
        return await asyncio.to_thread(step, self.driver)

    async def open(self, path):
        await self.do(lambda driver: driver.get(self.url + path))

    async def text(self, selector="body"):
        return await self.do(lambda driver: driver.find_element(By.CSS_SELECTOR, selector).text)

    async def path(self):
        return (await self.do(lambda driver: driver.current_url)).removeprefix(self.url)

    async def fill(self, form, *, leaves=True, **fields):
        """Fill in a form that is found by its action, and press its button; it `leaves` the page for another one, or stays."""

        def step(driver):
            found = driver.find_element(By.CSS_SELECTOR, f"form[action='{form}']")
            for name, value in fields.items():
                found.find_element(By.NAME, name).send_keys(value)
            pressed(driver, found.find_element(By.TAG_NAME, "button"), leaves=leaves)

        await self.do(step)

    async def run(self, script):
        return await self.do(lambda driver: driver.execute_script(f"return {script}"))

    async def complaints(self):
        """What the browser's console complains of, such as styles that the page's own policy blocks; that a request was refused is not ours."""
        logged = await self.do(lambda driver: driver.get_log("browser"))
        severe = [entry["message"] for entry in logged if entry["level"] == "SEVERE"]
        return [message for message in severe if "the server responded with a status of" not in message]

    async def sign_in(self, token):
        await self.do(lambda driver: driver.delete_all_cookies())
        await self.open("/sign-in")
        await self.fill("/sign-in", token=token)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """Submissions of two participants; names and texts of one of them hold markup."""
    async with admin_world(tmp_path_factory.mktemp("journal")) as made:
        await undecided(
            made.journal,
            made.clock,
            TEST,
            "trial",
            "Z",
            "01a22706c7850f1a3a3d",
            SubmissionState.AWAITING_RETURN,
            "a0BuO5wBEngNgK6FZ9",
        )
        made.submissions = {name: await made.in_doubt(name, key=MARKUP) for name in BOTH}
        made.open = await made.in_doubt(TEST, key="B")
        await made.journal.alarm("IN_DOUBT", participant=TEST, subject=made.submissions[TEST], text=MARKUP)
        await made.journal.alarm("STUCK", participant=TEST, subject="place/" * 40, text="x" * 300)
        await made.journal.hold(Scope.PARTICIPANT, TEST, Decision(by="Ann", reason=MARKUP))
        yield made


@pytest.fixture
def page(driver, world):
    return Page(driver, f"http://127.0.0.1:{world.http.port}")


async def test_signing_in_and_out(page, world):
    """Without a token only the form; a wrong one is told so; a good one leads in, by a cookie that no script sees; after signing out the way is shut."""
    with seen(page.driver, "signing_in_and_out"):
        await page.do(lambda driver: driver.delete_all_cookies())
        await page.open("/")
        assert await page.path() == "/sign-in"
        await page.fill("/sign-in", token="x.y.z")
        assert "does not count here" in await page.text("[role=alert]")
        await page.sign_in((await world.token(Role.VIEWER, "Ann Smith", [TEST]))[0])
        assert await page.path() == "/"
        assert "Ann Smith, viewer for acme-test" in await page.text("header")
        [cookie] = await page.do(lambda driver: driver.get_cookies())
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert await page.run("document.cookie") == ""
        await page.fill("/sign-out")
        assert await page.path() == "/sign-in"
        await page.open("/")
        assert await page.path() == "/sign-in"
        assert await page.complaints() == []


async def test_what_a_participant_sees(page, world):
    """Theirs and nothing of the other, with style, and nothing beyond the edge of a telephone's screen."""
    with seen(page.driver, "what_a_participant_sees"):
        await page.sign_in((await world.token(Role.VIEWER, "Ann", [TEST]))[0])
        shown = await page.text()
        assert world.submissions[TEST] in shown
        assert world.open in shown
        assert LIVE not in shown
        assert await page.run("getComputedStyle(document.querySelector('header')).display") == "flex"
        await page.open(f"/submissions/{world.submissions[LIVE]}")
        assert "there is no such submission" in await page.text()
        await page.open("/")
        await page.do(lambda driver: driver.set_window_size(400, 800))
        try:
            await page.do(lambda driver: until(driver, lambda _: driver.execute_script("return innerWidth < 1000")))
            assert await page.run("document.documentElement.scrollWidth <= window.innerWidth"), (
                "it has to be scrolled sideways"
            )
        finally:
            await page.do(lambda driver: driver.set_window_size(1100, 900))


LINES = """(() => {
    const lines = element => { const range = document.createRange(); range.selectNodeContents(element); return new Set([...range.getClientRects()].map(r => r.top)).size };
    return [...document.querySelectorAll('.id, time')].filter(element => lines(element) > 1).map(element => element.textContent);
})()"""
BEYOND = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"


@pytest.mark.parametrize("width", [400, 1100])
async def test_names_are_whole_and_long_texts_are_not(page, world, width):
    """No id and no time is broken at its hyphens, and a text of a device without a blank pushes nothing off the screen, the form to acknowledge it least of all."""
    with seen(page.driver, "names_are_whole"):
        await page.sign_in((await world.token(Role.OPERATOR, "Ann", [TEST]))[0])
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics))
        try:
            for path in ("/", f"/submissions/{world.submissions[TEST]}", "/submissions", "/connections"):
                await page.open(path)
                assert await page.run(LINES) == []
                assert await page.run(BEYOND) == 0
                assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
        finally:
            await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))


async def test_by_night(page, world):
    """A screen that asks for dark pages gets them, and what is written stands out from its ground by 4.5 to 1 at least (WCAG 1.4.3)."""
    contrast = """(() => {
        const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
        const ground = e => { const c = getComputedStyle(e).backgroundColor; return c.endsWith(', 0)') ? ground(e.parentElement) : c };
        const ratio = e => { const [a, b] = [getComputedStyle(e).color, ground(e)].map(light).sort((x, y) => y - x); return (a + .05) / (b + .05) };
        return [light(ground(document.body)), Math.min(...[...document.querySelectorAll('body,h2,th,td,a,button,label,input,p,span')].map(ratio))];
    })()"""
    with seen(page.driver, "by_night"):
        await page.sign_in((await world.token(Role.OPERATOR, "Ann", [TEST]))[0])
        for scheme, dark in (("dark", True), ("light", False)):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            await page.do(lambda driver, media=media: driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media))
            for path in ("/", "/submissions?state=IN_DOUBT", "/submissions/s-unknown"):
                await page.open(path)
                ground, least = await page.run(contrast)
                assert (ground < 0.1) == dark
                assert least >= 4.5, (scheme, path)
        assert await page.complaints() == []


async def test_narrowing_the_list(page, world):
    """The form at its head leads to an address that says what is shown, and keeps what was chosen."""
    with seen(page.driver, "narrowing_the_list"):
        await page.sign_in((await world.token(Role.VIEWER, "Ann", [TEST]))[0])
        await page.do(lambda driver: pressed(driver, driver.find_element(By.LINK_TEXT, "All submissions")))
        assert world.open in await page.text("table")
        await page.fill("/submissions", state="SET_ASIDE", since="2026-11-01")
        assert await page.path() == "/submissions?state=SET_ASIDE&site=&since=2026-11-01&until="
        assert "There is none of these." in await page.text("main")
        assert await page.run("document.querySelector('select[name=state]').value") == "SET_ASIDE"
        await page.fill("/submissions", state="IN_DOUBT")
        assert world.submissions[TEST] in await page.text("table")
        assert await page.complaints() == []


async def test_markup_in_names_is_text(page, world):
    """What devices, SMP and people wrote is shown as they wrote it: nothing of it becomes an element, nothing runs."""
    with seen(page.driver, "markup_in_names_is_text"):
        await page.sign_in((await world.token(Role.VIEWER, "Ann", [TEST]))[0])
        for path, times in (("/", 3), (f"/submissions/{world.submissions[TEST]}", 1)):
            await page.open(path)
            assert (await page.text()).count(MARKUP) == times
            assert await page.run("document.querySelectorAll('img,script').length") == 0
            assert await page.run("document.title") == "smp-bridge"
        assert await page.complaints() == []


async def test_deciding(page, world):
    """A button without a reason goes nowhere; with one the submission is cancelled, and the page and the journal say by whom and why."""
    with seen(page.driver, "deciding"):
        await page.sign_in((await world.token(Role.OPERATOR, "Bob", [TEST]))[0])
        await page.do(lambda driver: pressed(driver, driver.find_element(By.LINK_TEXT, world.open)))
        cancel = f"/submissions/{world.open}/cancel"
        await page.fill(cancel, leaves=False)
        assert await page.path() == f"/submissions/{world.open}"
        await page.fill(cancel, reason="the plant is gone")
        assert f"Done: {world.open}" in await page.text("[role=status]")
        shown = await page.text()
        assert "CANCELLED" in shown
        assert "the plant is gone" in shown
        assert (await world.journal.submission(world.open)).state.value == "CANCELLED"


async def test_a_page_of_elsewhere_cannot_act(page, world):
    """A page of another port, to which the browser's cookie belongs as well, sends a form in the operator's name: refused, and nothing happens."""
    subject = world.submissions[TEST]

    async def attack(_):
        return web.Response(
            text=ATTACK.format(url=f"{page.url}/submissions/{subject}/cancel"), content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", attack)
    with seen(page.driver, "a_page_of_elsewhere_cannot_act"):
        await page.sign_in((await world.token(Role.OPERATOR, "Bob", [TEST]))[0])
        async with TestServer(app) as elsewhere:
            await page.do(lambda driver: driver.get(str(elsewhere.make_url("/"))))
            told = "did not come from a page of this host"
            body = (By.TAG_NAME, "body")
            await page.do(lambda driver: until(driver, lambda _: told in driver.find_element(*body).text))
        assert (await world.journal.submission(subject)).state.value == "IN_DOUBT"
