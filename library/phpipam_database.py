#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: phpIPAM's database, from an empty MariaDB to one that phpIPAM and its API can be used with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: phpipam_database
short_description: Make phpIPAM's database ready, with schema, user, administrator and API app
description:
  - Loads the schema that phpIPAM's image brings into a database that is empty, and again where a load was cut short. A
    database with other tables than a whole phpIPAM's is refused and not touched.
  - Keeps the database's user, the password of phpIPAM's administrator C(Admin), the API and one app of it equal to what
    is declared.
  - Everything goes through the standard input of the client in the database's own container, as its root, who gets in
    by the socket. So no secret is an argument, an environment variable or a file, and no port is opened.
author: Cariflex EMS contributors
options:
  container:
    description: The container of MariaDB, 10.5 or later.
    type: str
    required: true
  database:
    description: Name of the database.
    type: str
    default: phpipam
  schema_image:
    description: Image with phpIPAM, whose C(/phpipam/db/SCHEMA.sql) is loaded.
    type: str
    required: true
  user:
    description: Who phpIPAM logs in to MariaDB as.
    type: str
    default: phpipam
  password:
    description: That user's password.
    type: str
    required: true
  admin_password:
    description: Password of phpIPAM's administrator. One that was changed in phpIPAM itself is set back to it.
    type: str
    required: true
  app_id:
    description: Name of the API app, with the permission Read / Write and the security I(SSL with App code token).
    type: str
    default: cariflex
  app_code:
    description: The app's code, of 32 characters at most.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: The database is only asked.
  diff_mode:
    support: full
    description: Shows the changes, without any secret.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Make phpIPAM's database ready
  phpipam_database:
    container: phpipam-db
    schema_image: phpipam/phpipam-www:v1.8.2
    password: "{{ vault_phpipam_db_password }}"
    admin_password: "{{ vault_phpipam_admin_password }}"
    app_code: "{{ vault_phpipam_app_code[:32] }}"
"""

RETURN = r"""
changes:
  description: What was changed (would be, in check mode).
  returned: success
  type: list
  elements: str
  sample: [turn on the API]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.phpipam_database import (
    DatabaseError,
    State,
    Wanted,
    ask_phpipam,
    ask_server,
    changing_script,
    loading_script,
    plan,
    read_phpipam,
    read_server,
)
from ansible.module_utils.phpipam_plan import CODE_LENGTH

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "container": {"type": "str", "required": True},
    "database": {"type": "str", "default": "phpipam"},
    "schema_image": {"type": "str", "required": True},
    "user": {"type": "str", "default": "phpipam"},
    "password": {"type": "str", "required": True, "no_log": True},
    "admin_password": {"type": "str", "required": True, "no_log": True},
    "app_id": {"type": "str", "default": "cariflex"},
    "app_code": {"type": "str", "required": True, "no_log": True},
}
SCHEMA = "/phpipam/db/SCHEMA.sql"
CLIENT = ("mariadb", "--batch", "--skip-column-names", "--raw", "--default-character-set=utf8mb4")


def run(module: AnsibleModule, what: str, *arguments: str, stdin: str | None = None) -> str:
    """What a docker command prints; the module fails where it does."""
    status, printed, errors = module.run_command(["docker", *arguments], data=stdin)
    if status != 0:
        module.fail_json(msg=f"{what}: {(errors or printed).strip() or f'docker ended with {status}'}")
    return str(printed)


def sql(module: AnsibleModule, what: str, script: str) -> str:
    """What a script answers. MariaDB's root is whoever is root in its container."""
    client = ("exec", "--interactive", "--user", "0:0", module.params["container"], *CLIENT)
    return run(module, what, *client, stdin=script)


def state_of(module: AnsibleModule, wanted: Wanted) -> State:
    """What there is."""
    state, is_asked = read_server(sql(module, "asking the database", ask_server(wanted)))
    return read_phpipam(state, sql(module, "asking phpIPAM's tables", ask_phpipam(wanted))) if is_asked else state


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    if len(options["app_code"]) > CODE_LENGTH:
        module.fail_json(msg=f"app_code has more than {CODE_LENGTH} characters, which phpIPAM cannot keep.")
    names = ("database", "user", "password", "admin_password", "app_id", "app_code")
    wanted = Wanted(**{name: options[name] for name in names})
    # the form that secrets have in SQL, which MariaDB may quote in an error
    module.no_log_values.update(options[name].encode().hex() for name in ("admin_password", "app_code"))
    try:
        changes = plan(state_of(module, wanted), wanted)
        if changes and not module.check_mode:
            if not changes[0].sql:
                command = ("run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "cat")
                schema = run(module, "reading phpIPAM's schema", *command, options["schema_image"], SCHEMA)
                sql(module, "loading phpIPAM's schema", loading_script(schema, wanted))
            sql(module, "writing to phpIPAM's database", changing_script(changes, wanted))
    except DatabaseError as problem:
        module.fail_json(msg=str(problem))
    after = "".join(f"{change.what}\n" for change in changes)
    module.exit_json(
        changed=bool(changes), changes=[change.what for change in changes], diff={"before": "", "after": after}
    )


if __name__ == "__main__":
    main()
