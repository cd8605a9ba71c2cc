"""The options of `smp-bridge browse`, as a person reads them in `--help`."""

import enum
from pathlib import Path
from typing import Annotated

import typer


class Form(enum.Enum):
    """How the result is printed."""

    TABLE = "table"
    JSON = "json"
    SITE = "site"


Url = Annotated[
    str,
    typer.Argument(
        metavar="[URL]",
        help="opc.tcp://HOST:PORT, mqtt://HOST:PORT (mqtts, ws, wss), modbus://HOST:PORT (modbus+tls, modbus+rtu, modbus+serial:///dev/…).",
    ),
]
ConfigDirectory = Annotated[
    Path, typer.Option("--config", help="With --site: the directory that holds bridge.yaml and sites/*.yaml.")
]
Site = Annotated[
    str,
    typer.Option(
        help="In place of a URL: the address and security of this site's adapter. With a URL: the name of the draft."
    ),
]
AdapterName = Annotated[
    str,
    typer.Option(
        help="Which adapter of the site, where it has several. With a URL: what the adapter is called in the draft."
    ),
]
As = Annotated[Form, typer.Option("--as", help="site prints a draft of a site file, which `smp-bridge check` accepts.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --as json.")]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        "--filter",
        help="OPC UA: the path of the node to begin at. MQTT: the topic filter to listen on, such as acme/+/ems/#; everything (#) when left out.",
    ),
]
WaitS = Annotated[
    float,
    typer.Option(
        "--wait", help="MQTT: listen for so many seconds; what is retained comes at once.", min=0.1, max=86_400
    ),
]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        help="Modbus: read these addresses, such as holding:0-199; may be repeated. TABLE is holding, input, coils or discrete; addresses count from 0, as on the wire.",
    ),
]
Units = Annotated[
    list[int] | None,
    typer.Option("--unit", help="Modbus: of this unit; may be repeated.", min=0, max=255),
]
Most = Annotated[int, typer.Option(help="Show at most so many nodes, topics or addresses.", min=1, max=1_000_000)]
User = Annotated[str, typer.Option(help="The user's name.")]
PasswordFile = Annotated[Path | None, typer.Option(help="The file that holds the password.")]
PasswordEnv = Annotated[str, typer.Option(help="The environment variable that holds the password.")]
Certificate = Annotated[Path | None, typer.Option(help="This host's certificate.")]
Key = Annotated[Path | None, typer.Option(help="The key of this host's certificate.")]
Trust = Annotated[
    list[Path] | None,
    typer.Option(
        help="The server's certificate (OPC UA; may be repeated), or the authority of it (TLS). No server is trusted unseen."
    ),
]
SecurityPolicy = Annotated[
    str,
    typer.Option(
        help="OPC UA: Basic256Sha256 (the default with --certificate), Aes128Sha256RsaOaep, Aes256Sha256RsaPss, or None."
    ),
]
Mode = Annotated[str, typer.Option(help="OPC UA: SignAndEncrypt (the default) or Sign.")]
Participant = Annotated[str, typer.Option(help="Whose assets the draft's are: an entry of bridge.yaml.")]
