"""The named moments at which a process of the bridge is killed: one between any two stages of a record's way. Shared by the tests and the launcher."""

from dataclasses import dataclass

POINT = "KILL_POINT"  # which moment, '' = none
ARMED = "KILL_ARMED"  # a file: only while it is there does a moment count
MARK = "KILL_MARK"  # a file that receives the moment's name just before the kill
NTH = "KILL_NTH"  # the kill comes with the n-th time
VITALS = "KILL_VITALS"  # a file that receives the process's vital signs at each SIGUSR1
CREATE_PATHS = "KILL_CREATE_PATHS"  # paths of the calls that create something, comma-separated


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment. `most` is the highest n of "the n-th time"; `pushes` when it needs a return that is pushed; `starting` when it comes by itself at start-up."""

    name: str
    between: str
    most: int = 1
    pushes: bool = False
    starting: bool = False


POINTS = (
    Point(name="received", between="a record was received, before commit 1"),
    Point(name="journalled", between="after commit 1, before the EMS is acknowledged"),
    Point(name="signed", between="after commit 1 with the signed bytes, before the POST"),
    Point(name="waiting", between="acknowledged and waiting, before commit 2"),
    Point(name="committed", between="after commit 2, before the first byte"),
    Point(name="half-sent", between="after the first byte, half of the body is out"),
    Point(name="sent", between="the whole request is out, before its answer"),
    Point(name="answered", between="the answer was read, before it is journalled"),
    Point(name="answer-journalled", between="the answer is journalled, before its write-back"),
    Point(name="return-received", between="a return was received, before it is parked", most=2, pushes=True),
    Point(name="return-parked", between="a return is parked, before the 202", most=2, pushes=True),
    Point(name="return-answered", between="the 202 is out, before the return is settled", most=2, pushes=True),
    Point(name="settled", between="the outcome is settled, before its write-back", most=2),
    Point(name="written", between="an outcome is in the EMS, before that is journalled", most=2),
    Point(name="write-journalled", between="after it was journalled that an outcome is in the EMS", most=2),
    Point(name="checkpoint", between="in the middle of a checkpoint", most=2),
    Point(name="recovering", between="at start-up, before SENDING becomes in doubt", starting=True),
    Point(name="recovered", between="at start-up, after SENDING became in doubt", starting=True),
)
BY_NAME = {point.name: point for point in POINTS}
