"""The emulator as a service: its addresses, what it refuses and records, its start and stop."""

import socket
from typing import Any

import anyio
import httpx
import pytest

from kiro_mcp.emulator import (
    BUILDER_ID_PROFILE_ARN,
    EMULATOR_API_KEY,
    EMULATOR_BUILDER_ID_ACCESS_TOKEN,
    EMULATOR_PROFILE_ARN,
    EMULATOR_SOCIAL_ACCESS_TOKEN,
    Accounts,
    EmulatorState,
    RunningEmulator,
    Script,
    build_app,
    refusals,
    running,
)
from kiro_mcp.emulator.app import MAX_BODY_BYTES
from kiro_mcp.emulator.rules import read_call
from kiro_mcp.emulator.state import MAX_RECORDED_BODY_BYTES, MAX_REMEMBERED_PROMPTS
from tests.emulator.calls import (
    AS_USER,
    REST_PATH,
    RPC_CONTENT,
    WITH_KEY,
    Json,
    ask,
    body_of,
    connected,
    events_of,
    text_of,
    user,
)

SERVICE = "AmazonCodeWhispererService"
STREAMING = "AmazonCodeWhispererStreamingService"
BAD_BEARER = {"message": "The bearer token included in the request is invalid.", "reason": None}
WITH_PROFILE = {"x-amzn-kiro-profile-arn": EMULATOR_PROFILE_ARN}


def bearer(token: str) -> dict[str, str]:
    """The header that carries a bearer."""
    return {"Authorization": f"Bearer {token}"}


async def rpc(
    client: httpx.AsyncClient, target: str, body: Any, headers: dict[str, str]
) -> httpx.Response:
    """Call in the RPC form."""
    headers = {**RPC_CONTENT, "X-Amz-Target": target, **headers}
    return await client.post("/", json=body, headers=headers)


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (f"{STREAMING}.GenerateAssistantResponse", "KIRO_CLI"),
        (f"{STREAMING}.SendMessage", "CLI"),
        ("AmazonQDeveloperStreamingService.SendMessage", "CLI"),
    ],
)
async def test_the_rpc_form_starts_its_stream_with_an_initial_response(
    target: str, origin: str, emulator: RunningEmulator
) -> None:
    """Observed: the id in it is empty."""
    async with connected(emulator.url) as client:
        response = await rpc(client, target, body_of(user(origin=origin)), AS_USER)
    events = events_of(response.content)
    assert events[0] == ("initial-response", {"conversationId": ""})
    assert text_of(events).endswith("You said: Hello")


async def test_the_rest_form_starts_with_the_answer_itself(emulator: RunningEmulator) -> None:
    """The service's REST protocol has no initial response."""
    async with connected(emulator.url) as client:
        response = await ask(client, "Hello")
    assert events_of(response.content)[0][0] == "assistantResponseEvent"


MIXED = {
    "REST with a target": {"X-Amz-Target": f"{STREAMING}.GenerateAssistantResponse"},
    "REST with the content type of RPC": RPC_CONTENT,
}


@pytest.mark.parametrize("headers", MIXED.values(), ids=MIXED)
async def test_the_two_forms_are_not_mixed(
    headers: dict[str, str], emulator: RunningEmulator
) -> None:
    """Stricter than the service: a client must use one form completely."""
    async with connected(emulator.url) as client:
        response = await client.post(REST_PATH, json=body_of(), headers={**AS_USER, **headers})
    assert response.status_code == 400
    assert "REST form" in response.headers["x-emulator-fault"]


async def test_an_unknown_target_is_refused(emulator: RunningEmulator) -> None:
    """The RPC protocol."""
    async with connected(emulator.url) as client:
        response = await rpc(client, "Nonsense.Nothing", {}, AS_USER)
    assert response.status_code == 404
    assert response.json()["__type"].endswith("#UnknownOperationException")


async def test_a_refusal_names_its_error_in_the_header_and_in_rpc_also_in_the_body(
    emulator: RunningEmulator,
) -> None:
    """The REST and RPC protocols."""
    async with connected(emulator.url) as client:
        rest = await client.post(REST_PATH, json={}, headers=AS_USER)
        target = f"{STREAMING}.GenerateAssistantResponse"
        answer = await rpc(client, target, {}, AS_USER)
    assert rest.headers["x-amzn-errortype"] == "ValidationException"
    assert rest.json() == {
        "message": "profileArn is required for this request.",
        "reason": None,
    }
    assert answer.json() == {
        "__type": "com.amazon.aws.codewhisperer#ValidationException",
        **rest.json(),
    }


