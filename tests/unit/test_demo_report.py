"""When the demo is content."""

from bridge.demo.observer import Seen
from bridge.demo.record import Figures, FlowRecord, Recorded
from bridge.demo.report import judge


def told(by_state, **changes):
    """The report of one flow in which all is well but for these."""
    counts = {"items": 3, "registered": 2, "refused": 1, "unknown": 0, "written_back": 3}
    names = {"site": "s", "protocol": "mqtt", "flow": "f", "operation": "asset.create", "created_twice": 0}
    seen = Seen(**{**names, **counts, **changes})
    recorded = Recorded(flows={("s", "f"): FlowRecord(**counts)}, by_state=by_state, stages={}, host=Figures.of([]))
    return judge(1, [seen], recorded, expected={("s", "f"): (3, 1)})


def test_a_call_whose_only_item_was_refused_is_an_end_too():
    """FAILED says that SMP refused every item of that call, as it may when a refused asset travels alone."""
    assert told({"CONFIRMED": 1, "FAILED": 1, "PARTIAL": 1}).ok


def test_what_is_open_or_differs_is_missing():
    """A submission under way, a count that differs from the journal, an asset created twice."""
    assert not told({"AWAITING_RETURN": 1}).ok
    assert not told({"CONFIRMED": 1}, registered=1).ok
    assert not told({"CONFIRMED": 1}, created_twice=1).ok
