"""The rules against a database: what they do not cover is refused, and for the rest the statements are written.

Statements read what was drawn from the key from tables in the schema `anonymize`, which is dropped in the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cariflex_backup.anonymize.pseudonyms import NOISE, WEEK_SECONDS
from cariflex_backup.anonymize.rules import (
    Blank,
    Digest,
    Document,
    Emptied,
    Keep,
    Measured,
    Moved,
    Rounded,
    Rule,
    Table,
    Text,
    Texts,
)

SCHEMA = "anonymize"
_NUMBERS = r"smallint|integer|bigint|real|double precision|numeric(\(.*\))?"
_CLOSED = re.compile(rf"{_NUMBERS}|boolean|uuid|date|interval|time(stamp)?(\(\d\))? with(out)? time zone")
_FLOAT = re.compile(r"real|double precision|numeric(\(.*\))?")
_TEXT = re.compile(r"text|character varying(\(\d+\))?")
_ARRAY = re.compile(r"(text|character varying(\(\d+\))?)\[\]")
_TIME = re.compile(r"timestamp with time zone")
_POWER_OR_ENERGY = re.compile(r"[kMGm]?(Wh|W|VAh|VA|varh|var|A)")
# what a table of the catalog is called where it holds rows
_KINDS = {"r": "table", "p": "partitioned table", "m": "materialized view", "v": "view", "f": "foreign table"}

CATALOG = f"""
SELECT coalesce(json_agg(json_build_object(
  'name', n.nspname || '.' || c.relname, 'kind', c.relkind,
  'referenced', EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.confrelid = c.oid),
  'columns', (SELECT coalesce(json_agg(json_build_array(
      a.attname, format_type(a.atttypid, a.atttypmod), t.typtype = 'e', a.attgenerated <> '') ORDER BY a.attnum), '[]')
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) ORDER BY n.nspname, c.relname), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', '{SCHEMA}')
  AND n.nspname NOT LIKE 'pg\\_%';
"""  # noqa: S608 - constants
# what may hold data beside tables
ELSEWHERE = """
SELECT concat_ws(', ', CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata) THEN 'large objects' END,
  CASE WHEN EXISTS (SELECT FROM pg_foreign_server) THEN 'foreign servers' END,
  CASE WHEN EXISTS (SELECT FROM pg_subscription) THEN 'subscriptions' END);
"""
FOREIGN_KEYS = """
SELECT coalesce(json_agg(json_build_array(conname, conrelid::regclass::text, confrelid::regclass::text,
  (SELECT json_agg(quote_ident(attname) ORDER BY position) FROM unnest(conkey) WITH ORDINALITY AS k (number, position)
    JOIN pg_attribute ON attrelid = conrelid AND attnum = number),
  (SELECT json_agg(quote_ident(attname) ORDER BY position) FROM unnest(confkey) WITH ORDINALITY AS k (number, position)
    JOIN pg_attribute ON attrelid = confrelid AND attnum = number)) ORDER BY conname), '[]')
