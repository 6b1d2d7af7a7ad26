"""Every fault says what to do about it."""

import ast
from pathlib import Path

from secretweave import errors

ROOT = Path(errors.__file__).parent
FAULTS = {
    name
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, errors.SecretweaveError) and each is not errors.Faults
}


def test_no_fault_is_without_a_fix() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in FAULTS
        and "fix" not in {keyword.arg for keyword in node.keywords}
    ]
    assert without == []
