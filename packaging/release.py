"""Makes everything that a release publishes: `python packaging/release.py OWNER/REPOSITORY`.

The files of this repository name no owner, no URL and no registry namespace, because nobody has
published the package yet: a name that somebody else can register would run that person's program
with a user's key. This script asks for the owner and the repository on GitHub, and writes::

    dist/release/source/         the tracked files with owner, repository and version filled in
    dist/release/*.whl, *.tar.gz the wheel and the source archive of that folder
    dist/release/bundle/         the bundle for Claude Desktop, with the wheel inside
    dist/release/*.mcpb          the same, packed
    dist/release/links.md        links that add the published server to a client in one click

It publishes nothing; at the end it prints the commands that do. The version is the one in
`kiro_mcp/_version.py`.
"""

import argparse
import base64
import json
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

ROOT = Path(__file__).parent.parent
PROGRAM = "kiro-mcp"
DESCRIPTION = "Claude through your own Kiro subscription"
GITHUB_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9-]{0,38}))/([A-Za-z0-9._-]{1,100})")

STEPS = """\
Written to {out}. Nothing is published yet. What remains, in this order:

1. Read {out}/source/README.md and CHANGELOG.md. Does the text still say that the package is not
   published?
2. Tag the commit and push the tag:
     git tag v{version} && git push origin v{version}
3. Publish the wheel and the source archive. A version can never be used twice:
     uv publish {out}/{PROGRAM_FILE}-{version}*
4. Publish to the MCP registry, which reads the `mcp-name` line of the README on PyPI:
     cd {out}/source/packaging && mcp-publisher login github && mcp-publisher publish
5. Build the image. Its labels name the repository and the registry's entry:
     docker build -f {out}/source/packaging/Dockerfile \\
       --label io.modelcontextprotocol.server.name={name} \\
       --label org.opencontainers.image.source={url} \\
       --label org.opencontainers.image.version={version} \\
       -t ghcr.io/{image}:{version} {out}/source
     docker push ghcr.io/{image}:{version}
6. Check the bundle and attach it to the release of the tag:
     npx @anthropic-ai/mcpb validate {out}/bundle/manifest.json
     gh release create v{version} {out}/{PROGRAM}-{version}.mcpb
7. Copy the line of {out}/links.md into the README.
"""


def main() -> None:
    """Read the arguments, make the release, and print the remaining steps."""
    parser = argparse.ArgumentParser(description="Makes everything that a release publishes.")
    parser.add_argument("repository", metavar="OWNER/REPOSITORY", help="where it is on GitHub")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "release", metavar="FOLDER")
    arguments = parser.parse_args()
    found = GITHUB_NAME.fullmatch(arguments.repository)
    if not found:
        parser.error(f"{arguments.repository[:80]!r} is not OWNER/REPOSITORY")
    out: Path = arguments.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f"{out} is not empty. Delete it, or choose another folder with --out.")
    if changed := _git("status", "--porcelain"):
        print(f"Warning: these changes are not committed:\n{changed}", file=sys.stderr)
    make_release(owner=found[1], repository=found[2], out=out)


def make_release(*, owner: str, repository: str, out: Path) -> None:
    """Write everything to an empty folder, and print the remaining steps."""
    version: str = runpy.run_path(str(ROOT / "kiro_mcp" / "_version.py"))["__version__"]
    url = f"https://github.com/{owner}/{repository}"
    name = f"io.github.{owner}/{repository}"

    source = out / "source"
    for file in filter(None, _git("ls-files", "-z").split("\0")):
        if (ROOT / file).is_file():  # A file that is deleted and not committed is still listed.
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, source / file)
    fill_in(source, url=url, name=name, version=version)

    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is missing. Install it: pip install uv")
    subprocess.run(  # noqa: S603  # Our own command.
        [uv, "build", "--quiet", "--out-dir", str(out), str(source)], check=True
    )
    (out / ".gitignore").unlink(missing_ok=True)  # uv writes it for a folder `dist`.

    pack_bundle(source / "packaging" / "mcpb", wheel=next(out.glob("*.whl")), out=out)
    (out / "links.md").write_text(links_page(), "utf-8")
    print(
        STEPS.format(
            out=out,
            version=version,
            name=name,
            url=url,
            image=f"{owner}/{repository}".lower(),  # An image's name has no capitals.
            PROGRAM=PROGRAM,
            PROGRAM_FILE=PROGRAM.replace("-", "_"),
        )
    )


