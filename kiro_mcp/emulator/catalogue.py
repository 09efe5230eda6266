"""The models that the emulator lists, each as a JSON object of the service's catalogue.

Source of truth: a snapshot of the service's published model list (2026). The shape is the one in
`tests/vectors/list-available-models.json`.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Model: TypeAlias = Mapping[str, Any]

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_WITHOUT_XHIGH: Final = ("low", "medium", "high", "max")
_MAY_NOT_THINK: Final = ("adaptive", "disabled")

MIN_OUTPUT_TOKENS: Final = 1_024
"""The minimum of `max_tokens`, for models that accept it."""


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _choice(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _model(
    model_id: str,
    name: str,
    rate: float,
    *,
    window: int = 1_000_000,
    output: int = 64_000,
    images: bool = True,
    fields: dict[str, Any] | None = None,
    fallback: str = "",
) -> Model:
    return {
        "modelId": model_id,
        "modelName": name,
        "description": f"{name}, as the emulator lists it.",
        "promptCaching": {"supportsPromptCaching": True},
        "rateMultiplier": rate,
        "rateUnit": "Credit",
        "supportedInputTypes": ["TEXT", "IMAGE"] if images else ["TEXT"],
        "tokenLimits": {"maxInputTokens": window, "maxOutputTokens": output},
        **({"additionalModelRequestFieldsSchema": fields} if fields else {}),
        **({"refusalFallbackModels": [{"modelId": fallback}]} if fallback else {}),
    }


def _claude(
    model_id: str,
    name: str,
    rate: float,
    *,
    output: int = 128_000,
    thinking: tuple[str, ...] = _MAY_NOT_THINK,
    efforts: tuple[str, ...] = EFFORTS,
    default: str = "high",
    fallback: str = "",
) -> Model:
    members = {"type": _choice(*thinking), "display": _choice("summarized", "omitted")}
    effort = {**_choice(*efforts), "default": default}
    lengths = {"type": "integer", "minimum": MIN_OUTPUT_TOKENS, "maximum": output}
    fields = _object(
        {
            "thinking": _object(members, "type"),
            "output_config": _object({"effort": effort}),
            "max_tokens": lengths,
        }
    )
    return _model(model_id, name, rate, output=output, fields=fields, fallback=fallback)


def _gpt(model_id: str, name: str, rate: float) -> Model:
    effort = {**_choice("none", *EFFORTS), "default": "medium"}
    fields = _object({"reasoning": _object({"effort": effort})})
    return _model(model_id, name, rate, output=128_000, fields=fields)


DEFAULT_MODEL_ID: Final = "auto"

CATALOGUE: Final[tuple[Model, ...]] = (
    _model(DEFAULT_MODEL_ID, "Auto", 1.0),
    _claude("claude-opus-5.5", "Claude Opus 5.5", 2.0, thinking=("adaptive",), default="medium"),
    _claude("claude-opus-5", "Claude Opus 5", 2.2, fallback="claude-opus-4.8"),
    _claude("claude-opus-4.8", "Claude Opus 4.8", 2.2),
    _claude("claude-opus-4.7", "Claude Opus 4.7", 2.2, default="xhigh"),
    _claude("claude-opus-4.6", "Claude Opus 4.6", 2.2, output=64_000, efforts=_WITHOUT_XHIGH),
    _model("claude-opus-4.5", "Claude Opus 4.5", 2.2, window=200_000),
    _claude(
        "claude-sonnet-5.5",
        "Claude Sonnet 5.5",
        1.3,
        thinking=("adaptive", "between_tools"),
        fallback="claude-sonnet-5",
    ),
    _claude("claude-sonnet-5", "Claude Sonnet 5", 1.3),
    _claude("claude-sonnet-4.6", "Claude Sonnet 4.6", 1.3, output=64_000, efforts=_WITHOUT_XHIGH),
    _model("claude-sonnet-4.5", "Claude Sonnet 4.5", 1.3, window=200_000),
    _model("claude-sonnet-4", "Claude Sonnet 4", 1.3, window=200_000),
    _model("claude-haiku-5.5", "Claude Haiku 5.5", 0.06),
    _model("claude-haiku-4.5", "Claude Haiku 4.5", 0.4, window=200_000),
    # The figures of these two are not published; the emulator's are invented.
    _model("claude-fable-5.1", "Claude Fable 5.1", 4.0),
    _model("kimi-k3", "Kimi K3", 0.5, window=256_000),
    _gpt("gpt-5.6-sol", "GPT-5.6 Sol", 4.4),
    _gpt("gpt-5.6-terra", "GPT-5.6 Terra", 2.2),
    _gpt("gpt-5.6-luna", "GPT-5.6 Luna", 1.1),
    _model("deepseek-3.2", "DeepSeek 3.2", 0.25, window=164_000, images=False),
    _model("qwen3-coder-next", "Qwen3 Coder Next", 0.05, window=256_000, images=False),
)
