# /// script
# dependencies = ["openai==3.57.0"]
# ///
# OpenAI SDK: Claude as the model, through kiro-mcp's API.
# Install kiro-mcp: `uv tool install .` in a clone. Choose a secret, serve, and run:
#     export KIRO_MCP_HTTP_TOKEN=secret
#     kiro-mcp serve --transport http --api --offline  # without --offline: your Kiro login
#     uv run docs/examples/openai_api.py

import os
import sys

from openai import APIStatusError, OpenAI

URL = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000") + "/v1"
client = OpenAI(base_url=URL, api_key=os.environ["KIRO_MCP_HTTP_TOKEN"])
model = "claude-sonnet-4.5"

stream = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "Say hello"}], stream=True
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

answer = client.responses.create(model=model, input="Say hello again")
print(answer.output_text)

try:
    client.responses.create(model="no-such-model", input="Say hello")
except APIStatusError as error:
    print(error.status_code, error.message)