FROM pg_constraint WHERE contype = 'f';
"""
TABLES = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.word (place text, old text, new text);
CREATE INDEX ON {SCHEMA}.word USING hash (old);
CREATE TABLE {SCHEMA}.series (sensor_id int PRIMARY KEY, as_it_is boolean, scaled boolean, factor float8, seed bigint,
  weeks int, ring int);
"""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        type: as PostgreSQL calls it.
        enumeration: whether the type has a fixed set of values.
        computed: whether PostgreSQL itself fills it.
    """

    name: str
    type: str
    enumeration: bool = False
    computed: bool = False


@dataclass(frozen=True)
class Relation:
    """A table, or what looks like one.

    Attributes:
        name: with its schema.
        kind: a letter, as in PostgreSQL's catalog.
        referenced: whether others refer to it.
    """

    name: str
    kind: str
    columns: tuple[Column, ...]
    referenced: bool = False

    @property
    def quoted(self) -> str:
        """Its name in statements."""
        return ".".join(map(quoted, self.name.split(".", 1)))


def relations(catalog: Sequence[Mapping[str, Any]]) -> list[Relation]:
    """The answer to CATALOG."""
    return [
        Relation(one["name"], one["kind"], tuple(Column(*column) for column in one["columns"]), one["referenced"])
        for one in catalog
    ]


def problems(found: Sequence[Relation], rules: Mapping[str, Table]) -> list[str]:
    """What the rules do not cover, or would not fit. With any, nothing is to be done."""
    told = []
    for relation in found:
        rule = rules.get(relation.name)
        if relation.kind != "r":
            told.append(
                f"{relation.name} is a {_KINDS.get(relation.kind, relation.kind)}, for which there are no rules"
            )
        elif rule is None:
            told.append(f"the table {relation.name} has no rule")
        elif not isinstance(rule, Emptied):
            told += _of_columns(relation, rule)
    names = {relation.name for relation in found}
    told += [f"the table {name} has a rule and is not there" for name in rules if name not in names]
    return told


def _of_columns(relation: Relation, rules: Mapping[str, Rule]) -> list[str]:
    told = []
    for column in relation.columns:
        if (rule := rules.get(column.name)) is None:
            told.append(f"the column {relation.name}.{column.name} has no rule")
        elif column.computed:
            told.append(f"the column {relation.name}.{column.name} is computed, for which there are no rules")
        elif not fits(rule, column):
            told.append(
                f"the column {relation.name}.{column.name} is of the type {column.type}, which its rule "
                f"{type(rule).__name__} is not for"
            )
    names = {column.name for column in relation.columns}
    told += [f"the column {relation.name}.{name} has a rule and is not there" for name in rules if name not in names]
    return told


def fits(rule: Rule, column: Column) -> bool:
    """Whether a rule is for a type. What can hold text is never kept as it is."""
    match rule:
        case Keep():
            return holds_no_text(column)
        case Texts():
            return bool(_ARRAY.fullmatch(column.type))
        case Text():
            return bool(_TEXT.fullmatch(column.type))
        case Document():
            return column.type in ("json", "jsonb")
        case Digest():
            return column.type == "bytea"
        case Moved():
            return bool(_TIME.fullmatch(column.type))
        case Measured() | Rounded():
            return bool(_FLOAT.fullmatch(column.type))
        case Blank():
            return True


def holds_no_text(column: Column) -> bool:
    """Whether a column can hold numbers, times and the like only."""
    return column.enumeration or bool(_CLOSED.fullmatch(column.type))


def is_fraction(column: Column) -> bool:
    """Whether a column could hold a coordinate."""
    return bool(_FLOAT.fullmatch(column.type))


def is_scaled(unit: str) -> bool:
    """Whether a sensor of a unit measures power or energy, which can be scaled and keep their meaning."""
    return bool(_POWER_OR_ENERGY.fullmatch(unit))


def values_of(relation: Relation, column: Column) -> str:
    """A query for a column's values, each once, as one JSON list of texts; of bytes, their hexadecimal digits."""
    place = f"unnest({quoted(column.name)})" if column.type.endswith("[]") else quoted(column.name)
    text = f"encode({place}, 'hex')" if column.type == "bytea" else f"({place})::text"
    return (
        f"SELECT coalesce(json_agg(value), '[]') FROM (SELECT DISTINCT {text} AS value FROM {relation.quoted}) one"  # noqa: S608 - quoted
        " WHERE value IS NOT NULL;"
    )


def emptying(relation: Relation) -> str:
    """Statements that leave no row."""
    return f"BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM {relation.quoted}; COMMIT;"  # noqa: S608 - quoted


def counting(relation: Relation, rules: Mapping[str, Rule], made_at: str) -> str:
    """A query for the rows, and for how many values of each column its rule changes, as one JSON document."""
    changed = []
    for column in relation.columns:
        rule = rules[column.name]
        if not isinstance(rule, Keep | Moved | Measured):
            differs = f"({expression(relation, column, rule, made_at)})::text IS DISTINCT FROM {_of(column)}::text"
            changed.append(f"{_literal(column.name)}, count(*) FILTER (WHERE {differs})")
    return (
        f"SELECT json_build_object('rows', count(*), 'changed', json_build_object({', '.join(changed)}))"  # noqa: S608 - quoted
        f" FROM {relation.quoted} AS row;"
    )


def rewriting(relation: Relation, rules: Mapping[str, Rule], made_at: str) -> str:
    """Statements that put a table's new rows in the place of the old ones.

    Through a copy, for moved times would collide with those that have not been moved yet.
    """
    names = ", ".join(quoted(column.name) for column in relation.columns)
    expressions = ", ".join(
        f"{expression(relation, column, rules[column.name], made_at)} AS {quoted(column.name)}"
        for column in relation.columns
    )
    series = any(isinstance(rule, Moved | Measured) for rule in rules.values())
    joined = f" JOIN {SCHEMA}.series ON series.sensor_id = row.sensor_id" if series else ""
    remove = f"DELETE FROM {relation.quoted}" if relation.referenced else f"TRUNCATE {relation.quoted}"  # noqa: S608 - quoted
    return (
        "BEGIN; SET LOCAL session_replication_role = replica;\n"  # noqa: S608 - quoted
        f"CREATE UNLOGGED TABLE {SCHEMA}.rows AS SELECT {expressions} FROM {relation.quoted} AS row{joined};\n"
        f"{remove};\n"
        f"INSERT INTO {relation.quoted} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {SCHEMA}.rows;\n"
        f"DROP TABLE {SCHEMA}.rows; COMMIT;\n"
    )


