"""What anonymizing promises, for any text, document, time and number."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cariflex_backup.anonymize import documents, plan, traces
from cariflex_backup.anonymize.plan import Column, Relation
from cariflex_backup.anonymize.pseudonyms import (
    HIGHEST_FACTOR,
    LOWEST_FACTOR,
    NOISE,
    RING_WEEKS,
    Key,
    moved,
    ring_of,
)
from cariflex_backup.anonymize.rules import (
    RULES,
    UNIT,
    Blank,
    Digest,
    Document,
    Emptied,
    Keep,
    Rule,
    Table,
    Text,
    Texts,
)
from cariflex_backup.errors import BackupError
from cariflex_backup.settings import read

KEY = Key(b"k" * 32)
ANY = settings(max_examples=60, deadline=None)
KINDS = sorted(
    {
        rule.kind
        for tables in RULES.values()
        for table in tables.values()
        if not isinstance(table, Emptied)
        for rule in table.values()
        if isinstance(rule, Text)
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(sorted(documents.KEYS)), inner, max_size=4)
    ),
    max_leaves=20,
)


# --- pseudonyms ---


@ANY
@given(st.sampled_from(KINDS), st.text(), st.text())
def test_a_text_has_one_pseudonym_and_no_other_has_it(kind: str, one: str, other: str) -> None:
    drawn = KEY.pseudonym(kind, one)
    assert drawn == Key(b"k" * 32).pseudonym(kind, one)
    assert (drawn == KEY.pseudonym(kind, other)) == (one == other)
    assert drawn != Key(b"l" * 32).pseudonym(kind, one)
    assert len(drawn) <= 80  # as the narrowest column
    assert not traces.forms(drawn) or kind == "session"


def test_every_run_has_its_own_key_and_does_not_show_it() -> None:
    assert Key().secret != Key().secret
    assert len(Key().secret) == 32
    assert "secret" not in repr(KEY)


@ANY
@given(st.binary(max_size=200))
def test_bytes_become_others_as_long(data: bytes) -> None:
    assert len(KEY.digest(data)) == len(data)
    assert KEY.digest(data) == KEY.digest(data)
    assert len(data) < 8 or KEY.digest(data) != data


@ANY
@given(st.integers(0, 10**9))
def test_what_is_scaled_stays_within_the_limits_of_a_device(asset: int) -> None:
    assert LOWEST_FACTOR <= KEY.factor(asset) <= HIGHEST_FACTOR
    assert HIGHEST_FACTOR * (1 + NOISE) < 1


@ANY
@given(st.integers(0, 10**6), st.integers(-60, 500), st.integers(0, 300))
def test_weeks_move_in_a_ring(asset: int, newest: int, span: int) -> None:
    ring = ring_of(newest + span, newest)
    weeks = KEY.weeks(asset, ring)
    ages = range(newest, newest + span + 1)
    after = [moved(age, weeks, ring) for age in ages]
    assert 1 <= weeks < ring
    assert len(set(after)) == len(after)  # no two values meet
    assert all(0 <= age < ring for age in after)  # none is of the future
    assert ring == max(span + 1, RING_WEEKS)
    assert all(age != new for age, new in zip(ages, after, strict=True) if 0 <= age < ring)


# --- documents ---


@ANY
@given(JSON)
def test_of_a_document_nothing_is_left_that_could_name_somebody(document: Any) -> None:
    left = documents.cleaned(document)
    assert documents.cleaned(left) == left
    assert not traces.forms(json.dumps(left, ensure_ascii=False))
    for text in _texts(left):
        assert documents.is_harmless(text)


def _texts(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [*document, *(text for value in document.values() for text in _texts(value))]
    if isinstance(document, list):
        return [text for value in document for text in _texts(value)]
    return [document] if isinstance(document, str) else []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"consumption-price": {"sensor": 84}, "note": "of Zoé"}, {"consumption-price": {"sensor": 84}}),
        ({"soc-min": "13.4721 kWh", "soc-max": 14.603217}, {"soc-min": "13.5 kWh", "soc-max": 14.6}),
        ({"soc-min": "0.12 EUR/kWh", "soc-max": "call me"}, {"soc-min": "0.12 EUR/kWh"}),
        ([{"title": "Zoé", "plots": [{"sensors": [41, 42]}]}, 43], [{"plots": [{"sensors": [41, 42]}]}, 43]),
        ({"ex_post_horizon": "PT5M", "x": 596696123456}, {"ex_post_horizon": "PT5M", "x": 597000000000.0}),
        ({"x": 1, "y": 12, "z": "Europe/Paris"}, {"x": 1, "y": 12, "z": "America/Martinique"}),
        ("Zoé", {}),
        ([["Zoé"]], [[]]),
    ],
)
def test_documents_keep_their_meaning(before: Any, after: Any) -> None:
    assert documents.cleaned(before) == after


# --- rules and plan ---


def of(type_: str, **values: Any) -> Column:
    return Column("c", type_, **values)


@pytest.mark.parametrize("type_", ["text", "character varying(80)", "jsonb", "json", "bytea", "text[]", "inet", "xml"])
def test_nothing_that_can_hold_text_can_be_kept(type_: str) -> None:
    assert not plan.fits(Keep(), of(type_))
    assert not plan.holds_no_text(of(type_))


@pytest.mark.parametrize(
    "type_",
    [
        "integer",
        "bigint",
        "double precision",
        "numeric(10,2)",
        "boolean",
        "uuid",
        "timestamp with time zone",
        "interval",
    ],
)
def test_what_holds_no_text_can(type_: str) -> None:
    assert plan.fits(Keep(), of(type_))
    assert not plan.fits(Text("user"), of(type_))


def test_each_rule_is_for_its_types() -> None:
    assert plan.fits(Keep(), of("annotation_type", enumeration=True))
    assert plan.fits(Document(), of("json"))
    assert not plan.fits(Document(), of("text"))
    assert plan.fits(Digest(), of("bytea"))
    assert not plan.fits(Digest(), of("text"))
    assert plan.fits(Texts("ven"), of("text[]"))
    assert not plan.fits(Texts("ven"), of("text"))


RELATION = Relation("public.t", "r", (Column("id", "integer"), Column("name", "text")))
GOOD: dict[str, Rule] = {"id": Keep(), "name": Text("x")}


@pytest.mark.parametrize(
    ("relations", "rules", "message"),
    [
        ([RELATION], {"public.t": GOOD}, None),
        ([RELATION], {"public.t": Emptied("all of it")}, None),
        ([RELATION], {}, "the table public.t has no rule"),
        ([RELATION], {"public.t": {"id": Keep()}}, "the column public.t.name has no rule"),
        ([RELATION], {"public.t": GOOD | {"gone": Keep()}}, "the column public.t.gone has a rule and is not there"),
        ([RELATION], {"public.t": GOOD, "public.gone": GOOD}, "the table public.gone has a rule and is not there"),
        ([RELATION], {"public.t": {"id": Keep(), "name": Keep()}}, "the column public.t.name is of the type text"),
        ([Relation("public.t", "m", ())], {"public.t": GOOD}, "public.t is a materialized view"),
        (
            [Relation("public.t", "r", (Column("id", "integer", computed=True),))],
            {"public.t": {"id": Keep()}},
            "the column public.t.id is computed",
        ),
    ],
)
def test_what_has_no_rule_is_refused(relations: list[Relation], rules: dict[str, Table], message: str | None) -> None:
    told = plan.problems(relations, rules)
    assert not told if message is None else any(message in one for one in told)


@pytest.mark.parametrize("database", RULES)
def test_no_pattern_lets_a_person_through(database: str) -> None:
    people = (
        "Zoé Canari",
        "zoe@habitant.mq",
        "192.0.2.7",
        "3A:9F:11:C2:77:0B",
        "dupont",
        "Dupont",
        "zoe_canari",
        "x1y",
    )
    for name, table in RULES[database].items():
        rules = {} if isinstance(table, Emptied) else table
        for column, rule in rules.items():
            if isinstance(rule, Text) and rule.like:
                kept = [one for one in people if re.fullmatch(rule.like, one)]
                assert not kept, (name, column, kept)
            if isinstance(rule, Text) and rule.otherwise is not None:
                assert re.fullmatch(rule.like, rule.otherwise), (name, column)


@pytest.mark.parametrize(
    "unit", ["kW", "kWh", "EUR/MWh", "W/m²", "°C", "m/s", "%", "dimensionless", "EUR/kWh", "", "kW/h"]
)
def test_units_are_known(unit: str) -> None:
    assert re.fullmatch(UNIT, unit)


@pytest.mark.parametrize(("unit", "scaled"), [("kW", True), ("MWh", True), ("W", True), ("%", False), ("W/m²", False)])
def test_power_and_energy_are_scaled(unit: str, scaled: bool) -> None:
    assert plan.is_scaled(unit) is scaled


def test_names_in_statements_are_quoted() -> None:
    column = Column('a"b', "text")
    assert (
        plan.expression(Relation("public.x'y", "r", (column,)), column, Text("t"), "now").count("'public.x''y.a\"b'")
        == 1
    )
    assert plan.expression(RELATION, Column("n", "text"), Blank("it's"), "now").endswith("THEN 'it''s'::text END")


# --- traces ---


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("write to zoe.canari@habitant.mq now", "an e-mail address"),
        ("Jean Dupont", "a name"),
        ("seen by Éloïse Saint-Prix.", "a name"),
        ("DUPONT Jean", "a name"),
        ("{Jean-Paul Dupont}", "a name"),
        ("at 192.0.2.17", "an IP address"),
        ("2001:db8:0:1:2:3:4:5", "an IP address"),
        ("2001:db8::1", "an IP address"),
        ("3A:9F:11:C2:77:0B:D4:E8:5A:61", "a fingerprint"),
        ("$argon2id$v=19$m=65536$abc", "a token"),
        ("$2b$12$abcdefghijk", "a token"),
        ("eyJhbGciOiJIUzI1NiJ9.e30", "a token"),
        ("d41d8cd98f00b204e9800998ecf8427e", "a token"),
        ("-----BEGIN PRIVATE KEY-----", "a token"),
        ("JBSWY3DPEHPK3PXP", "a token"),
        ("key a8Kd93jfLs02kfJf93kd", "a token"),
        ("+596 696 12 34 56", "a telephone number"),
        ("0696 12 34 56", "a telephone number"),
        ("https://habitant.mq/zoe", "a web address"),
        ("14.603217, -61.067913", "a precise coordinate"),
        ("14°36'12\"N", "a precise coordinate"),
    ],
)
def test_people_are_recognized(text: str, form: str) -> None:
    assert form in traces.forms(text)


@pytest.mark.parametrize(
    "text",
    [
        *("battery_01_power_kw", "two-way_evse", "EUR/MWh", "America/Martinique", "StorageScheduler", "LOAD_CONTROL"),
        *(
            '{"soc-max": 14.6, "consumption-price": {"sensor": 84}}',
            "3bc1e29ca1f4",
            "0002",
            "1.0.1",
            "PT15M",
            "13.5 kWh",
        ),
        *(
            "user-abcdefghijkl@anonymous.invalid",
            "asset-abcdefghij23",
            "{ven-abcdefghij23,group}",
            "2026-01-02 03:04:05+00",
        ),
    ],
)
def test_what_is_ordinary_is_not_taken_for_a_person(text: str) -> None:
    assert traces.forms(text) == []


def test_what_was_there_before_is_found_wherever_it_stands() -> None:
    known = traces.sought({"zoe_canari", "abc", "12345", "Sensor", "  Maison Bleue "}, "sensor battery")
    assert known == {"zoe_canari", "maison bleue"}
    told = traces.found(["of ZOE_CANARI.", "x", "the maison bleue"], known)
    assert told == {"what was there before, or a canary": 2}


# --- settings ---


def test_settings_may_say_what_is_public(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    with pytest.raises(BackupError, match="cannot be read"):
        read(path)
    names = "environment project_version root database_container database_role database_password_file databases"
    names += " redis_container folders volumes containers recipients days weeks months"
    given: dict[str, Any] = dict.fromkeys(names.split(), "x") | {"folders": {}, "volumes": {}}
    path.write_text(json.dumps(given))
    assert read(path).anonymize is None
    path.write_text(json.dumps(given | {"anonymize": {"names": ["a"], "sensors": {"b": 1}, "canaries": []}}))
    allowed = read(path).anonymize
    assert allowed is not None
    assert (allowed.names, allowed.sensors, allowed.canaries) == (("a",), {"b": 1}, ())
