"""The order in which an engine's thread serves what waits: many records of one caller never stand before the few of others twice."""

import asyncio
import threading

from bridge.journal.threads import Request, Worker


class Thread(Worker):
    """Notes what is served together; the first round waits until it is let go."""

    def __init__(self):
        self.rounds = []
        self.go = threading.Event()
        self.closed = False
        super().__init__("of a test")

    def _serve(self, batch: list[Request]):
        self.go.wait(10)
        self.rounds.append([request.work(None) for request in batch])

    def _end(self):
        self.closed = True


async def test_light_requests_go_before_heavy_ones_and_after_one_of_them_at_most():
    thread = Thread()
    async with asyncio.TaskGroup() as group:
        group.create_task(thread.ask(lambda _: "first"))
        await asyncio.sleep(0)
        for name, weight in (("A1000", 1000), ("a", 1), ("B1000", 1000), ("b", 50)):
            group.create_task(thread.ask(lambda _, name=name: name, weight=weight))
        await asyncio.sleep(0)
        thread.go.set()
    await thread.close()
    assert [name for served in thread.rounds for name in served if name != "first"] == ["a", "b", "A1000", "B1000"]
    assert ["A1000"] in thread.rounds
    assert ["B1000"] in thread.rounds


async def test_a_commit_holds_so_many_requests_at_most():
    """However many wait: those beyond 512 form the next commits, in their order, and no one waits for thousands of others to be written."""
    thread, many = Thread(), 1200
    async with asyncio.TaskGroup() as group:
        group.create_task(thread.ask(lambda _: -1))
        await asyncio.sleep(0)
        for number in range(many):
            group.create_task(thread.ask(lambda _, number=number: number))
        await asyncio.sleep(0)
        thread.go.set()
    await thread.close()
    assert max(len(served) for served in thread.rounds) == 512
    assert [one for served in thread.rounds for one in served] == list(range(-1, many))


async def test_a_light_request_that_comes_later_waits_for_one_heavy_one():
    thread = Thread()
    late = []

    def heavy(name):
        def work(_):
            if name == "A1000":  # while it is served, a light one comes
                asyncio.run_coroutine_threadsafe(note(), loop).result(10)
            return name

        return work

    async def note():
        late.append(group.create_task(thread.ask(lambda _: "late")))
        await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for name in ("A1000", "B1000", "C1000"):
            group.create_task(thread.ask(heavy(name), weight=1000))
        await asyncio.sleep(0)
        thread.go.set()
    await thread.close()
    assert thread.rounds == [["A1000"], ["late"], ["B1000"], ["C1000"]]


async def test_closing_serves_what_was_handed_in():
    thread = Thread()
    async with asyncio.TaskGroup() as group:
        for weight in (1000, 1, 1000):
            group.create_task(thread.ask(lambda _, weight=weight: weight, weight=weight))
        await asyncio.sleep(0)
        closing = group.create_task(thread.close())
        await asyncio.sleep(0)
        thread.go.set()
    assert closing.done()
    assert sorted(weight for served in thread.rounds for weight in served) == [1, 1000, 1000]
    assert thread.closed
