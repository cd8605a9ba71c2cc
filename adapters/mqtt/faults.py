"""What the library's errors and the broker's reason codes mean to a person: ours, with a hint. Nothing here touches a connection."""

import socket
import ssl
import struct
from typing import Final

from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.exception import MQTTException
from paho.mqtt.reasoncodes import ReasonCode

from adapters.mqtt.codec import printable
from adapters.mqtt.config import MqttOptions
from bridge.api import LinkError, LinkRefused

LIBRARY_FAULTS: Final = (OSError, ValueError, TypeError, KeyError, IndexError, struct.error, MQTTException)

# Reason codes of MQTT 5 (3.2.2.2); the library translates those of 3.1.1 into them.
_REFUSALS: Final = {
    132: "is `version` one that the broker speaks?",
    133: "does the broker prescribe client ids? set `client_id`; otherwise it is made of the site's and the adapter's name",
    134: "are `user` and `password` the ones that the broker knows?",
    135: "does the broker want a user, is this one allowed to connect, and are `user` and `password` right?",
    138: "the broker has banned this client",
    155: "the last will needs QoS 1, and so do requests and outcomes; raise the broker's limit (mosquitto: `max_qos`)",
    140: "the broker asks for an authentication that is not supported here",
    154: "the last will is a retained message; leave `status_topic` out, or let the broker keep retained messages",
}
# Of a subscription (3.9.3); any other is taken for a matter of rights.
_UNSUBSCRIBED: Final = {
    151: "the broker limits how many subscriptions or messages a client may have; raise its limit",
    158: "leave `share:` out, and let one host alone read the requests",
    162: "the broker has no subscriptions with `+`, which every placeholder needs; have it allow them",
}
_TAKEN_OVER: Final = 142  # MQTT 5, 3.14.2.1


class Faults:
    """Those of one broker, whose address each text begins with."""

    def __init__(self, options: MqttOptions) -> None:
        self._options = options
        self._name = f"{options.host}:{options.port}"

    def lost(self, text: str, hint: str = "") -> LinkError:
        """An error that the core tries again."""
        return LinkError(f"{self._name}: {text}", hint=hint)

    def of(self, error: Exception, doing: str) -> LinkError:
        """One of `LIBRARY_FAULTS`."""
        match error:
            case ssl.SSLCertVerificationError():
                hint = "is `tls.ca` (of a URL: --trust) the authority of the broker's certificate, and `host` a name inside it?"
                text = f"the broker's certificate is not trusted ({printable(error.verify_message)})"
                return LinkRefused(f"{self._name}: {text}", hint=hint)
            case ssl.SSLError():
                reason = printable(error.reason or error)
                return self.lost(f"{doing}: TLS failed ({reason})", "does the broker speak TLS here?")
            case WebsocketConnectionError():
                path = self._options.websocket.path if self._options.websocket is not None else ""
                return self.lost(f"{doing}: the peer does not open a WebSocket at {printable(path)}", self._closed)
            case ConnectionRefusedError():
                return self.lost(
                    f"{doing}: nobody listens there", "is the broker running, and are host and port right?"
                )
            case socket.gaierror():
                text = f"{doing}: the name is not known ({printable(error.strerror)})"
                return self.lost(text, "is the host's name right, and known on this machine?")
            case TimeoutError():
                return self.lost(f"{doing}: no answer within {self._options.timeout:g} s")
            case ConnectionResetError():
                return self.lost(f"{doing}: the broker broke the connection", self._closed)
        return self.lost(f"{doing}: {type(error).__name__}: {printable(error)}")

    def unconnected(self, reason: ReasonCode) -> LinkError:
        """The broker's answer to the greeting is no."""
        hint = _REFUSALS.get(reason.value)
        kind = LinkRefused if hint is not None else LinkError
        return kind(f"{self._name}: the broker refuses the connection ({printable(reason)})", hint=hint or "")

    def unshared(self) -> LinkError:
        """The broker says that it has no shared subscriptions."""
        hint = "leave `share:` out, and let one host alone read the requests"
        return LinkRefused(f"{self._name}: the broker has no shared subscriptions", hint=hint)

    def unacknowledged(self) -> LinkError:
        """The broker says that it takes nothing at QoS 1 (MQTT 5, 3.2.2.3.4)."""
        hint = "requests and outcomes need QoS 1; raise the broker's limit (mosquitto: `max_qos`)"
        return LinkRefused(f"{self._name}: the broker takes messages without acknowledgement alone (QoS 0)", hint=hint)

    def unsubscribed(self, topic: str, reason: ReasonCode) -> LinkError:
        """The broker's answer to a subscription is no."""
        text = f"{self._name}: the broker refuses the subscription of {topic} ({printable(reason)})"
        rights = "may this user read the topic? ask for it in the broker's access list"
        return LinkRefused(text, hint=_UNSUBSCRIBED.get(reason.value, rights))

    def statusless(self, reason: ReasonCode) -> LinkError:
        """The broker does not take our status."""
        text = f"{self._name}: the broker refuses {self._options.status_topic} ({printable(reason)})"
        return LinkRefused(text, hint="may this user write to `status_topic`? ask for it in the broker's access list")

    def ended(self, reason: ReasonCode, *, told: bool, connected: bool) -> LinkError:
        """The connection is gone: the broker said so, or it broke, or it never came about."""
        if told:
            hint = "another client uses our client id; is this site run twice?" if reason.value == _TAKEN_OVER else ""
            return self.lost(f"the broker ended the connection ({printable(reason)})", hint)
        if connected:
            return self.lost(f"the connection is lost ({printable(reason)})")
        return self.lost("the broker closed the connection before it answered", self._closed)

    def broken(self) -> LinkError:
        """It was gone before anything was said."""
        return self.lost("the connection broke at once", self._closed)

    @property
    def _closed(self) -> str:
        if self._options.websocket is not None:
            return "is `websocket.path` the broker's, and does it speak MQTT over WebSocket on this port?"
        if self._options.tls is None:
            return "does the broker want TLS on this port (`tls:`, mqtts://), or MQTT over WebSocket (`websocket:`, ws://)?"
        return "does the broker speak TLS on this port, and does it want a client certificate?"
