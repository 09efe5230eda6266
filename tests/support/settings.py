"""What each setting means, as its docstring in `kiro_mcp.settings` says."""

import ast
import inspect
from itertools import pairwise

from kiro_mcp.settings import Settings


def meanings() -> dict[str, str]:
    """The meanings of all settings by field, each on one line."""
    [declared] = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(declared, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in pairwise(declared.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    assert found.keys() == Settings.model_fields.keys()
    return found
