"""Rules as text, and back: for the command line and for the manifest.

The notation is the Python that makes the values, ``Latest(3) | Best(2, 'val_loss')``. It is read as a tree of syntax
and never run: only the names of terms, numbers, texts, ``{...}`` and ``timedelta(...)`` mean something in it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from holdfast.errors import ConfigurationError, printable
from holdfast.policy.budget import Within
from holdfast.policy.keeping import rules_of
from holdfast.policy.rules import All, Best, EveryEpochs, EverySteps, Latest, Newer, Pinned
from holdfast.policy.seconds import EverySeconds
from holdfast.policy.terms import Term
from holdfast.policy.thinning import Thin
from holdfast.policy.when import At, OnImprovement, OnSignal, triggers_of

Words = Mapping[str, Callable[..., Term]]

RULES: Final[Words] = {
    "All": All,
    "Best": Best,
    "EveryEpochs": EveryEpochs,
    "EverySteps": EverySteps,
    "Latest": Latest,
    "Newer": Newer,
    "Pinned": Pinned,
    "Thin": Thin,
    "Within": Within,
}
TRIGGERS: Final[Words] = {
    "At": At,
    "EveryEpochs": EveryEpochs,
    "EverySeconds": EverySeconds,
    "EverySteps": EverySteps,
    "OnImprovement": OnImprovement,
    "OnSignal": OnSignal,
}
_SHOWN = 200  # characters of a text that is shown in an error
_LONGEST = 10_000  # characters: no policy that a person writes has more, and the parser recurses


def parse_rules(text: str) -> tuple[Term, ...]:
    """Return the rules that a text says: ``"Latest(3) | EverySteps(1000)"``; a list in brackets, ``"[]"`` too.

    Raises:
        ConfigurationError: for what is not the notation of rules; the message shows the part that is not understood.

    """
    return rules_of(parse_terms(text, RULES))


def parse_triggers(text: str) -> tuple[Term, ...]:
    """Return the triggers that a text says: ``"EverySteps(1000) | EverySeconds('auto')"``.

    Raises:
        ConfigurationError: for what is not the notation of triggers; the message shows the part that is not understood.

    """
    return triggers_of(parse_terms(text, TRIGGERS))


def show_rules(rules: tuple[Term, ...]) -> str:
    """Return the notation of rules, which ``parse_rules`` reads back."""
    return " | ".join(map(str, rules)) if rules else "[]"


def parse_terms(text: str, words: Words) -> tuple[Term, ...]:
    """Return the single terms that a text says, with these words for terms.

    Raises:
        ConfigurationError: for what is not the notation of such terms.

    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        msg = f"the notation is a text of at most {_LONGEST} characters, but got {printable(repr(text)[:80])}"
        raise ConfigurationError(msg)
    if not text.strip():
        raise _not_understood(text, "it is empty (no terms at all are written [])", words)
    try:
        return _Reader(text, words).terms(ast.parse(text.strip(), mode="eval").body)
    except ConfigurationError:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _not_understood(text, what or "it is nested too deeply", words) from error


def _not_understood(text: str, what: str, words: Words) -> ConfigurationError:
    shown = printable(text) if len(text) <= _SHOWN else f"{printable(text[:_SHOWN])}..."
    example = "Latest(3) | Best(2, 'val_loss', mode='min')" if "Latest" in words else "EverySteps(1000) | At([1])"
    return ConfigurationError(
        f"{shown!r} is not understood: {printable(what)}. Write terms joined by `|`, such as "
        f'"{example}"; the terms here are {", ".join(words)}'
    )


class _Reader:
    """Reads one text. Each method takes a node of its tree."""

    def __init__(self, text: str, words: Words) -> None:
        self.text = text
        self.words = words

    def terms(self, tree: ast.expr) -> tuple[Term, ...]:
        """Read terms joined by ``|``, or a list of such."""
        if isinstance(tree, (ast.List, ast.Tuple)):
            return tuple(part for element in tree.elts for part in self.terms(element))
        parts: list[Term] = []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
            parts[:0] = self.terms(tree.right)
            tree = tree.left
        if isinstance(tree, (ast.List, ast.Tuple)):
            raise self._refuse(tree)
        return (*self._term(tree).parts, *parts)

    def _term(self, tree: ast.expr) -> Term:
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.func.id not in self.words:
            raise self._refuse(tree)
        made: Term = self._call(tree, self.words[tree.func.id])
        return made

    def _call(self, tree: ast.Call, make: Callable[..., Any]) -> Any:
        arguments = [self._value(argument) for argument in tree.args]
        keywords = {}
        for keyword in tree.keywords:
            if keyword.arg is None:
                raise self._refuse(tree)
            keywords[keyword.arg] = self._value(keyword.value)
        try:
            return make(*arguments, **keywords)
        except ConfigurationError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise _not_understood(self.text, f"{ast.unparse(tree)}: {error}", self.words) from error

    def _value(self, tree: ast.expr) -> Any:
        if isinstance(tree, ast.Constant) and (tree.value is None or isinstance(tree.value, (int, float, str))):
            return tree.value
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            value = self._value(tree.operand)
            if isinstance(value, (int, float)):
                return -value
        if isinstance(tree, ast.Dict):
            keys = [self._value(key) if key is not None else None for key in tree.keys]
            if all(isinstance(key, (int, float, str)) for key in keys):
                return dict(zip(keys, map(self._value, tree.values), strict=True))
        if isinstance(tree, (ast.List, ast.Tuple)):
            return tuple(map(self._value, tree.elts))
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "timedelta":
            return self._call(tree, timedelta)
        raise self._refuse(tree)

    def _refuse(self, tree: ast.expr) -> ConfigurationError:
        hint = " (names of metrics stand in quotes)" if isinstance(tree, ast.Name) else ""
        return _not_understood(self.text, f"{ast.unparse(tree)!r} means nothing here{hint}", self.words)
