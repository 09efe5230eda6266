"""A pytest fixture for the tests of your own agent: a Kiro service that says what a test wants.

In your `conftest.py`::

    pytest_plugins = ["kiro_mcp.emulator.pytest_plugin"]

and in a test, be it a plain function or an async one::

    def test_my_agent_looks_at_the_weather(kiro_emulator):
        kiro_emulator.enqueue([{"tool_use": {"name": "weather", "arguments": {"city": "Paris"}}}])
        kiro_emulator.enqueue("It is warm in Paris.")

        done = subprocess.run(["my-agent", "Paris?"], env={**os.environ, **kiro_emulator.env})

        assert done.returncode == 0
        assert kiro_emulator.prompts[0] == "Paris?"

`kiro_emulator.env` sends a `kiro-mcp` that your agent starts, or one that it talks to, to the
emulator and nowhere else: no account, no network. What a prompt is answered with: first what was
enqueued, one answer a prompt; then the scripts that were loaded; then a canned text that repeats
the prompt. Steps and files are those of `kiro_mcp.emulator.script_files`, where all are listed.

Each test has an emulator of its own, in a thread with an event loop of its own. The plugin is
not registered as an entry point: it would be imported at each start of pytest wherever this
package is installed.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kiro_mcp.emulator.accounts import EMULATOR_API_KEY
from kiro_mcp.emulator.app import RunningEmulator, running
from kiro_mcp.emulator.body import Conversation
from kiro_mcp.emulator.script_files import read_script, read_steps
from kiro_mcp.emulator.scripts import Script
from kiro_mcp.emulator.state import GENERATE, SeenRequest


class KiroEmulator:
    """A running emulator, as a test holds it. Its methods can be called from any thread.

    Args:
        emulator: The emulator.
        portal: The way into its event loop.
        home: A folder that is the test's own.
    """

    def __init__(self, emulator: RunningEmulator, portal: BlockingPortal, home: Path) -> None:
        self.url: str = emulator.url
        """Where it serves, such as `http://127.0.0.1:43210`."""
        self.env: Mapping[str, str] = {
            "KIRO_MCP_ENDPOINT_URL": emulator.url,
            "KIRO_API_KEY": EMULATOR_API_KEY,
            "KIRO_MCP_HOME": str(home),
        }
        """Environment variables for a process that is to use it."""
        self._state = emulator.state
        self._portal = portal

    def enqueue(self, *answers: str | list[dict[str, Any]] | Script) -> None:
        """Answer the next prompts with these, one each: a text, a list of steps, or a script.

        Raises:
            InvalidRequest: A step cannot be played; names its member at fault.
        """
        for answer in answers:
            self._portal.call(self._state.enqueue, self._script(answer))

    def load(self, path: str | Path) -> None:
        """Load a script: a JSON file, or the folder of a captured call.

        Raises:
            InvalidRequest: It cannot be read or played; names the line or member at fault.
        """
        self._portal.call(self._state.script_files.append, read_script(Path(path)))

    @property
    def requests(self) -> list[SeenRequest]:
        """The prompts as they came, whole requests, oldest first."""
        return self._portal.call(self._state.requests_to, GENERATE)

    @property
    def prompts(self) -> list[str]:
        """The last user text of each; a system prompt stands in front of a first one."""
        return [Conversation(one.body).current.content.strip() for one in self.requests]

    def _script(self, answer: str | list[dict[str, Any]] | Script) -> Script:
        if isinstance(answer, tuple):
            return answer
        steps = [{"text": answer}] if isinstance(answer, str) else answer
        return read_steps(steps, serial=self._portal.call(self._state.next_id))


@pytest.fixture
def kiro_emulator(tmp_path: Path) -> Generator[KiroEmulator]:
    """Serve a stand-in for the Kiro service while a test runs."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(running()) as emulator,
    ):
        yield KiroEmulator(emulator, portal, tmp_path / "kiro-mcp")
