# /// script
# dependencies = ["anthropic==2.14.0"]
# ///
# Anthropic SDK: Claude as the model, through kiro-mcp's API.
# Install kiro-mcp: `uv tool install .` in a clone. Choose a secret, serve, and run:
#     export KIRO_MCP_HTTP_TOKEN=secret
#     kiro-mcp serve --transport http --api --offline  # without --offline: your Kiro login
#     uv run docs/examples/anthropic_api.py

import os
import sys

from anthropic import Anthropic, APIStatusError

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = Anthropic(base_url=URL, api_key=os.environ["KIRO_MCP_HTTP_TOKEN"])
hello = {"model": "claude-sonnet-4.5", "max_tokens": 1000}

with client.messages.stream(**hello, messages=[{"role": "user", "content": "Say hello"}]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()

try:
    client.messages.create(
        model="no-such-model", max_tokens=1000, messages=[{"role": "user", "content": "Say hello"}]
    )
except APIStatusError as error:
    print(error.status_code, error.message)
