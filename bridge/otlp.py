"""Spans as OTLP has them: one `ExportTraceServiceRequest` in protobuf, and what a collector says to it. Needs the extra `tracing`; import it late."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from bridge.spans import Attribute
from bridge.spans import Span as OurSpan
from bridge.turns import Turns

SCOPE: Final = "smp-bridge"
CONTENT_TYPE: Final = "application/x-protobuf"


class Encoder:
    """Makes the requests of one process; `resource` is what it says of itself."""

    def __init__(self, resource: Mapping[str, Attribute]) -> None:
        release = _version()
        self._resource = Resource(attributes=_pairs({**resource, "service.version": release}))
        self._scope = InstrumentationScope(name=SCOPE, version=release)

    async def request(self, spans: Iterable[OurSpan], turns: Turns) -> bytes:
        """The body of one POST; others have their turn meanwhile."""
        made = []
        for span in spans:
            await turns.give()
            made.append(_span(span))
        scoped = ScopeSpans(scope=self._scope, spans=made)
        whole = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scoped])])
        return bytes(whole.SerializeToString())


def refused_spans(body: bytes) -> int:
    """How many spans a collector did not take although it answered 200 (OTLP, "Partial Success")."""
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except DecodeError:
        return 0


def _span(span: OurSpan) -> Span:
    return Span(
        trace_id=span.trace,
        span_id=span.id,
        parent_span_id=span.parent,
        name=span.name,
        kind=Span.SPAN_KIND_CLIENT if span.client else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs(span.attributes),
        status=Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else None,
    )


def _pairs(attributes: Mapping[str, Attribute]) -> list[KeyValue]:
    return [_pair(key, value) for key, value in attributes.items()]


@lru_cache(
    maxsize=1024, typed=True
)  # the spans of a submission say the same again and again, and most of it is the configuration's
def _pair(key: str, value: Attribute) -> KeyValue:
    return KeyValue(key=key, value=_value(value))


def _value(value: Attribute) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value)


def _version() -> str:
    try:
        return version("smp-bridge")
    except PackageNotFoundError:
        return "unknown"
