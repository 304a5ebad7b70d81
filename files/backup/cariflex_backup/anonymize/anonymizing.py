"""Anonymizing an archive: restored into a throwaway database, rewritten there, searched, and packed as another archive.

Nothing that names anybody leaves the host, and what leaves the throwaway container has passed the search. Errors count
and name columns; they never show a value.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cariflex_backup import archive as archives
from cariflex_backup import loading, throwaway
from cariflex_backup.anonymize import documents, plan, traces
from cariflex_backup.anonymize.plan import Column, Relation
from cariflex_backup.anonymize.pseudonyms import Key, ring_of
from cariflex_backup.anonymize.rules import (
    ROLES,
    RULES,
    Blank,
    Digest,
    Document,
    Emptied,
    Keep,
    Measured,
    Table,
    Text,
)
from cariflex_backup.archive import Archive, check_sum, read_manifest, unpacked
from cariflex_backup.commands import run
from cariflex_backup.database import Server, Session
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import check_free, image_of
from cariflex_backup.making import clean, locked, terminable
from cariflex_backup.settings import Anonymize, Settings

# where people live, and nothing made up is wanted
NEVER = ("prod",)
REPORT = "anonymized.json"
_TARGET = re.compile(r"[a-z][a-z0-9_-]*")
_RESERVE_BYTES = 512 << 20
# in the definition of a database only these would be somebody's
_FORMS_OF_SCHEMA = ("an e-mail address", "a fingerprint", "a token", "a telephone number")


@dataclass(frozen=True)
class Order:
    """What an operator wants.

    Attributes:
        archive: of what environment ever but the target.
        identity: age's secret key, for an encrypted archive.
        target: the environment that the new archive is for.
        folder: where it goes.
    """

    archive: Archive
    identity: str
    target: str
    folder: Path


@dataclass
class Work:
    """One run.

    Attributes:
        key: of this run alone; it ends with it.
        public: names that may stay.
        known: texts of the original that must not be found afterwards.
        made: every pseudonym.
        told: the report: database -> table -> what was done.
    """

    key: Key
    public: frozenset[str]
    known: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)


def anonymize(settings: Settings, order: Order) -> dict[str, Any]:
    """Make an archive of test data.

    Returns:
        `archive`, `report` (its path), `of`, `tables`, `rows`, `changed` and `seconds`.

    Raises:
        BackupError: it was refused, or something that looks like a person was left; nothing was written then.
    """
    began = time.monotonic()
    _check_target(order)
    with terminable("Nothing was written, and nothing of the EMS was touched."), locked(settings.root):
        clean(settings.root)
        loading.remove_leftovers()
        if order.archive.sum_path.is_file():
            check_sum(order.archive)
        check_free(settings.root, order.archive.path.stat().st_size * 2 + _RESERVE_BYTES, "anonymizing an archive")
        with unpacked(order.archive, settings.root, order.identity) as folder:
            manifest = read_manifest(folder / archives.MANIFEST)
            _check(manifest, order)
            with _sealed(settings, order, folder, manifest) as (made, found, report):
                order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                packed = archives.pack(made, order.folder, ())
                beside = order.folder / f"{packed.stamp}.{REPORT}"
                shutil.copyfile(made / REPORT, beside)
    return {
        "archive": packed.path,
        "report": beside,
        "of": order.archive.path.name,
        "for": order.target,
        "tables": sum(len(one) for one in report["databases"].values()),
        "rows": sum(table["rows"] for one in found.values() for table in one["tables"].values()),
        "changed": report["changed"],
        "seconds": round(time.monotonic() - began, 1),
    }


# --- before anything is done ---


def _check_target(order: Order) -> None:
    if order.target in NEVER:
        raise BackupError(
            f"{order.target} is where the people are, and made-up data are never for it. Give a test environment: "
            "--for test"
        )
    if not _TARGET.fullmatch(order.target):
        raise BackupError(f"{order.target!r} is no name of an environment. Give one: --for test")


def _check(manifest: Mapping[str, Any], order: Order) -> None:
    if manifest.get("anonymized"):
        raise BackupError(f"{order.archive.path.name} is anonymized already. Restore it: playbooks/restore.yml")
    if manifest["environment"] == order.target:
        raise BackupError(
            f"{order.archive.path.name} is of {order.target} itself: it can be restored there as it is. "
            "Take an archive of production."
        )
    if unknown := sorted(set(manifest["databases"]) - set(RULES)):
        raise BackupError(f"There are no rules for the database {' or '.join(unknown)}: they belong into rules.py.")


# --- the work ---


@contextmanager
def _sealed(
    settings: Settings, order: Order, folder: Path, manifest: Mapping[str, Any]
) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """The new archive's folder, what its databases hold, and the report."""
    disk = Path(run(["docker", "info", "--format", "{{.DockerRootDir}}"], what="asking Docker").decode().strip())
    check_free(disk, 2 * loading.disk_needed(manifest["databases"]) + _RESERVE_BYTES, "anonymizing an archive")
    anonymize_ = settings.anonymize or Anonymize()
    work = Work(Key(), frozenset((*anonymize_.names, *anonymize_.sensors)))
    staging = settings.root / f".staging-{secrets.token_hex(4)}"
    target = staging / order.archive.stamp
    try:
        (target / "postgres").mkdir(mode=0o700, parents=True)
        with throwaway.postgres(image_of(settings.database_container), "anonymize") as server:
            names = list(manifest["databases"])
            _load(server, folder / "postgres", manifest["databases"])
            with _sessions(server, names) as sessions:
                schemas = {name: plan.relations(_asked(session, plan.CATALOG)) for name, session in sessions.items()}
                _refuse_unknown(sessions, schemas)
                for (
                    name,
                    session,
                ) in sessions.items():  # all before any is searched: a name of one must not be in another
                    _rewrite(session, name, schemas[name], work, anonymize_, manifest["made_at"])
                _drop_roles(list(sessions.values()), (*ROLES, settings.database_role))
                for name, session in sessions.items():
                    _check_references(session, name)
                    _search(session, name, schemas[name], _definitions(server, name), work, anonymize_.canaries)
            (target / "postgres/globals.sql").write_bytes(server.globals())
            found = {name: server.dump(name, target / f"postgres/{name}.dump") for name in names}
            changed = sum(
                sum(table.get("changed", {}).values()) for one in work.told.values() for table in one.values()
            )
            report = {"of": manifest["made_at"], "for": order.target, "changed": changed, "databases": work.told}
            (target / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            archives.seal(target, _manifest(manifest, order, found))
        yield target, found, report
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _manifest(manifest: Mapping[str, Any], order: Order, found: Mapping[str, Any]) -> dict[str, Any]:
    """Of the new archive: nothing in it tells of the host that it was made on."""
    return {
        "format": archives.FORMAT,
        "anonymized": True,
        "made_at": manifest["made_at"],
        "host": "nowhere",
        "environment": order.target,
        "project_version": manifest["project_version"],
        "seconds": 0,
        "databases": found,
        "images": {},
        "versions": {"postgres": manifest["versions"].get("postgres", "0")},
        "parts": {"postgres": {"bytes": sum(one["bytes"] for one in found.values()), "seconds": 0}},
        "missing": [],
    }


def _load(server: Server, dumps: Path, databases: Mapping[str, Any]) -> None:
    loading.load_roles(server, dumps / "globals.sql")
    differing = loading.load(server, dumps, databases)
    if problems := [f"{name}: {problem}" for name, all_ in differing.items() for problem in all_]:
        raise BackupError(f"The archive differs from its manifest: {'; '.join(problems[:5])}. Take another one.")
    loading.swap(server, databases)


def _refuse_unknown(sessions: Mapping[str, Session], schemas: Mapping[str, Sequence[Relation]]) -> None:
    problems = []
    for name, schema in schemas.items():
        problems += [f"{name}: {problem}" for problem in plan.problems(schema, RULES[name])]
        if elsewhere := sessions[name].ask(plan.ELSEWHERE):
            problems.append(f"{name}: there are {elsewhere}, for which there are no rules")
    if problems:
        raise BackupError(
            f"The rules do not fit this archive in {len(problems)} places: {'; '.join(problems[:10])}. Say in "
            "anonymize/rules.py what becomes of them; until then nothing is anonymized, for it could leak."
        )


def _rewrite(
    session: Session, name: str, schema: Sequence[Relation], work: Work, anonymize_: Anonymize, made_at: str
) -> None:
    rules = RULES[name]
    session.ask(plan.TABLES)
    for relation in schema:
        _take_words(session, relation, rules[relation.name], work)
    _take_series(session, schema, work, anonymize_, made_at)
    told = work.told.setdefault(name, {})
    for relation in schema:
        rule = rules[relation.name]
        if isinstance(rule, Emptied):
            rows = int(session.ask(f"SELECT count(*) FROM {relation.quoted};"))  # noqa: S608 - quoted
            session.ask(plan.emptying(relation))
            told[relation.name] = {"rows": 0, "removed": rows, "why": rule.why}
            continue
        counted = _asked(session, plan.counting(relation, rule, made_at))
        if any(isinstance(one, Measured) for one in rule.values()):
            counted["changed"] = {column: counted["rows"] for column, one in rule.items() if not isinstance(one, Keep)}
        if any(not isinstance(one, Keep) for one in rule.values()):
            session.ask(plan.rewriting(relation, rule, made_at))
        if int(session.ask(f"SELECT count(*) FROM {relation.quoted};")) != counted["rows"]:  # noqa: S608 - quoted
            raise BackupError(f"{name}: {relation.name} has lost rows while it was rewritten.")
        changed = {column: number for column, number in counted["changed"].items() if number}
        told[relation.name] = {"rows": counted["rows"], "changed": changed}
    session.ask(f"DROP SCHEMA {plan.SCHEMA} CASCADE;")


def _take_words(session: Session, relation: Relation, rules: Table, work: Work) -> None:
    """Draw what stands for each text of a table, and note what must not be found any more."""
    for column in relation.columns:
        if plan.holds_no_text(column):
            continue
        rule = None if isinstance(rules, Emptied) else rules[column.name]
        values: list[str] = _asked(session, plan.values_of(relation, column))
        words = {}
        for value in values:
            words[value] = new = _word(rule, value, work)
            if new != value and not isinstance(rule, Digest):
                texts = _texts_of(value) if column.type in ("json", "jsonb") else [value]
                work.known.update(text for text in texts if not documents.is_harmless(text))
        if rule is None or isinstance(rule, Blank):
            continue
        if isinstance(rule, Text | Digest):
            work.made.update(new for old, new in words.items() if new is not None and new != old)
        rows = [{"old": old, "new": new} for old, new in words.items()]
        place = f"{relation.name}.{column.name}".replace("'", "''")
        tag = f"$s{secrets.token_hex(8)}$"
        session.ask(
            f"INSERT INTO {plan.SCHEMA}.word SELECT '{place}', old, new"  # noqa: S608 - texts are within a tag nobody can guess
            f" FROM jsonb_to_recordset({tag}{json.dumps(rows)}{tag}::jsonb) AS row (old text, new text);"
        )


def _word(rule: Any, value: str, work: Work) -> str | None:
    match rule:
        case Text(kind, like, public, otherwise):
            if (like and re.fullmatch(like, value)) or (public and value in work.public):
                return value
            return work.key.pseudonym(kind, value) if otherwise is None else otherwise
        case Document():
            return json.dumps(documents.cleaned(json.loads(value)))
        case Digest():
            return work.key.digest(bytes.fromhex(value)).hex()
        case _:
            return None


def _texts_of(document: str) -> Iterator[str]:
    """Every text in a JSON document, keys included."""
    waiting = [json.loads(document)]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case list(items):
                waiting += items
            case dict(items):
                waiting += [*items.keys(), *items.values()]


def _take_series(session: Session, schema: Sequence[Relation], work: Work, anonymize_: Anonymize, made_at: str) -> None:
    """Draw how the values of each sensor are moved and scaled: alike for all sensors of an asset."""
    if not any(relation.name == "public.timed_belief" for relation in schema):
        return
    sensors = _asked(session, plan.sensors(made_at))
    ages: dict[int, list[int]] = {}
    for sensor in sensors:
        ages.setdefault(sensor["asset"], []).extend(one for one in sensor["ages"] if one is not None)
    rows = []
    for sensor in sensors:
        asset = sensor["asset"]
        ring = ring_of(max(ages[asset], default=0), min(ages[asset], default=0))
        as_it_is = anonymize_.sensors.get(sensor["name"]) == sensor["id"]
        scaled = not as_it_is and plan.is_scaled(sensor["unit"])
        rows.append(
            {
                "sensor_id": sensor["id"],
                "as_it_is": as_it_is,
                "scaled": scaled,
                "factor": work.key.factor(asset) if scaled else 1,
                "seed": work.key.seed(sensor["id"]),
                "weeks": work.key.weeks(asset, ring),
                "ring": ring,
            }
        )
    session.ask(
        f"INSERT INTO {plan.SCHEMA}.series SELECT * FROM"  # noqa: S608 - numbers
        f" jsonb_populate_recordset(NULL::{plan.SCHEMA}.series, '{json.dumps(rows)}');"
    )


def _drop_roles(sessions: Sequence[Session], known: Sequence[str]) -> None:
    """Roles that are not of the system may be called as people are."""
    names = ", ".join(f"'{name}'" for name in known)
    of_others = f"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname NOT IN ({names})"  # noqa: S608 - ours

    def each(statements: str) -> str:
        return f"DO $$ DECLARE other text; BEGIN FOR other IN {of_others} LOOP {statements} END LOOP; END $$;"

    for session in sessions:
        owned = "EXECUTE format('REASSIGN OWNED BY %I TO postgres', other); EXECUTE format('DROP OWNED BY %I', other);"
        session.ask(each(owned))
    sessions[0].ask(each("EXECUTE format('DROP ROLE %I', other);"))


# --- the search ---


def _check_references(session: Session, name: str) -> None:
    for key in _asked(session, plan.FOREIGN_KEYS):
        if count := int(session.ask(plan.orphans(key))):
            raise BackupError(f"{name}: {count} rows of {key[1]} refer to what is not there ({key[0]}).")


def _search(
    session: Session, name: str, schema: Sequence[Relation], definitions: str, work: Work, canaries: Sequence[str]
) -> None:
    """Look through every column of every table, and the definitions.

    Raises:
        BackupError: something was left that should not be; with where, what it looks like, and how often.
    """
    planted = {canary.casefold() for canary in canaries}
    known = traces.sought(work.known - work.made, _ordinary(work.public)) | planted
    left = []
    for relation in schema:
        for column in relation.columns:
            if found := _left_in(session, relation, column, work, known):
                told = ", ".join(f"{what} ({count})" for what, count in found.items())
                left.append(f"{relation.name}.{column.name}: {told}")
    forms = [form for form in _FORMS_OF_SCHEMA if traces.FORMS[form].search(definitions)]
    if forms or any(canary in definitions.casefold() for canary in planted):
        left.append(f"its definitions: {', '.join(forms) or 'a canary'}")
    if left:
        raise BackupError(
            f"The database {name} would still hold what looks like people: {'; '.join(left[:20])}. Nothing was "
            "written. Make the rule of that column stricter (anonymize/rules.py)."
        )


def _left_in(session: Session, relation: Relation, column: Column, work: Work, known: set[str]) -> Counter[str]:
    if plan.is_fraction(column):
        count = int(session.ask(plan.coordinates(relation, column)))
        return Counter({"a precise coordinate": count} if count else {})
    if plan.holds_no_text(column):
        return Counter()
    values: list[str] = _asked(session, plan.values_of(relation, column))
    texts = [value for value in values if value not in work.made and value not in work.public]
    if column.type == "bytea":
        texts = [bytes.fromhex(text).decode(errors="replace") for text in texts]
    return traces.found(texts, known)


def _ordinary(public: frozenset[str]) -> str:
    """Every word that may stand in the result: a text of the original that is one of them tells nothing."""
    rules = [
        rule
        for tables in RULES.values()
        for table in tables.values()
        if not isinstance(table, Emptied)
        for rule in table.values()
    ]
    words = [word for rule in rules if isinstance(rule, Text) for word in (rule.kind, rule.like, rule.otherwise or "")]
    return " ".join((*words, *documents.KEYS, documents.WORDS, *public, "user-@anonymous.invalid"))


def _definitions(server: Server, name: str) -> str:
    """What a dump says but for rows, and the roles; without pg_dump's own token."""
    arguments, _ = server.command(["pg_dump", "--schema-only", name])
    text = run(arguments, what=f"reading the definitions of {name}") + server.globals()
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", text.decode(errors="replace"))


@contextmanager
def _sessions(server: Server, names: Sequence[str]) -> Iterator[dict[str, Session]]:
    """A session in each database."""
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(server.session(name, writing=True)) for name in names}
        for session in sessions.values():
            session.say("\\set VERBOSITY terse\n")  # what PostgreSQL says of a row that it refuses would show it
        yield sessions


def _asked(session: Session, query: str) -> Any:
    return json.loads(session.ask(query))