def expression(relation: Relation, column: Column, rule: Rule, made_at: str) -> str:
    """What a column has afterwards, of a row called `row`."""
    value = _of(column)
    match rule:
        case Keep():
            return value
        case Blank(None):
            return f"NULL::{column.type}"
        case Blank(fixed):
            return f"CASE WHEN {value} IS NOT NULL THEN {_literal(str(fixed))}::{column.type} END"
        case Texts():
            word = _word(relation, column, "one.value")
            return (
                f"CASE WHEN {value} IS NOT NULL THEN ARRAY(SELECT {word} FROM unnest({value}) WITH ORDINALITY"  # noqa: S608 - quoted
                f" AS one (value, number) ORDER BY number)::{column.type} END"
            )
        case Digest():
            word = _word(relation, column, f"encode({value}, 'hex')")
            return f"decode({word}, 'hex')"
        case Text() | Document():
            return f"({_word(relation, column, f'{value}::text')})::{column.type}"
        case Rounded():
            return f"({_rounded(f'{value}::float8')})::{column.type}"
        case Moved():
            old = _age(value, made_at)
            new = f"((({old} + series.weeks) % series.ring) + series.ring) % series.ring"
            return f"CASE WHEN series.as_it_is THEN {value} ELSE {value} + ({old} - {new}) * interval '168 hours' END"
        case Measured():
            moment = "extract(epoch FROM row.event_start)::bigint"
            chance = f"(hashint8extended({moment}, series.seed) & 65535) / 65535.0::float8"
            noise = f"CASE WHEN series.scaled THEN 1 + {NOISE} * (2 * {chance} - 1) ELSE 1 END"
            return (
                f"CASE WHEN {value} IN ('NaN', 'Infinity', '-Infinity') THEN {value}"
                f" WHEN series.as_it_is THEN round({value}::numeric, 2)::float8"
                f" ELSE {_rounded(f'{value} * series.factor * {noise}')} END"
            )


def sensors(made_at: str) -> str:
    """A query for all sensors with the ages in weeks of their oldest and newest values."""
    return (
        "SELECT coalesce(json_agg(one), '[]') FROM (SELECT id, name, unit, generic_asset_id AS asset,"  # noqa: S608 - a time
        f" (SELECT json_build_array({_age('min(event_start)', made_at)}, {_age('max(event_start)', made_at)})"
        " FROM timed_belief WHERE sensor_id = sensor.id) AS ages FROM sensor) one;"
    )


def coordinates(relation: Relation, column: Column) -> str:
    """A query for how many of a column's numbers could tell where somebody in Martinique lives."""
    value = f"{quoted(column.name)}::numeric"
    return (
        f"SELECT count(*) FROM {relation.quoted} WHERE {quoted(column.name)} NOT IN ('NaN', 'Infinity', '-Infinity')"  # noqa: S608 - quoted
        f" AND (abs({value}) BETWEEN 14.3 AND 14.95 OR abs({value}) BETWEEN 60.75 AND 61.3)"
        f" AND {value} <> round({value}, 2);"
    )


def orphans(key: Sequence[Any]) -> str:
    """A query for how many rows refer to what is not there; of one row of FOREIGN_KEYS."""
    _, table, parent, columns, referred = key
    given = " AND ".join(f"child.{name} IS NOT NULL" for name in columns)
    same = " AND ".join(f"parent.{there} = child.{here}" for here, there in zip(columns, referred, strict=True))
    return (
        f"SELECT count(*) FROM {table} child WHERE {given}"  # noqa: S608 - as PostgreSQL quotes them
        f" AND NOT EXISTS (SELECT FROM {parent} parent WHERE {same});"
    )


def quoted(name: str) -> str:
    """A name in statements."""
    return '"' + name.replace('"', '""') + '"'


def _of(column: Column) -> str:
    return f"row.{quoted(column.name)}"


def _age(time: str, made_at: str) -> str:
    return f"floor(extract(epoch FROM {_literal(made_at)}::timestamptz - {time}) / {WEEK_SECONDS})::int"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _word(relation: Relation, column: Column, value: str) -> str:
    """What stands for a text; nothing where the key was not asked for it."""
    place = _literal(f"{relation.name}.{column.name}")
    return f"(SELECT new FROM {SCHEMA}.word WHERE place = {place} AND old = {value})"  # noqa: S608 - quoted


def _rounded(number: str) -> str:
    return f"CASE WHEN abs({number}) < 1e-9 THEN 0 ELSE to_char({number}, '9.99EEEE')::float8 END"
