"""A stand-in for SMP: any participant can test a client against it. Signs and verifies with another JOSE library than the bridge."""

from bridge.sandbox.knobs import Fault, Knobs, Refusal
from bridge.sandbox.options import SandboxOptions, SandboxParticipant
from bridge.sandbox.server import Sandbox

__all__ = ["Fault", "Knobs", "Refusal", "Sandbox", "SandboxOptions", "SandboxParticipant"]
