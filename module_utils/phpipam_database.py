# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What phpIPAM's database has to hold before phpIPAM can be used: its schema, the way in, the API and its app.

Pure: SQL that asks, what it answered, and the statements that are still needed. Every value goes into SQL as a
hexadecimal literal, and nothing that is shown holds one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

# A database with this comment is being filled; a load that was cut short is known by it.
LOADING = "cariflex: the schema is being loaded"
ADMINISTRATOR = "Admin"  # phpIPAM's own, with a password that everybody knows
_CHARACTERS = string.ascii_letters + string.digits
_COLLATION = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
_APP = {"app_permissions": "2", "app_security": "ssl_code"}  # Read / Write, a static code


class DatabaseError(ValueError):
    """The database is in a state that this must not touch; the message says what to do."""


@dataclass(frozen=True)
class Wanted:
    """What is declared.

    Attributes:
        database: its name.
        user: who phpIPAM logs in as.
        password: of that user.
        admin_password: of phpIPAM's administrator.
        app_id: name of the API app.
        app_code: its code.
    """

    database: str
    user: str
    password: str = field(repr=False)
    admin_password: str = field(repr=False)
    app_id: str = "cariflex"
    app_code: str = field(default="", repr=False)


@dataclass(frozen=True)
class State:
    """What there is.

    Attributes:
        schema: `none`, `cut` (a load that was cut short), `whole` or `strange`.
        login: hash of the user's password; None where there is no such user.
        granted: whether the user may use the database.
        api: whether the API is on.
        admin: whether the administrator has the declared password and need not change it; None where there is none.
        app: the app's row; None where there is none.
    """

    schema: str
    login: str | None = None
    granted: bool = False
    api: bool = False
    admin: bool | None = None
    app: dict[str, str] | None = None


@dataclass(frozen=True)
class Change:
    """A change: what it is, without any secret, and the SQL that makes it."""

    what: str
    sql: str = field(repr=False)


def literal(text: str) -> str:
    """A text in SQL, whatever is in it."""
    return f"_utf8mb4 X'{text.encode().hex()}'"


def quoted(name: str) -> str:
    """A name in SQL."""
    return "`" + name.replace("`", "``") + "`"


def login_hash(password: str) -> str:
    """The form in which MariaDB keeps a password (mysql_native_password), so that it never sees the password itself."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


# --- asking --------------------------------------------------------------------------------------------------------


def ask_server(wanted: Wanted) -> str:
    """Ask, in one row of JSON, for what can be asked whatever the database is like."""
    name, user = literal(wanted.database), literal(wanted.user)
    return f"""SELECT json_object(
  'comment', (SELECT schema_comment FROM information_schema.schemata WHERE schema_name = {name}),
  'tables', (SELECT count(*) FROM information_schema.tables WHERE table_schema = {name}),
  'known', (SELECT count(*) FROM information_schema.tables WHERE table_schema = {name}
            AND table_name IN ('settings', 'users', 'api', 'sections', 'subnets', 'ipaddresses')),
  'login', (SELECT json_value(priv, '$.authentication_string') FROM mysql.global_priv
            WHERE user = {user} AND host = '%'),
  'granted', (SELECT count(*) FROM mysql.db WHERE db = {name} AND user = {user} AND host = '%' AND drop_priv = 'Y'));
"""  # noqa: S608 - hexadecimal literals


def ask_phpipam(wanted: Wanted) -> str:
    """Ask, in one row of JSON, for what a whole schema holds."""
    code, admin = literal(wanted.app_code), literal(wanted.admin_password)
    return f"""USE {quoted(wanted.database)};
SELECT json_object(
  'version', (SELECT dbversion FROM settings WHERE id = 1),
  'api', (SELECT api = '1' FROM settings WHERE id = 1),
  'admin', (SELECT coalesce(encrypt({admin}, password) = password, 0) AND passChange = 'No'
            FROM users WHERE username = '{ADMINISTRATOR}'),
  'app', (SELECT json_object('app_permissions', cast(app_permissions AS char), 'app_security', app_security,
                             'app_code', if(BINARY app_code = BINARY {code}, 'declared', 'another'))
          FROM api WHERE app_id = {literal(wanted.app_id)}));
