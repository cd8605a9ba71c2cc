"""Anchors off this host: an HTTPS POST, an MQTT topic, a file elsewhere. Nobody waits for them."""

from bridge.anchoring.courier import Courier, Couriers
from bridge.anchoring.places import NotTaken, Place, place_of

__all__ = ["Courier", "Couriers", "NotTaken", "Place", "place_of"]
