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
    limit = f"    max_items: {max_items}\n" if max_items else ""
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
