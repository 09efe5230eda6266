"""Invented secrets: one of each known shape, and one without a shape that is in use."""

from kiro_mcp.redaction import forget_secrets, remember_secret

ACCESS = "aoaAAAAAGk3x9QzV8nK_abcDEF123-xyz:MGUCMQDsig/nature+base64=="
REFRESH = ACCESS.replace("aoa", "aor", 1)
KEY = "ksk_0123456789abcdef0123456789abcdef"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3MzAwMDAwMDB9.c2lnbmF0dXJl-_x"

IN_USE = "gateway/pass of no~known shape"
"""Every test begins with this one in use, and no other."""


def begin_with_one_secret() -> None:
    """Forget the secrets of earlier tests in this process: they hide ordinary words of this one."""
    forget_secrets()
    remember_secret(IN_USE, is_lasting=True)


SHAPES = {"aoa": ACCESS, "aor": REFRESH, "ksk": KEY, "jwt": JWT}
"""Secrets that are known by themselves."""

NAMED = {
    "bearer": ("Authorization: Bearer {}", "opaque-bearer-0123456789"),
    "basic": ("Proxy-Authorization: Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "json": ('{{"clientSecret": "{}"}}', "s3cr3t of no known shape"),
    "nested json": ('{{"body": "{{\\"deviceCode\\": \\"{}\\"}}"}}', "s3cr3t-of-no-known-shape"),
    "query": ("https://example.com/?refresh_token={}&x=1", "s3cr3t-of-no-known-shape"),
    "assignment": ("KIRO_MCP_HTTP_TOKEN={} kiro-mcp", "s3cr3t-of-no-known-shape"),
}
"""Texts with a place for a secret that is known by what is beside it, and such a secret."""

TEXTS = (
    {name: (f"the key is {secret}, ok?", secret) for name, secret in SHAPES.items()}
    | {name: (around.format(secret), secret) for name, (around, secret) in NAMED.items()}
    | {"in use": (f"you sent {IN_USE}.", IN_USE)}
)
"""Texts, and the secret in each."""
