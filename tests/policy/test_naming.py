"""File names from templates: all of the published examples, and everything that can go wrong."""

from __future__ import annotations

import math
import os
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.policy.naming import (
    Group,
    NameStyle,
    check_inside,
    check_template,
    depth,
    file_name,
    name_pattern,
    parse_template,
    render,
)
from tests.support.properties import examples

STYLE = NameStyle()
EXAMPLES = [
    ("{epoch}", {"epoch": 0}, True, "epoch=0.ckpt"),
    ("{epoch:03d}", {"epoch": 5}, True, "epoch=005.ckpt"),
    ("{epoch}-{val_loss:.2f}", {"epoch": 2, "val_loss": 0.123456}, True, "epoch=2-val_loss=0.12.ckpt"),
    ("{epoch:d}", {"epoch": 2, "val_loss": 0.12}, True, "epoch=2.ckpt"),
    (
        "epoch={epoch}-validation_loss={val_loss:.2f}",
        {"epoch": 2, "val_loss": 0.123456},
        False,
        "epoch=2-validation_loss=0.12.ckpt",
    ),
    ("{missing:d}", {}, True, "missing=0.ckpt"),
    ("{step}", {"step": 0}, True, "step=0.ckpt"),
    (None, {"epoch": 0, "step": 10}, True, "epoch=0-step=10.ckpt"),
    (
        "{epoch}-{val_loss:.2f}-{other_metric:.2f}",
        {"epoch": 2, "val_loss": 0.02, "other_metric": 0.03},
        True,
        "epoch=2-val_loss=0.02-other_metric=0.03.ckpt",
    ),
    (
        "sample-mnist-{epoch:02d}-{val_loss:.2f}",
        {"epoch": 2, "val_loss": 0.32},
        True,
        "sample-mnist-epoch=02-val_loss=0.32.ckpt",
    ),
    (
        "sample-mnist-epoch{epoch:02d}-val_loss{val/loss:.2f}",
        {"epoch": 2, "val/loss": 0.32},
        False,
        "sample-mnist-epoch02-val_loss0.32.ckpt",
    ),
    ("checkpoint_{epoch:02d}-{acc:02d}", {"epoch": 1, "acc": 80.0}, True, "checkpoint_epoch=01-acc=80.ckpt"),
    ("{a.b[0]/c}", {"a.b[0]/c": 1.5}, True, "a.b[0]/c=1.5.ckpt"),
    ("{epoch}-{epoch:03d}", {"epoch": 7}, True, "epoch=7-epoch=007.ckpt"),
    (
        "{loss}-{val_loss}-{loss2}",
        {"loss": 1.0, "val_loss": 2.0, "loss2": 3.0},
        True,
        "loss=1.0-val_loss=2.0-loss2=3.0.ckpt",
    ),
    ("{{{epoch}}}", {"epoch": 1}, True, "{epoch=1}.ckpt"),
    ("best", {"epoch": 1}, True, "best.ckpt"),
    ("{loss:.3}", {"loss": 0.12345}, True, "loss=0.123.ckpt"),
    ("{loss:.3}", {}, True, "loss=0.0.ckpt"),
    ("{loss:d}", {"loss": 0.5}, True, "loss=0.5.ckpt"),
    ("{loss:.1%}", {"loss": 0.5}, False, "50.0%.ckpt"),
    ("{loss:.2f}", {"loss": math.nan}, True, "loss=nan.ckpt"),
    ("{loss:d}", {"loss": -math.inf}, True, "loss=-inf.ckpt"),
    ("{loss:f}", {"loss": 1e300}, True, "loss=1e+300.ckpt"),
    ("{損失:.1f}", {"損失": 0.25}, True, "損失=0.2.ckpt"),
]

KEYS = st.text(st.characters(exclude_characters="{}:", exclude_categories=("Cs",)), min_size=1, max_size=8)
SPECS = st.sampled_from(
    (
        "",
        "d",
        "f",
        "e",
        "g",
        "%",
        "x",
        "b",
        "o",
        "n",
        "X",
        ",",
        "_",
        "03d",
        "+.3f",
        "#x",
        ">8",
        "*^9d",
        "_b",
        ",d",
        "010",
        ".3",
        " d",
        "=+9.1f",
        "E",
        "G",
        "#o",
    )
)
LITERALS = st.text(string.ascii_letters + "-_=. ", max_size=5)


