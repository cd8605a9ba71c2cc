"""The site files of the bench: one new asset a message, one message a call (`max_items: 1`), returns told only at their end (`progress: false`)."""

PAYLOAD = """\
      assetReference: reference
      assetName: name
      importMpan: mpan
      postcode: postcode
      gspGroup: gsp_group
      connectionType: {const: DISTRIBUTION}
      connectionVoltageKv: {const: 0.4}
      technologyType: {const: EV_CHARGING}
      maxExportKw: kw
      maxImportKw: kw
      meteringType: {const: HH}
      meteringIntervalMs: {const: 1800000}
      effectiveFrom: {const: "2026-12-01T00:00:00Z"}
"""


def mqtt_site(
    port: int,
    *,
    site: str = "bench",
    topic: str = "bench/slot",
    max_items: int | None = 1,
    progress: bool = False,
    linger: str = "",
) -> str:
    """An MQTT site on a broker of this machine."""
    limit = _limit(max_items)
    limit += f"    linger: {linger}\n" if linger else ""
    return f"""\
site: {site}
participant: acme-test
adapters:
  broker: {{protocol: mqtt, host: 127.0.0.1, port: {port}, writable: ["{topic}/+/result"]}}
flows:
  assets:
    adapter: broker
    operation: asset.create
    records:
      each: "{topic}/{{slot}}"
      key: reference
      fields: {{reference: id, name: name, mpan: mpan, postcode: postcode, gsp_group: gspGroup, kw: kw}}
    submit: {{when: change}}
    payload:
{PAYLOAD}    outcome: {{topic: "{topic}/{{slot}}/result", payload: {{state: state, transactionId: transactionId, errors: errorText}}, progress: {str(progress).lower()}}}
{limit}"""


_MODBUS_FIELDS = """\
        name: {at: 0, type: string, registers: 10}
        reference: {at: 10, type: string, registers: 6}
        mpan: {at: 16, type: string, registers: 7}
        postcode: {at: 23, type: string, registers: 4}
        gsp_group: {at: 27, type: string, registers: 1}
        kw: {at: 28, type: uint16}
"""


def modbus_site(
    port: int,
    *,
    site: str = "bench",
    slots: int = 4,
    stride: int = 30,
    state: int = 300,
    poll: str = "10ms",
    max_items: int | None = 1,
) -> str:
    """A Modbus site whose slots are read every `poll` and submitted on change."""
    return f"""\
site: {site}
participant: acme-test
adapters:
  ems: {{protocol: modbus, host: 127.0.0.1, port: {port}, poll: {poll}, writable: [{{from: {state}, to: {state + 3}, every: {stride}, count: {slots}}}]}}
flows:
  assets:
    adapter: ems
    operation: asset.create
    records:
      each: {{base: 0, stride: {stride}, count: {slots}}}
      key: reference
      fields:
{_MODBUS_FIELDS}    submit: {{when: change}}
    payload:
{PAYLOAD}    outcome: {{state: {{at: {state}, type: uint16}}, progress: false}}
{_limit(max_items)}"""


def _limit(max_items: int | None) -> str:
    return f"    max_items: {max_items}\n" if max_items else ""


def modbus_call_site(port: int, count: int, *, site: str = "bench") -> str:
    """A Modbus site whose every request asks for all its records at once."""
    return f"""\
site: {site}
participant: acme-test
adapters:
  ems: {{protocol: modbus, host: 127.0.0.1, port: {port}, poll: 10ms, writable: ["192..193", {{from: 250, to: 253, every: 60, count: {count}}}]}}
flows:
  assets:
    adapter: ems
    operation: asset.create
    records:
      each: {{base: 200, stride: 60, count: {count}}}
      key: reference
      fields:
{_MODBUS_FIELDS}    submit: {{when: request, request: 190, equals: 1, sequence: 191, status: 192, error: 193}}
    payload:
{PAYLOAD}    outcome: {{state: {{at: 50, type: uint16}}, progress: false}}
"""


def opcua_site(port: int, *, site: str = "bench", interval: str = "10ms", max_items: int | None = 1) -> str:
    """An OPC UA site whose records are submitted on change; `interval` between samples and publishes."""
    return f"""\
site: {site}
participant: acme-test
adapters:
  ems:
    protocol: opcua
    url: "opc.tcp://127.0.0.1:{port}"
    security: {{policy: None}}
    namespaces: {{ems: "urn:acme:bench"}}
    sampling_interval: {interval}
    publishing_interval: {interval}
    writable: ["Objects/ems:EMS/*/ems:State"]
flows:
  assets:
    adapter: ems
    operation: asset.create
    records:
      each: "Objects/ems:EMS/*"
      key: reference
      fields: {{reference: Reference, name: Name, mpan: MPAN, postcode: Postcode, gsp_group: GSPGroup, kw: KW}}
    submit: {{when: change}}
    payload:
{PAYLOAD}    outcome: {{state: State, progress: false}}
{_limit(max_items)}"""
