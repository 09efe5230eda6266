"""One-click links: the README's configurations as addresses that install them in a client.

`python packaging/links.py` prints the README's line of them. The formats are the makers' own:

    Cursor      https://cursor.com/docs/mcp/install-links
    VS Code     https://code.visualstudio.com/docs/copilot/guides/mcp-developer-guide
    LM Studio   https://lmstudio.ai/docs/app/mcp/deeplink
    Kiro        https://kiro.dev/docs/mcp/share/
    Goose       https://block.github.io/goose/deeplink-generator

A link carries no key: nobody should put one into an address, and an example of one would stand
in the way of a login. VS Code asks for the key by itself.
"""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

README = Path(__file__).parent.parent / "README.md"
DESCRIPTION = "Claude through your own Kiro subscription"

Block = Mapping[str, Any]


def blocks(readme: str) -> tuple[Block, Block]:
    """Return the README's configurations: the common one, and VS Code's."""
    found = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", readme, re.M | re.S)]
    (common,) = (block for block in found if "mcpServers" in block)
    (vscode,) = (block for block in found if "servers" in block)
    return common, vscode


def app_links(common: Block, vscode: Block) -> dict[str, str]:
    """Return the links that clients open themselves. Some sites, GitHub too, do not show them."""
    name, server = _without_key(common)
    ((_, asking),) = vscode["servers"].items()
    wanted = quote(_json({"name": name, **asking, "inputs": vscode["inputs"]}), safe="")
    configured = urlencode({"name": name, "config": _base64(server)})
    return {
        "Cursor": f"cursor://anysphere.cursor-deeplink/mcp/install?{configured}",
        "VS Code": f"vscode:mcp/install?{wanted}",
        "VS Code Insiders": f"vscode-insiders:mcp/install?{wanted}",
        "LM Studio": f"lmstudio://add_mcp?{configured}",
        "Goose": f"goose://extension?{_goose(name, server)}",
    }


def web_links(common: Block, vscode: Block) -> dict[str, str]:
    """Return the links that go through a site of the client's maker; they work everywhere."""
    name, server = _without_key(common)
    ((_, asking),) = vscode["servers"].items()
    wanted = {"name": name, "inputs": _json(vscode["inputs"]), "config": _json(asking)}
    install = "https://insiders.vscode.dev/redirect/mcp/install?"
    configured = urlencode({"name": name, "config": _base64(server)})
    plain = urlencode({"name": name, "config": _json(server)}, quote_via=quote)
    return {
        "Cursor": f"https://cursor.com/install-mcp?{configured}",
        "VS Code": install + urlencode(wanted, quote_via=quote),
        "VS Code Insiders": install + urlencode({**wanted, "quality": "insiders"}, quote_via=quote),
        "LM Studio": f"https://lmstudio.ai/install-mcp?{configured}",
        "Kiro": f"https://kiro.dev/launch/mcp/add?{plain}",
        "Goose": f"https://block.github.io/goose/extension?{_goose(name, server)}",
    }


def markdown(links: Mapping[str, str]) -> str:
    """Return the README's line."""
    listed = " · ".join(f"[{client}]({link})" for client, link in links.items())
    return f"In one click, without a key: {listed}."


def _without_key(common: Block) -> tuple[str, dict[str, Any]]:
    ((name, server),) = common["mcpServers"].items()
    return name, {member: value for member, value in server.items() if member != "env"}


def _goose(name: str, server: Block) -> str:
    wanted = [("cmd", server["command"]), *(("arg", one) for one in server["args"])]
    named = [("id", name), ("name", name), ("description", DESCRIPTION)]
    return urlencode([*wanted, *named], quote_via=quote)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _base64(value: object) -> str:
    return base64.b64encode(_json(value).encode()).decode("ascii")


if __name__ == "__main__":
    print(markdown(web_links(*blocks(README.read_text("utf-8")))))