@pytest.mark.parametrize(("template", "metrics", "auto_insert", "expected"), EXAMPLES, ids=str)
def test_the_published_examples(template, metrics, auto_insert, expected):
    """Each example of the class users know, and of the contract, gives exactly its name."""
    assert file_name(template, metrics, STYLE, auto_insert=auto_insert) == expected
    check_template(template, STYLE, auto_insert=auto_insert, argument="filename")


@examples(200)
@given(st.lists(LITERALS | st.tuples(KEYS, SPECS), max_size=5))
def test_parsing_finds_what_was_put_together(parts):
    """A template put together of literals and groups is taken apart into the same, doubled braces included."""
    assume(all(isinstance(part, str) or not re.search(r"![rsa]$", part[0]) for part in parts))
    text = "".join(
        part if isinstance(part, str) else f"{{{part[0]}{':' if part[1] else ''}{part[1]}}}" for part in parts
    )
    merged = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part if isinstance(part, str) else Group(*part))
    assert parse_template(text) == tuple(merged)


@examples(200)
@given(st.text("{}ab:!r", max_size=12))
def test_any_template_is_parsed_or_refused(template):
    """Whatever braces a template has, it is taken apart or refused in our words, and its literals are its own."""
    try:
        parts = parse_template(template)
    except ConfigurationError:
        return
    rebuilt = "".join(
        part.replace("{", "{{").replace("}", "}}")
        if isinstance(part, str)
        else "{" + part.key + (":" if part.spec else "") + part.spec + "}"
        for part in parts
    )
    assert parse_template(rebuilt) == parts


@examples(400)
@given(SPECS, st.floats() | st.integers(-(2**60), 2**60))
def test_no_number_stops_the_training(spec, value):
    """Whatever a metric's value is, a template that was accepted gives a name, and one that a file can have."""
    template = f"{{x:{spec}}}"
    check_template(template, STYLE, auto_insert=True, argument="filename")
    name = file_name(template, {"x": value}, STYLE, auto_insert=True)
    assert check_inside(name, "test") == name


@examples(200)
@given(st.text(max_size=6))
def test_a_format_is_refused_early_or_never(spec):
    """Any format whatever is refused when the template is checked, or it works for every number."""
    assume("{" not in spec and "}" not in spec)
    template = "{x:" + spec + "}"
    try:
        check_template(template, STYLE, auto_insert=True, argument="filename")
    except ConfigurationError:
        return
    for value in (0, 0.0, 1.5, -2.0, 10**9, 1e300, 5e-324, math.nan, math.inf, -math.inf):
        render(template, {"x": value}, auto_insert=True, equals="=")


@examples(100)
@given(st.integers(-(10**6), 10**6), st.sampled_from(("d", "03d", "+d", "x", ",d")))
def test_integral_floats_are_shown_as_integers(number, spec):
    """A float that is an integer meets an integer's format as the integer does."""
    for auto_insert in (True, False):
        shown = [
            render(f"{{x:{spec}}}", {"x": kind(number)}, auto_insert=auto_insert, equals="=") for kind in (int, float)
        ]
        assert shown[0] == shown[1]


@examples(100)
@given(st.lists(KEYS, min_size=1, max_size=4, unique=True), st.booleans())
def test_keys_do_not_get_in_each_others_way(keys, auto_insert):
    """Keys that contain one another, or the value of one another, are each replaced once and by their own value."""
    assume(not any(re.search(r"![rsa]$", key) for key in keys))
    metrics = {key: 1000 + place for place, key in enumerate(keys)}
    template = "|".join(f"{{{key}}}" for key in keys)
    expected = "|".join((f"{key}=" if auto_insert else "") + str(value) for key, value in metrics.items())
    assert render(template, metrics, auto_insert=auto_insert, equals="=") == expected


HOSTILE = [
    "..",
    "../x",
    "/etc/x",
    "a/../../x",
    "a/..",
    "./x",
    "a//b",
    "a/",
    "\0",
    "a\nb",
    "a\\..\\b",
    "\x7f/..",
    "..\0",
    "~/../x",
    "x/../y",
    "\ud800",
    "con\r",
    "./",
    "/",
    "//",
    "x" * 300,
]