async def test_a_refusal_gives_its_reason_in_a_header(
    emulator: RunningEmulator,
) -> None:
    """`Improperly formed request.` helps nobody."""
    async with connected(emulator.url) as client:
        response = await ask(client, user("Hello", ünknown="x\ny" * 200))
    assert response.json()["message"] == "Improperly formed request."
    fault = response.headers["x-emulator-fault"]
    assert fault.startswith("structure: $.conversationState")
    assert "\\xfcnknown" in fault


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"a": NaN}', b'"\xff"', b"[" * 100_000, b"1" * 5_000],
    ids=["nothing", "half", "NaN", "not UTF-8", "too deep", "too long a number"],
)
async def test_a_body_that_is_not_json_is_refused(raw: bytes, emulator: RunningEmulator) -> None:
    """Observed: 400 REQUEST_BODY_INVALID."""
    headers = {**AS_USER, "Content-Type": "application/json"}
    async with connected(emulator.url) as client:
        response = await client.post(REST_PATH, content=raw, headers=headers)
    assert response.status_code == 400
    assert response.json()["reason"] == "REQUEST_BODY_INVALID"


async def test_a_body_that_is_too_long_is_refused_but_images_do_not_count() -> None:
    """Observed: 400 CONTENT_LENGTH_EXCEEDS_THRESHOLD; bodies with images may be larger."""
    state = EmulatorState(max_input_bytes=2_000)
    image = {"format": "png", "source": {"bytes": "iVBO" * 4_000}}
    async with running(state) as emulator, connected(emulator.url) as client:
        long = await ask(client, "x" * 3_000)
        with_image = await ask(client, user(images=[image]))
    assert (long.status_code, long.json()["reason"]) == (400, "CONTENT_LENGTH_EXCEEDS_THRESHOLD")
    assert with_image.status_code == 200


async def test_a_body_beyond_all_limits_is_refused_unread(emulator: RunningEmulator) -> None:
    """Observed: 413 with this text."""
    async with connected(emulator.url) as client:
        with anyio.fail_after(20):
            response = await client.post(
                REST_PATH, content=b" " * (MAX_BODY_BYTES + 1024 * 1024), headers=AS_USER
            )
    assert response.status_code == 413
    assert "length limit exceeded" in response.json()["message"]


