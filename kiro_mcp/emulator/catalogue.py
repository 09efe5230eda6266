"""The models that the emulator lists, each as one JSON object of the service's catalogue.

Source of truth: the service's published model list (2026); numbers and ids are a snapshot of it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Model: TypeAlias = Mapping[str, Any]

_ALL_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_WITHOUT_XHIGH: Final = ("low", "medium", "high", "max")

MIN_OUTPUT_TOKENS: Final = 1_024
"""The least that `max_tokens` may ask for, where a model takes it."""


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _claude_fields(efforts: tuple[str, ...], max_output_tokens: int) -> dict[str, Any]:
    thinking = {
        "type": {"type": "string", "enum": ["adaptive", "disabled"]},
        "display": {"type": "string", "enum": ["summarized", "omitted"]},
    }
    return _object(
        {
            "thinking": _object(thinking),
            "output_config": _object({"effort": {"type": "string", "enum": list(efforts)}}),
            "max_tokens": {
                "type": "integer",
                "minimum": MIN_OUTPUT_TOKENS,
                "maximum": max_output_tokens,
            },
        }
    )


def _gpt_fields() -> dict[str, Any]:
    return _object(
        {"reasoning": _object({"effort": {"type": "string", "enum": list(_ALL_EFFORTS)}})}
    )


def _model(
    model_id: str,
    name: str,
    *,
    window: int,
    output: int,
    rate: float,
    images: bool = True,
    fields: dict[str, Any] | None = None,
    on_refusal: str = "",
) -> Model:
    model: dict[str, Any] = {
        "modelId": model_id,
        "modelName": name,
        "description": f"{name}, as the emulator lists it.",
        "rateMultiplier": rate,
        "rateUnit": "Credit",
        "supportedInputTypes": ["TEXT", "IMAGE"] if images else ["TEXT"],
        "tokenLimits": {"maxInputTokens": window, "maxOutputTokens": output},
    }
    if fields is not None:
        model["additionalModelRequestFieldsSchema"] = fields
    if on_refusal:
        model["refusalFallbackModels"] = [{"modelId": on_refusal}]
    return model


def _claude(
    model_id: str,
    name: str,
    output: int,
    rate: float,
    efforts: tuple[str, ...],
    *,
    on_refusal: str = "",
) -> Model:
    return _model(
        model_id,
        name,
        window=1_000_000,
        output=output,
        rate=rate,
        fields=_claude_fields(efforts, output),
        on_refusal=on_refusal,
    )


DEFAULT_MODEL_ID: Final = "auto"

CATALOGUE: Final[tuple[Model, ...]] = (
    _model(DEFAULT_MODEL_ID, "Auto", window=1_000_000, output=64_000, rate=1.0),
    _claude(
        "claude-opus-5",
        "Claude Opus 5",
        128_000,
        2.2,
        _ALL_EFFORTS,
        on_refusal="claude-opus-4.8",
    ),
    _claude("claude-opus-4.8", "Claude Opus 4.8", 128_000, 2.2, _ALL_EFFORTS),
    _claude("claude-opus-4.7", "Claude Opus 4.7", 128_000, 2.2, _ALL_EFFORTS),
    _claude("claude-opus-4.6", "Claude Opus 4.6", 64_000, 2.2, _WITHOUT_XHIGH),
    _model("claude-opus-4.5", "Claude Opus 4.5", window=200_000, output=64_000, rate=2.2),
    _claude("claude-sonnet-5", "Claude Sonnet 5", 64_000, 1.3, _ALL_EFFORTS),
    _claude("claude-sonnet-4.6", "Claude Sonnet 4.6", 64_000, 1.3, _WITHOUT_XHIGH),
    _model("claude-sonnet-4.5", "Claude Sonnet 4.5", window=200_000, output=64_000, rate=1.3),
    _model("claude-sonnet-4", "Claude Sonnet 4", window=200_000, output=64_000, rate=1.3),
    _model("claude-haiku-4.5", "Claude Haiku 4.5", window=200_000, output=64_000, rate=0.4),
    _model(
        "gpt-5.6-sol", "GPT-5.6 Sol", window=272_000, output=128_000, rate=2.4, fields=_gpt_fields()
    ),
    _model("deepseek-3.2", "DeepSeek 3.2", window=164_000, output=64_000, rate=0.25, images=False),
    _model(
        "qwen3-coder-next",
        "Qwen3 Coder Next",
        window=256_000,
        output=64_000,
        rate=0.05,
        images=False,
    ),
)