@pytest.mark.parametrize("auto_insert", [True, False])
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_hostile_templates_and_keys(hostile, auto_insert):
    """As a template, as a literal beside a group or as a metric's key: refused, or the name stays inside."""
    for template in (
        hostile,
        hostile + "{epoch}",
        "{epoch}" + hostile,
        "{" + hostile + "}",
        "{epoch}/{" + hostile + ":.2f}",
    ):
        try:
            check_template(template, STYLE, auto_insert=auto_insert, argument="filename")
            name = check_inside(file_name(template, {hostile: 1.0}, STYLE, auto_insert=auto_insert), "test")
        except ConfigurationError:
            continue
        assert os.path.normpath(os.path.join("/run", name)).startswith("/run/")


@examples(500)
@given(
    st.lists(
        st.sampled_from(
            (
                ".",
                "..",
                "/",
                "\\",
                "\0",
                "~",
                "a",
                "-",
                "{x}",
                "{../y}",
                "{x:/>3}",
                "{x:.<2}",
                "{x:.>3d}",
                "{..}",
                "{x:.^5}",
            )
        ),
        max_size=7,
    ).map("".join),
    st.floats() | st.integers(-99, 99),
    st.booleans(),
)
def test_no_name_leads_outside_the_directory(template, value, auto_insert):
    """Templates of dots, slashes and formats that fill with them give a name inside the directory or an error."""
    try:
        check_template(template, STYLE, auto_insert=auto_insert, argument="filename")
        name = file_name(template, {"x": value, "../y": value, "..": value}, STYLE, auto_insert=auto_insert)
        check_inside(name, "test")
    except ConfigurationError:
        return
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert os.path.normpath(os.path.join("/run", name)) == f"/run/{name}"


@examples(300)
@given(st.text(st.characters(codec=None), max_size=12))
def test_any_text_as_a_name_is_judged(text):
    """Any text is accepted as a file's name or refused in our words; what is accepted can be a file's name."""
    try:
        check_inside(text, "test")
    except ConfigurationError:
        return
    assert os.fsencode(text)
    assert not os.path.isabs(text)
    assert ".." not in text.split("/")


@examples(200)
@given(
    st.lists(LITERALS | st.tuples(KEYS, st.sampled_from(("", "d", ".2f"))), min_size=1, max_size=4),
    st.floats(),
    st.none() | st.integers(1, 99),
    st.booleans(),
)
def test_the_pattern_of_a_template_fits_all_of_its_names(parts, value, version, auto_insert):
    """Every name that a template gives, with or without a version, fits the pattern made of the template."""
    assume(all(isinstance(part, str) or not re.search(r"![rsa]$", part[0]) for part in parts))
    template = "".join(part if isinstance(part, str) else f"{{{part[0]}:{part[1]}}}" for part in parts)
    assume(template)
    metrics = {part[0]: value for part in parts if not isinstance(part, str)}
    name = file_name(template, metrics, STYLE, auto_insert=auto_insert, version=version)
    assert name_pattern(template, STYLE, auto_insert=auto_insert).fullmatch(name)


def test_versions_prefixes_and_joints():
    """The version counter, the prefix of an exception's file and the joints of a style stand where they belong."""
    style = NameStyle(join="_", equals=":", last="end", extension=".pt", starting_version=3)
    assert file_name(None, {"epoch": 1, "step": 2}, style, auto_insert=True) == "epoch:1_step:2.pt"
    assert file_name("{epoch}", {"epoch": 1}, style, auto_insert=True, version=3) == "epoch:1_v3.pt"
    assert (
        file_name("{epoch}", {"epoch": 1}, STYLE, auto_insert=True, version=1, prefix="exception")
        == "exception-epoch=1-v1.ckpt"
    )


@pytest.mark.parametrize(
    ("template", "folders"), [(None, 0), ("a", 0), ("{epoch}/{step}", 1), ("a/b/{c}", 2), ("{val/loss}", 1)]
)
def test_depth_is_how_deep_the_names_lie(template, folders):
    """The depth of a template is at least the number of folders in its names."""
    assert depth(template) == folders
    assert file_name(template, {}, STYLE, auto_insert=True).count("/") <= folders
