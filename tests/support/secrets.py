"""A secret of every shape that is known, invented."""

ACCESS = "aoaAAAAAGk3x9QzV8nK_abcDEF123-xyz:MGUCMQDsig/nature+base64=="
REFRESH = ACCESS.replace("aoa", "aor", 1)
KEY = "ksk_0123456789abcdef0123456789abcdef"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3MzAwMDAwMDB9.c2lnbmF0dXJl-_x"

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

TEXTS = {name: (f"the key is {secret}, ok?", secret) for name, secret in SHAPES.items()} | {
    name: (around.format(secret), secret) for name, (around, secret) in NAMED.items()
}
"""Texts, and the secret in each."""