"""  # noqa: S608 - hexadecimal literals


def read_server(text: str) -> tuple[State, bool]:
    """The state as far as `ask_server` tells, and whether `ask_phpipam` may be asked."""
    told = json.loads(text)
    asks = told["comment"] != LOADING and told["known"] == 6
    if told["comment"] == LOADING:
        schema = "cut"
    elif not told["tables"]:
        schema = "none"
    else:
        schema = "strange"  # until phpIPAM's own tables say otherwise
    return State(schema, told["login"], bool(told["granted"])), asks


def read_phpipam(server: State, text: str) -> State:
    """The whole state."""
    told: dict[str, Any] = json.loads(text)
    return State(
        "whole" if told["version"] else "strange",
        server.login,
        server.granted,
        bool(told["api"]),
        None if told["admin"] is None else bool(told["admin"]),
        told["app"],
    )


# --- changing ------------------------------------------------------------------------------------------------------


def plan(state: State, wanted: Wanted) -> list[Change]:
    """The changes that are still needed, in order. One without SQL is to load phpIPAM's schema.

    Raises:
        DatabaseError: there is something in the database that is not a whole phpIPAM.
    """
    if state.schema == "strange":
        raise DatabaseError(
            f"The database {wanted.database} has tables and is not a whole phpIPAM, so nothing in it was touched. Fix: "
            "restore it (docs/tasks/restore.md), or, if nothing in it is wanted, remove it and deploy again: "
            f"DROP DATABASE {wanted.database}."
        )
    changes = []
    if state.schema in ("none", "cut"):
        again = " again: it was cut short" if state.schema == "cut" else ""
        changes.append(Change(f"load the schema into {wanted.database}{again}", ""))
        # what SCHEMA.sql itself makes
        state = State("whole", state.login, state.granted, api=False, admin=False, app=None)
    return [*changes, *_login(state, wanted), *_inside(state, wanted)]


def _login(state: State, wanted: Wanted) -> list[Change]:
    account, name = f"{quoted(wanted.user)}@'%'", quoted(wanted.database)
    hashed = f"IDENTIFIED BY PASSWORD '{login_hash(wanted.password)}'"
    changes = []
    if state.login is None:
        changes.append(Change(f"make the user {wanted.user}", f"CREATE USER {account} {hashed};"))
    elif state.login != login_hash(wanted.password):
        changes.append(Change(f"set the password of the user {wanted.user}", f"ALTER USER {account} {hashed};"))
    if not state.granted:
        changes.append(
            Change(f"let {wanted.user} use {wanted.database}", f"GRANT ALL PRIVILEGES ON {name}.* TO {account};")
        )
    return changes


def _inside(state: State, wanted: Wanted) -> list[Change]:
    changes = []
    if not state.api:
        changes.append(Change("turn on the API", "UPDATE settings SET api = '1' WHERE id = 1;"))
    if state.admin is False:
        salt = "$6$rounds=3000$" + "".join(secrets.choice(_CHARACTERS) for _ in range(16))
        changes.append(
            Change(
                f"set the password of {ADMINISTRATOR}",
                f"UPDATE users SET password = encrypt({literal(wanted.admin_password)}, '{salt}'),"  # noqa: S608 - hexadecimal literals
                f" passChange = 'No' WHERE username = '{ADMINISTRATOR}';",
            )
        )
    if state.app is None or {**state.app} != {**_APP, "app_code": "declared"}:
        fields = {"app_id": wanted.app_id, "app_code": wanted.app_code, **_APP}
        updated = ", ".join(f"{name} = VALUES({name})" for name in ("app_code", *_APP))
        changes.append(
            Change(
                f"{'make' if state.app is None else 'correct'} the API app {wanted.app_id}",
                f"INSERT INTO api ({', '.join(fields)}) VALUES ({', '.join(map(literal, fields.values()))})"  # noqa: S608 - hexadecimal literals
                f" ON DUPLICATE KEY UPDATE {updated};",
            )
        )
    return changes


def loading_script(schema: str, wanted: Wanted) -> str:
    """SQL that makes the database anew with phpIPAM's schema. Whatever it is cut short by leaves the mark.

    Raises:
        DatabaseError: the schema is no phpIPAM's.
    """
    if "`settings`" not in schema or "dbversion" not in schema:
        raise DatabaseError("What the image has as SCHEMA.sql is no schema of phpIPAM. Fix: take phpIPAM's own image.")
    name = quoted(wanted.database)
    return (
        f"DROP DATABASE IF EXISTS {name};\n"
        f"CREATE DATABASE {name} {_COLLATION} COMMENT {_text(LOADING)};\n"
        f"USE {name};\n{schema}\n;\nALTER DATABASE {name} COMMENT '';\n"
    )


def changing_script(changes: list[Change], wanted: Wanted) -> str:
    """SQL of all changes but the schema. What is cut short between two of them, the next run finishes."""
    return "\n".join([f"USE {quoted(wanted.database)};", *(change.sql for change in changes if change.sql), ""])


def _text(text: str) -> str:
    """A constant of ours, where SQL takes no expression."""
    return "'" + text.replace("'", "''") + "'"
