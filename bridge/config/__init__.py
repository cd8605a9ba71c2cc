"""Configuration: YAML files into checked values, or every problem at once with its file, line and column."""

from bridge.config.adapters import AdapterFinder, AdapterMissing
from bridge.config.host import (
    AdminListener,
    ClockOptions,
    Environment,
    HostOptions,
    Listeners,
    Participant,
    ParticipantOptions,
    ReturnsListener,
)
from bridge.config.load import Config, load
from bridge.config.payload import NumberText, Payload, Rule
from bridge.config.site import AdapterConfig, FlowConfig, SiteConfig

__all__ = [
    "AdapterConfig",
    "AdapterFinder",
    "AdapterMissing",
    "AdminListener",
    "ClockOptions",
    "Config",
    "Environment",
    "FlowConfig",
    "HostOptions",
    "Listeners",
    "NumberText",
    "Participant",
    "ParticipantOptions",
    "Payload",
    "ReturnsListener",
    "Rule",
    "SiteConfig",
    "load",
]
