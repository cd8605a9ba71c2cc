"""What the operating system's own clock discipline says of this machine's clock, and the gate that it holds before signing."""

from bridge.discipline.chrony import Chrony
from bridge.discipline.gate import SigningGate
from bridge.discipline.judge import Judge, Limits, Standing
from bridge.discipline.kernel import Kernel
from bridge.discipline.report import Discipline, DisciplineSource, unknown
from bridge.discipline.watch import ClockWatch

__all__ = [
    "Chrony",
    "ClockWatch",
    "Discipline",
    "DisciplineSource",
    "Judge",
    "Kernel",
    "Limits",
    "SigningGate",
    "Standing",
    "unknown",
]
