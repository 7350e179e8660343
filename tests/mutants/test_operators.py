"""The mutants that `make mutants` makes: each operator changes what it says, and nothing else is touched."""

from pathlib import Path

import pytest

from mutants.operators import Mutant, Operator, mutants

ROOT = Path(__file__).parents[2]


def changes(body: str, operator: Operator) -> set[str]:
    """What an operator makes of the text that it changes in a function."""
    found = mutants("m.py", f"def f(a, b, c):\n    {body}\n".encode())
    return {mutant.became for mutant in found if mutant.operator is operator}


@pytest.mark.parametrize(
    ("body", "operator", "became"),
    [
        ("x = a < b", Operator.COMPARISON, {"(a <= b)"}),
        ("x = a is None", Operator.COMPARISON, {"(a is not None)"}),
        ("x = a and b and c", Operator.CONDITION, {"((b) and (c))", "((a) and (c))", "((a) and (b))"}),
        ("x = not a", Operator.CONDITION, {"(a)"}),
        ("if a:\n        b()", Operator.BRANCH, {"not (a)"}),
        ("x = b if a else c", Operator.BRANCH, {"(not (a))"}),
        ("if a == b:\n        c()", Operator.BRANCH, set()),
        ("x = a[1:]", Operator.CONSTANT, {"2"}),
        ("x = True", Operator.CONSTANT, {"False"}),
        ("x = 65536", Operator.CONSTANT, set()),
        ("x = a + b", Operator.ARITHMETIC, {"((a) - (b))"}),
        ("x = 'text' + b", Operator.ARITHMETIC, set()),
        ("return a", Operator.RETURN, {"None"}),
        ("a.b()", Operator.STATEMENT, {"pass"}),
        ("a.b = c", Operator.STATEMENT, {"pass"}),
        ("raise a", Operator.STATEMENT, {"pass"}),
        ("_log.warning(a)", Operator.STATEMENT, set()),
        ("'''What it does.'''", Operator.STATEMENT, set()),
        ("x = max(a, b)", Operator.CALL, {"min"}),
        (
            "try:\n        a()\n    except (KeyError, OSError):\n        b()",
            Operator.EXCEPTION,
            {"(OSError, )", "(KeyError, )"},
        ),
    ],
)
def test_operators(body: str, operator: Operator, became: set[str]) -> None:
    """A fault that is not made is one that no test has to notice: the score would say more than it knows."""
    assert changes(body, operator) == became


def test_what_stays() -> None:
    """Annotations, decorators and types hold no behaviour: their mutants would all survive."""
    source = (
        b"@cache(3)\ndef f(a: Literal[1]) -> Literal[2]: ...\ntype T = Literal[3]\nassert 4\nx: Final[Literal[5]]\n"
    )
    assert mutants("m.py", source) == []


def test_every_mutant_of_a_module() -> None:
    """Each differs from the module in one place, compiles, and is in a function that is named as people name it."""
    source = (ROOT / "addons/tokgate/policy/schedule.py").read_bytes()
    found = mutants("policy/schedule.py", source)
    assert len({mutant.applied(source) for mutant in found}) == len(found) > 50
    for mutant in found:
        assert source[mutant.start : mutant.end].decode() == mutant.was
        assert mutant.lines.start <= source[: mutant.start].count(b"\n") + 1 < mutant.lines.stop
        compile(mutant.applied(source), "m.py", "exec", dont_inherit=True)
    assert "Weekly.state_at" in {mutant.function for mutant in found}
    assert isinstance(found[0], Mutant)