def fill_in(source: Path, *, url: str, name: str, version: str) -> None:
    """Fill in what the templates leave out. JSON files keep the order of their members.

    Args:
        source: The copy of the repository.
        url: The repository's URL.
        name: The server's name in the MCP registry.
        version: The package's version.
    """
    project = source / "pyproject.toml"
    urls = {
        "Repository": url,
        "Documentation": f"{url}#readme",
        "Changelog": f"{url}/blob/main/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }
    table = "".join(f'{title} = "{address}"\n' for title, address in urls.items())
    text = project.read_text("utf-8")
    project.write_text(
        text.replace("[project.scripts]", f"[project.urls]\n{table}\n[project.scripts]", 1), "utf-8"
    )

    # The registry looks for this line in the description on PyPI to see who owns the package.
    readme = source / "README.md"
    title, _, rest = readme.read_text("utf-8").partition("\n")
    readme.write_text(f"{title}\n\n<!-- mcp-name: {name} -->\n{rest}", "utf-8")

    file = source / "packaging" / "server.json"
    server = json.loads(file.read_text("utf-8"))
    (package,) = server["packages"]
    _write_json(
        file,
        {
            "$schema": server.pop("$schema"),
            "name": name,
            **server,
            "version": version,
            "websiteUrl": f"{url}#readme",
            "repository": {"url": url, "source": "github"},
            "packages": [{**package, "version": version}],
        },
    )

    file = source / "packaging" / "mcpb" / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    _write_json(
        file,
        {
            **manifest,
            "version": version,
            "repository": {"type": "git", "url": url},
            "homepage": url,
            "documentation": f"{url}#readme",
            "support": f"{url}/issues",
        },
    )


def pack_bundle(template: Path, *, wheel: Path, out: Path) -> None:
    """Make the bundle's folder, and pack it.

    The wheel is inside, so a host installs exactly this program, whatever an index has by its name.
    """
    bundle = out / "bundle"
    shutil.copytree(template, bundle)
    shutil.copy2(wheel, bundle)
    project = bundle / "pyproject.toml"
    text = project.read_text("utf-8")
    project.write_text(text.replace('path = "../.."', f'path = "{wheel.name}"'), "utf-8")
    version = json.loads((bundle / "manifest.json").read_text("utf-8"))["version"]
    with zipfile.ZipFile(out / f"{PROGRAM}-{version}.mcpb", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(bundle.iterdir()):
            packed.write(file, file.name)


# --- links --------------------------------------------------------------------------------
#
# The formats are the makers' own:
#
#     Cursor      https://cursor.com/docs/mcp/install-links
#     VS Code     https://code.visualstudio.com/docs/copilot/guides/mcp-developer-guide
#     LM Studio   https://lmstudio.ai/docs/app/mcp/deeplink
#     Kiro        https://kiro.dev/docs/mcp/share/
#     Goose       https://block.github.io/goose/deeplink-generator
#
# A link carries no key: nobody should put one into an address, and an example of one would stand in
# the way of a login. VS Code asks for the key by itself.

ENTRY = "kiro"
"""The server's name in a client."""

SERVER: Mapping[str, Any] = {"command": "uvx", "args": [PROGRAM]}
"""The published server, as most clients have it in `mcpServers`."""

VSCODE_INPUTS = [
    {"type": "promptString", "id": "kiro-key", "description": "Kiro API key", "password": True}
]
VSCODE_SERVER: Mapping[str, Any] = {
    "type": "stdio",
    **SERVER,
    "env": {"KIRO_API_KEY": "${input:kiro-key}"},
}


def app_links() -> dict[str, str]:
    """Return the links that clients open themselves. Some sites, GitHub too, do not show them."""
    vscode = quote(_json({"name": ENTRY, **VSCODE_SERVER, "inputs": VSCODE_INPUTS}), safe="")
    configured = urlencode({"name": ENTRY, "config": _base64(SERVER)})
    return {
        "Cursor": f"cursor://anysphere.cursor-deeplink/mcp/install?{configured}",
        "VS Code": f"vscode:mcp/install?{vscode}",
        "VS Code Insiders": f"vscode-insiders:mcp/install?{vscode}",
        "LM Studio": f"lmstudio://add_mcp?{configured}",
        "Goose": f"goose://extension?{_goose()}",
    }


def web_links() -> dict[str, str]:
    """Return the links that go through a site of the client's maker; they work everywhere."""
    vscode = {"name": ENTRY, "inputs": _json(VSCODE_INPUTS), "config": _json(VSCODE_SERVER)}
    install = "https://insiders.vscode.dev/redirect/mcp/install?"
    configured = urlencode({"name": ENTRY, "config": _base64(SERVER)})
    plain = urlencode({"name": ENTRY, "config": _json(SERVER)}, quote_via=quote)
    return {
        "Cursor": f"https://cursor.com/install-mcp?{configured}",
        "VS Code": install + urlencode(vscode, quote_via=quote),
        "VS Code Insiders": install + urlencode({**vscode, "quality": "insiders"}, quote_via=quote),
        "LM Studio": f"https://lmstudio.ai/install-mcp?{configured}",
        "Kiro": f"https://kiro.dev/launch/mcp/add?{plain}",
        "Goose": f"https://block.github.io/goose/extension?{_goose()}",
    }


def links_page() -> str:
    """Return the text of `links.md`."""
    for_apps, for_sites = (
        " · ".join(f"[{client}]({link})" for client, link in links.items())
        for links in (app_links(), web_links())
    )
    return (
        "# Links that add the server to a client\n\n"
        "They work once the package is published. None has a key in it.\n\n"
        f"For the README:\n\nIn one click, without a key: {for_sites}.\n\n"
        f"For pages that allow links of any scheme:\n\nIn one click, without a key: {for_apps}.\n"
    )


def _goose() -> str:
    wanted = [("cmd", SERVER["command"]), *(("arg", one) for one in SERVER["args"])]
    named = [("id", ENTRY), ("name", ENTRY), ("description", DESCRIPTION)]
    return urlencode([*wanted, *named], quote_via=quote)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _base64(value: object) -> str:
    return base64.b64encode(_json(value).encode()).decode("ascii")


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        sys.exit("git is missing. A release is made from a clone of the repository.")
    done = subprocess.run(  # noqa: S603  # Our own command.
        [git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"A release is made from a clone of the repository: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
