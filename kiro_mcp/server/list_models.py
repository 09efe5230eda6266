"""The tool `list_models`."""

from typing import Any

from kiro_mcp.chat import ModelInfo
from kiro_mcp.server.arguments import ListModelsArguments, read_arguments
from kiro_mcp.server.call import Call, Result
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import filled, success


async def list_models(engine: Engine, arguments: dict[str, Any], _call: Call) -> Result:
    """Return the service's list of models if signed in, else the built-in list."""
    given = read_arguments(ListModelsArguments, "list_models", arguments)
    catalogue = await engine.catalogue(refresh=given.refresh)
    default = engine.choose_model("")
    setting = "KIRO_MCP_MODEL: " if engine.settings.model else ""
    warnings = [
        *given.warnings,
        *([str(catalogue.fault)] if catalogue.fault else []),
        *(f"{setting}{warning}" for warning in default.warnings),
    ]
    structured: dict[str, Any] = {
        "models": [_listed(model) for model in catalogue.models],
        "default_model": default.model.id,
        "source": catalogue.source,
    }
    if catalogue.fetched_at:
        structured["fetched_at"] = catalogue.fetched_at.isoformat()
    if warnings:
        structured["warnings"] = warnings
    text = f"{len(catalogue.models)} models, {catalogue.source} list."
    return success(text, structured, extras=structured)


def _listed(model: ModelInfo) -> dict[str, Any]:
    price, higher = model.list_price, model.higher_rate
    return filled(
        {
            "id": model.id,
            "name": model.name,
            "aliases": list(model.aliases),
            "context_window": model.context_window,
            "max_output_tokens": model.max_output_tokens,
            "rate_multiplier": model.rate_multiplier,
            "higher_rate": higher
            and {
                "above_tokens": higher.above_tokens,
                "rate_multiplier": higher.rate_multiplier,
            },
            "list_price": price
            and {
                "input_per_million": price.input_per_million,
                "output_per_million": price.output_per_million,
            },
            "input_types": list(model.input_types),
            "thinking": model.thinking,
            "effort_levels": list(model.effort_levels),
            "default_effort": model.fields and model.fields.default_effort,
            "refusal_fallbacks": list(model.refusal_fallbacks),
        }
    )
