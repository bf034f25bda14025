"""Rules as text."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast.errors import ConfigurationError
from holdfast.policy.budget import Within, parse_bytes
from holdfast.policy.notation import parse_rules, show_rules
from holdfast.policy.rules import Best, EverySteps, Latest, Newer
from holdfast.policy.thinning import Thin


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("Latest(3)", (Latest(3),)),
        (" Latest( n = 3 )|EverySteps(10_000)", (Latest(3), EverySteps(10000))),
        ("[Latest(3), Best(2, 'val/loss')]", (Latest(3), Best(2, "val/loss"))),
        ("Best(k=1, metric='acc', mode='max')", (Best(1, "acc", mode="max"),)),
        ("Within('1.5 TB')", (Within(1_500_000_000_000),)),
        ("Newer('36h') | Newer(timedelta(hours=36))", (Newer(timedelta(hours=36)),)),
        ("Thin(hourly=24, steps={1000: 10, 10_000: -1})", (Thin(hourly=24, steps={10000: -1, 1000: 10}),)),
        ("[]", ()),
    ],
)
def test_texts_and_their_rules(text, rules):
    """Each text is read as these rules, and what they print is read as the same again."""
    assert parse_rules(text) == rules
    assert parse_rules(show_rules(rules)) == rules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("Latest(3) |", "invalid syntax"),
        ("Latst(3)", r"Latst\(3\)' means nothing here"),
        ("Latest(3, 4)", "positional arguments"),
        ("Latest(m=3)", "'m'"),
        ("Latest(*[3])", "means nothing here"),
        ("Latest(**{})", "means nothing here"),
        ("Latest(True)", "must be an integer"),
        ("Best(2, val_loss)", "stand in quotes"),
        ("Latest(1 + 2)", r"1 \+ 2"),
        ("Latest(3) & Latest(4)", "&"),
        ("Latest(3) | open('x', 'w')", "open"),
        ("().__class__", "__class__"),
        ("Newer(timedelta(days=1e30))", "timedelta"),
        ("Latest(" + "-" * 9000 + "1)", "nested|recursion|memory"),
        ("Latest(1) | " * 9000, "at most 10000 characters"),
    ],
)
def test_what_is_no_notation_is_refused(text, says):
    """What is not understood is refused without being run, and the error shows the part."""
    with pytest.raises(ConfigurationError, match=says):
        parse_rules(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("7B", 7),
        ("200GB", 200 * 10**9),
        ("1.5 kb", 1500),
        ("0.1MiB", 104857),
        ("64 GiB", 64 * 2**30),
        (12, 12),
    ],
)
def test_bytes_for_people(text, amount):
    """Amounts of bytes are read in decimal and binary units, whatever their case."""
    assert parse_bytes("Within", text) == amount