async def test_a_client_that_leaves_inside_its_request_is_noticed(
    emulator: RunningEmulator,
) -> None:
    """It counts as a client that disconnected."""
    host, port = emulator.url.removeprefix("http://").split(":")
    with anyio.fail_after(20):
        stream = await anyio.connect_tcp(host, int(port))
        async with stream:
            await stream.send(b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await emulator.state.until(lambda state: state.disconnects == 1)


IDENTITIES: dict[str, tuple[dict[str, str], int]] = {
    "key without TokenType": (bearer(EMULATOR_API_KEY), 403),
    "key with another TokenType": ({**WITH_KEY, "TokenType": "EXTERNAL_IDP"}, 403),
    "key": (WITH_KEY, 200),
    "token with TokenType": ({**AS_USER, "TokenType": "API_KEY"}, 403),
    "token": (AS_USER, 200),
    "social token": (bearer(EMULATOR_SOCIAL_ACCESS_TOKEN), 200),
    "unknown bearer": (bearer("nonsense"), 403),
    "other scheme": ({"Authorization": f"Basic {EMULATOR_API_KEY}", "TokenType": "API_KEY"}, 403),
    "no bearer": ({}, 401),
}


@pytest.mark.parametrize(("headers", "status"), IDENTITIES.values(), ids=IDENTITIES)
async def test_only_known_bearers_are_served(
    headers: dict[str, str], status: int, emulator: RunningEmulator
) -> None:
    """Observed: the header TokenType decides how a bearer is read."""
    async with connected(emulator.url) as client:
        response = await client.post(REST_PATH, json=body_of(), headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json() == BAD_BEARER


PROFILES: dict[str, tuple[dict[str, str], str | None, int]] = {
    "token without": (AS_USER, None, 400),
    "token with another's": (AS_USER, BUILDER_ID_PROFILE_ARN, 403),
    "key without": (WITH_KEY, None, 200),
    "key with its own": (WITH_KEY, EMULATOR_PROFILE_ARN, 200),
    "key with another's": (WITH_KEY, BUILDER_ID_PROFILE_ARN, 403),
    "Builder ID": (bearer(EMULATOR_BUILDER_ID_ACCESS_TOKEN), BUILDER_ID_PROFILE_ARN, 200),
    "Builder ID with another's": (
        bearer(EMULATOR_BUILDER_ID_ACCESS_TOKEN),
        EMULATOR_PROFILE_ARN,
        403,
    ),
}


@pytest.mark.parametrize(("headers", "arn", "status"), PROFILES.values(), ids=PROFILES)
async def test_a_call_names_its_own_profile(
    headers: dict[str, str], arn: str | None, status: int, emulator: RunningEmulator
) -> None:
    """Observed: required of all but API keys; another's is not authorized."""
    body = body_of()
    body.pop("profileArn")
    if arn:
        body["profileArn"] = arn
    async with connected(emulator.url) as client:
        response = await client.post(REST_PATH, json=body, headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json()["message"] == "User is not authorized to make this call."


async def every_model(client: httpx.AsyncClient, path: str) -> list[str]:
    """The ids of a catalogue, all its pages read in the REST form."""
    query = {"origin": "KIRO_CLI", "profileArn": EMULATOR_PROFILE_ARN}
    ids: list[str] = []
    while True:
        response = await client.get(path, params=query, headers=AS_USER)
        page: Json = response.json()
        assert page["defaultModel"]["modelId"] == "auto"
        ids += [model["modelId"] for model in page["models"]]
        if "nextToken" not in page:
            return ids
        query["nextToken"] = page["nextToken"]


@pytest.mark.parametrize("path", ["/List-Available-Models", "/ListAvailableModels"])
async def test_the_catalogue_comes_in_two_pages(path: str, emulator: RunningEmulator) -> None:
    """The service's operation ListAvailableModels, in the REST form."""
    async with connected(emulator.url) as client:
        ids = await every_model(client, path)
    assert ids == [model["modelId"] for model in emulator.state.catalogue]
    assert len(emulator.state.requests_to("ListAvailableModels")) == 2


async def test_the_catalogue_is_served_in_the_rpc_form_too(emulator: RunningEmulator) -> None:
    """Observed: the official command line client pages in the body."""
    headers = {**AS_USER, **WITH_PROFILE}
    target = f"{SERVICE}.ListAvailableModels"
    async with connected(emulator.url) as client:
        first = await rpc(client, target, {"origin": "KIRO_CLI"}, headers)
        token = first.json()["nextToken"]
        body = {"origin": "KIRO_CLI", "nextToken": token}
        second = await rpc(client, target, body, headers)
        bad = await rpc(client, target, {**body, "nextToken": "nonsense"}, headers)
    assert "nextToken" not in second.json()
    assert bad.status_code == 400


async def test_a_catalogue_without_its_default_names_none() -> None:
    """All members of the answer but the models are optional."""
    model = {"modelId": "claude-sonnet-5"}
    state = EmulatorState(catalogue=(model,))
    async with running(state) as emulator, connected(emulator.url) as client:
        response = await client.get("/ListAvailableModels?origin=CLI", headers=WITH_KEY)
    assert response.json() == {"models": [model]}


async def test_a_catalogue_without_models_is_an_empty_page() -> None:
    async with running(EmulatorState(catalogue=())) as emulator, connected(emulator.url) as client:
        response = await client.get("/ListAvailableModels?origin=CLI", headers=WITH_KEY)
    assert response.json() == {"models": []}


MANAGED: dict[str, tuple[str, dict[str, str], int]] = {
    "without an origin": ("", AS_USER, 400),
    "without a bearer": ("?origin=KIRO_CLI", {}, 401),
    "Identity Center without its profile": ("?origin=KIRO_CLI", AS_USER, 403),
    "with another's profile": (
        "?origin=KIRO_CLI",
        {**WITH_KEY, "x-amzn-kiro-profile-arn": BUILDER_ID_PROFILE_ARN},
        403,
    ),
    "key without a profile": ("?origin=KIRO_CLI", WITH_KEY, 200),
    "Identity Center": ("?origin=KIRO_CLI", {**AS_USER, **WITH_PROFILE}, 200),
}


@pytest.mark.parametrize("path", ["/ListAvailableModels", "/getUsageLimits", "/Get-Usage-Limits"])
@pytest.mark.parametrize(("query", "headers", "status"), MANAGED.values(), ids=MANAGED)
async def test_management_needs_an_origin_and_a_caller(
    path: str, query: str, headers: dict[str, str], status: int, emulator: RunningEmulator
) -> None:
    """Observed on the management host."""
    async with connected(emulator.url) as client:
        response = await client.get(path + query, headers=headers)
    assert response.status_code == status


async def test_usage_limits_contain_the_credits_and_their_reset() -> None:
    """The service's operation GetUsageLimits; days until reset are often 0, dates are floats."""
    state = EmulatorState(now=lambda: 1_000_000.5)
    async with running(state) as emulator, connected(emulator.url) as client:
        target = f"{SERVICE}.GetUsageLimits"
        response = await rpc(client, target, {"origin": "KIRO_CLI"}, WITH_KEY)
    limits = response.json()
    assert limits["nextDateReset"] == 1_000_000.5 + 864_000
    (breakdown,) = limits["usageBreakdownList"]
    assert (breakdown["currentUsageWithPrecision"], breakdown["usageLimit"]) == (12.5, 1000)


LISTS: dict[str, tuple[dict[str, str], int, str]] = {
    "Identity Center": (AS_USER, 200, "profiles"),
    "social": (bearer(EMULATOR_SOCIAL_ACCESS_TOKEN), 200, "profiles"),
    "key": (WITH_KEY, 403, "Unsupported token type"),
    "Builder ID": (
        bearer(EMULATOR_BUILDER_ID_ACCESS_TOKEN),
        403,
        "AWS Builder ID is not supported for this operation.",
    ),
    "nobody": ({}, 401, "bearer"),
}


@pytest.mark.parametrize(("headers", "status", "text"), LISTS.values(), ids=LISTS)
async def test_profiles_are_listed_for_identity_center_only(
    headers: dict[str, str], status: int, text: str, emulator: RunningEmulator
) -> None:
    """Observed for each kind of identity."""
    async with connected(emulator.url) as client:
        rest = await client.post("/List-Available-Profiles", json={}, headers=headers)
        other = await rpc(client, f"{SERVICE}.ListAvailableProfiles", {}, headers)
    assert rest.status_code == other.status_code == status
    assert text in rest.text
    if status == 200:
        listed = [profile["arn"] for profile in rest.json()["profiles"]]
        assert listed == ([EMULATOR_PROFILE_ARN] if headers is AS_USER else [])


async def test_several_profiles_are_listed_one_per_page() -> None:
    """The service's operation ListAvailableProfiles."""
    arns = ("arn:aws:codewhisperer:us-east-1:1:profile/A", "arn:aws:codewhisperer:eu:1:profile/B")
    state = EmulatorState(accounts=Accounts(profile_arns=arns))
    path = "/List-Available-Profiles"
    async with running(state) as emulator, connected(emulator.url) as client:
        first = (await client.post(path, json={}, headers=AS_USER)).json()
        body = {"nextToken": first["nextToken"]}
        second = (await client.post(path, json=body, headers=AS_USER)).json()
        bad = await client.post(path, json={"nextToken": "x"}, headers=AS_USER)
    assert [page["profiles"][0]["arn"] for page in (first, second)] == list(arns)
    assert "nextToken" not in second
    assert bad.status_code == 400


GETS: dict[str, tuple[dict[str, str], int]] = {
    "key": (WITH_KEY, 200),
    "social": (bearer(EMULATOR_SOCIAL_ACCESS_TOKEN), 200),
    "Builder ID": (bearer(EMULATOR_BUILDER_ID_ACCESS_TOKEN), 403),
    "nobody": ({}, 401),
}


@pytest.mark.parametrize(("headers", "status"), GETS.values(), ids=GETS)
async def test_an_api_key_gets_its_profile(
    headers: dict[str, str], status: int, emulator: RunningEmulator
) -> None:
    """Observed: GetProfile is the way for a key."""
    async with connected(emulator.url) as client:
        response = await rpc(client, f"{SERVICE}.GetProfile", {}, headers)
    assert response.status_code == status
    if status == 200:
        assert response.json()["profile"]["arn"] == EMULATOR_PROFILE_ARN


async def test_a_key_without_a_profile_gets_an_error_that_says_so() -> None:
    """Observed for standalone keys: clients leave the profile out."""
    state = EmulatorState(accounts=Accounts(profile_arns=()))
    async with running(state) as emulator, connected(emulator.url) as client:
        response = await rpc(client, f"{SERVICE}.GetProfile", {}, WITH_KEY)
    assert response.status_code == 403


async def test_any_operation_can_be_scripted(emulator: RunningEmulator) -> None:
    """A second page that fails, a sign-in service that is down."""
    emulator.state.enqueue((), (refusals.THROTTLED,), operation="ListAvailableModels")
    path = "/ListAvailableModels?origin=KIRO_CLI"
    async with connected(emulator.url) as client:
        statuses = [(await client.get(path, headers=WITH_KEY)).status_code for _ in range(3)]
    assert statuses == [200, 429, 200]


async def test_requests_are_recorded_as_they_came(emulator: RunningEmulator) -> None:
    """Tests look at what was sent."""
    async with connected(emulator.url) as client:
        answer = await client.post(
            f"{REST_PATH}?a=b",
            json=body_of(),
            headers={**AS_USER, "X-Amzn-Kiro-Agent-Mode": "vibe"},
        )
    (seen,) = emulator.state.requests_to("GenerateAssistantResponse")
    assert seen.body == body_of()
    assert (seen.method, seen.path, seen.query, seen.is_rpc) == (
        "POST",
        REST_PATH,
        {"a": "b"},
        False,
    )
    assert seen.headers["x-amzn-kiro-agent-mode"] == "vibe"
    assert "Bearer" not in repr(seen)
    assert answer.headers["x-amzn-requestid"] == "00000000-0000-4000-8000-000000000001"


async def test_a_large_body_is_served_but_not_recorded(emulator: RunningEmulator) -> None:
    """An emulator may run for days."""
    async with connected(emulator.url) as client:
        response = await ask(client, "x" * MAX_RECORDED_BODY_BYTES)
    assert response.status_code == 200
    assert emulator.state.requests[-1].body is None
    assert emulator.state.requests[-1].size_bytes > MAX_RECORDED_BODY_BYTES


def test_counts_of_prompts_are_bounded() -> None:
    """An emulator may run for days."""
    state = EmulatorState()

    def script_for(prompt: str) -> Script:
        call, _ = read_call(body_of(prompt))
        assert call
        return state.script_for(call)

    for number in range(MAX_REMEMBERED_PROMPTS + 1):
        script_for(f"Prompt {number}")
    assert script_for("/emulate throttle 1") == (
        refusals.THROTTLED.with_headers({"retry-after": "1"}),
    )


async def test_concurrent_answers_are_each_callers_own(emulator: RunningEmulator) -> None:
    """64 at once."""
    texts: dict[int, str] = {}

    async def one(client: httpx.AsyncClient, number: int) -> None:
        response = await ask(client, f"Prompt {number}")
        texts[number] = text_of(events_of(response.content))

    with anyio.fail_after(20):
        async with connected(emulator.url) as client, anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(one, client, number)
    assert all(text.endswith(f"You said: Prompt {number}") for number, text in texts.items())
    assert len(texts) == 64


async def test_stopping_does_not_wait_for_clients(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not for a stalled answer, which would last for ever, nor for idle connections."""
    state = EmulatorState()
    with anyio.fail_after(20):
        async with (
            connected("") as client,
            anyio.create_task_group() as tasks,
            running(state) as emulator,
        ):
            client.base_url = httpx.URL(emulator.url)
            await ask(client, "Hello")
            tasks.start_soon(_ask_in_vain, client)
            await state.until(lambda state: state.open_streams == 1)
    assert (state.open_streams, state.disconnects) == (0, 0)
    assert capfd.readouterr() == ("", "")


async def _ask_in_vain(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(client, "/emulate stall")


async def test_a_port_can_be_chosen_and_is_free_again_after() -> None:
    """The command takes a port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            async with running(port=port):
                pass
    for _ in range(2):
        async with running(port=port, host="localhost") as emulator:
            assert emulator.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])
async def test_only_loopback_is_served(host: str) -> None:
    """The emulator takes known keys, so it stays on this machine."""
    with pytest.raises(ValueError, match="loopback"):
        async with running(host=host):
            pass


async def test_the_app_is_usable_without_its_server() -> None:
    """It is an ASGI application like any other."""
    transport = httpx.ASGITransport(app=build_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        response = await client.get("/ListAvailableModels?origin=CLI", headers=WITH_KEY)
    assert response.status_code == 200
