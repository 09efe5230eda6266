"""A pytest fixture for the tests of your own agent: a Kiro service with the answers of your test.

In your `conftest.py`::

    pytest_plugins = ["kiro_mcp.emulator.pytest_plugin"]

and in a test, which may also be async::

    def test_my_agent_looks_at_the_weather(kiro_emulator):
        kiro_emulator.enqueue([{"tool_use": {"name": "weather", "arguments": {"city": "Paris"}}}])
        kiro_emulator.enqueue("It is warm in Paris.")

        done = subprocess.run(["my-agent", "Paris?"], env={**os.environ, **kiro_emulator.env})

        assert done.returncode == 0
        assert kiro_emulator.prompts[0] == "Paris?"

With `kiro_emulator.env`, a `kiro-mcp` process uses only the emulator: no account, no network. A
prompt is answered with the next enqueued answer; otherwise by the loaded scripts; otherwise with a
canned text that repeats the prompt. `kiro_mcp.emulator.script_files` lists all steps and the
format of files.

Each test has its own emulator, in a thread with its own event loop. The plugin is not registered
as an entry point, because then pytest would import it wherever this package is installed.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kiro_mcp.emulator.accounts import EMULATOR_API_KEY
from kiro_mcp.emulator.app import RunningEmulator, running
from kiro_mcp.emulator.script_files import read_script, read_steps
from kiro_mcp.emulator.scripts import Script
from kiro_mcp.emulator.state import GENERATE, SeenRequest


class KiroEmulator:
    """A running emulator for a test. Its methods can be called from any thread.

    Args:
        emulator: The emulator.
        portal: Runs calls in its event loop.
        home: A folder for this test only.
    """

    def __init__(self, emulator: RunningEmulator, portal: BlockingPortal, home: Path) -> None:
        self.url: str = emulator.url
        """Its URL, such as `http://127.0.0.1:43210`."""
        self.env: Mapping[str, str] = {
            "KIRO_MCP_ENDPOINT_URL": emulator.url,
            "KIRO_API_KEY": EMULATOR_API_KEY,
            "KIRO_MCP_HOME": str(home),
        }
        """The environment variables with which a process uses it."""
        self._state = emulator.state
        self._portal = portal

    def enqueue(self, *answers: str | list[dict[str, Any]] | Script) -> None:
        """Answer the next prompts with these, one each: a text, a list of steps, or a script.

        Raises:
            InvalidRequest: A step cannot be played; the message names the wrong member.
        """
        for answer in answers:
            self._portal.call(self._state.enqueue, self._script(answer))

    def load(self, path: str | Path) -> None:
        """Load a script: a JSON file, or the folder of a captured call.

        Raises:
            InvalidRequest: It cannot be read or played; the message names the line or member.
        """
        self._portal.call(self._state.script_files.append, read_script(Path(path)))

    @property
    def requests(self) -> list[SeenRequest]:
        """The complete requests of all prompts, oldest first."""
        return self._portal.call(self._state.requests_to, GENERATE)

    @property
    def prompts(self) -> list[str]:
        """The last user text of each prompt; in a first one, the system prompt comes before it."""
        return [request.prompt for request in self.requests]

    def _script(self, answer: str | list[dict[str, Any]] | Script) -> Script:
        if isinstance(answer, tuple):
            return answer
        steps = [{"text": answer}] if isinstance(answer, str) else answer
        return read_steps(steps, serial=self._portal.call(self._state.next_id))


@pytest.fixture
def kiro_emulator(tmp_path: Path) -> Generator[KiroEmulator]:
    """Run an emulator of the Kiro service while a test runs."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(running()) as emulator,
    ):
        yield KiroEmulator(emulator, portal, tmp_path / "kiro-mcp")
