#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# Apache License 2.0 (see LICENSE)
"""Ansible module: refuse a host that cannot carry the system, before anything on it is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_preflight
short_description: Refuse a host that cannot carry the system, before anything on it is changed
description:
  - Reads memory, disk, operating system, Python, addresses, clock, Docker, networks, routes and listening ports, and
    fails with every problem at once; each says what is wrong and what to type.
  - Returns what it read, so that roles need not ask the host again.
  - Needs Python's standard library only. The engine is asked through its socket; its client need not be installed.
  - What is missing is no problem (the C(docker) role installs it); what is there and too old is.
options:
  networks:
    description: Docker networks that the host shall have, each with its subnet in C(subnet).
    type: dict
    default: {}
  containers:
    description: Names of the containers that the host shall have. Ports that they hold already are no clash.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports of the host that will be published.
    type: list
    elements: int
    default: [80, 443]
  routes_accepted:
    description: Subnets of host routes that may overlap one of the networks.
    type: list
    elements: str
    default: []
  firewall:
    description: >-
      What the firewall will let through to SSH, as C(networks) and C(port). Refused where it would cut the
      connection that Ansible came through. Empty where no firewall is managed.
    type: dict
    default: {}
  systems:
    description: Operating systems that are supported, as ID and VERSION_ID of os-release(5).
    type: list
    elements: str
    default: [debian 12, debian 13, ubuntu 24.04]
  python_min:
    description: Oldest Python on the host.
    type: str
    default: "3.11"
  engine_min:
    description: Oldest Docker Engine that is taken as it is.
    type: str
    default: "20.10"
  compose_min:
    description: Oldest Docker Compose that is taken as it is.
    type: str
    default: "2.20"
  memory_min_gb:
    description: Least memory of the machine, in GB of 10^9 bytes.
    type: float
    default: 6
  disk_min_gb:
    description: >-
      Least free disk at Docker's data root before the first deployment, in GB of 10^9 bytes. Images that are there
      already count as free.
    type: float
    default: 15
  disk_deployed_min_gb:
    description: Least free disk at any time; once one of O(containers) exists, the only limit.
    type: float
    default: 3
  engine_socket:
    description: Socket of the Docker Engine.
    type: path
    default: /var/run/docker.sock
  domains:
    description: >-
      Public names, each with what DNS says of it: a list of addresses, or of reasons why there are none. Every address
      has to be one of this host.
    type: dict
    default: {}
  public_addresses:
    description: Addresses that the names have to lead to, where the host itself has others. Empty means the host's own.
    type: list
    elements: str
    default: []
  ssh_keys_only:
    description: >-
      Whether the SSH server will refuse passwords. Refused where whoever Ansible logged in as has no key.
    type: bool
    default: false
  ssh_keyless:
    description: Whether Ansible itself logs in with a password.
    type: bool
    default: false
  acme_server:
    description: >-
      Directory of the ACME server that will be asked. It has to be reachable before the first deployment, and the
      host's clock is compared with its. Empty means neither.
    type: str
    default: ""
  clock_max_seconds:
    description: Most seconds between the two clocks.
    type: float
    default: 5
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so check mode does the same.
  diff_mode:
    support: none
    description: Nothing is ever changed, so there is no difference to show.
  idempotent:
    support: full
    description: Nothing is ever changed.
author:
  - Cariflex EMS contributors
"""

EXAMPLES = r"""
- name: Refuse a host that cannot carry the system
  host_preflight:
    networks:
      openadr-internal: {subnet: 192.168.240.0/24}
    containers: [traefik, openadr-vtn]
    ports: [80, 443]
  register: host_preflight
"""

RETURN = r"""
problems:
  description: Every problem on a line of its own, with what to type.
  returned: on failure
  type: str
system:
  description: Operating system, as ID and VERSION_ID of os-release(5).
  returned: on success
  type: str
  sample: debian 13
systemd:
  description: Whether systemd runs the host.
  returned: on success
  type: bool
container:
  description: Whether the host is a container, whose kernel belongs to the machine below.
  returned: on success
  type: bool
sets_clock:
  description: Whether the host may set its clock.
  returned: on success
  type: bool
python_version:
  description: Python that ran this module.
  returned: on success
  type: str
  sample: 3.13.5
memory_gb:
  description: Memory of the machine, in GB of 10^9 bytes.
  returned: on success
  type: float
  sample: 8.3
disk_free_gb:
  description: Free disk at Docker's data root, in GB of 10^9 bytes.
  returned: on success
  type: float
  sample: 41.7
docker_available:
  description: Whether the engine answers.
  returned: on success
  type: bool
docker_engine_version:
  description: Version of the engine, running or not; empty when none is installed.
  returned: on success
  type: str
  sample: 26.1.5
compose_version:
  description: Version of Compose; empty when it is not installed.
  returned: on success
  type: str
  sample: 2.26.1
buildx_version:
  description: Version of Buildx; empty when it is not installed.
  returned: on success
  type: str
  sample: 0.13.1
networks:
  description: Docker networks of the host, each with name, subnets, labels and interface.
  returned: on success
  type: list
  elements: dict
containers:
  description: Names of the containers on the host, stopped ones too.
  returned: on success
  type: list
  elements: str
images:
  description: References of the images on the host.
  returned: on success
  type: list
  elements: str
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_facts import Host, read_host
from ansible.module_utils.host_rules import GB, Firewall, Limits, Wanted, host_problems
from ansible.module_utils.problem import headline, listing

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "networks": {"type": "dict", "default": {}},
    "containers": {"type": "list", "elements": "str", "default": []},
    "ports": {"type": "list", "elements": "int", "default": [80, 443]},
    "routes_accepted": {"type": "list", "elements": "str", "default": []},
    "firewall": {"type": "dict", "default": {}},
    "systems": {"type": "list", "elements": "str", "default": ["debian 12", "debian 13", "ubuntu 24.04"]},
    "python_min": {"type": "str", "default": "3.11"},
    "engine_min": {"type": "str", "default": "20.10"},
    "compose_min": {"type": "str", "default": "2.20"},
    "memory_min_gb": {"type": "float", "default": 6},
    "disk_min_gb": {"type": "float", "default": 15},
    "disk_deployed_min_gb": {"type": "float", "default": 3},
    "engine_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "domains": {"type": "dict", "default": {}},
    "public_addresses": {"type": "list", "elements": "str", "default": []},
    "ssh_keys_only": {"type": "bool", "default": False},
    "ssh_keyless": {"type": "bool", "default": False},
    "acme_server": {"type": "str", "default": ""},
    "clock_max_seconds": {"type": "float", "default": 5},
}


def facts_of(host: Host) -> dict[str, Any]:
    """What other roles may want to know of the host, as RETURN describes it."""
    return {
        "system": host.system,
        "systemd": host.systemd,
        "container": host.container,
        "sets_clock": host.sets_clock,
        "python_version": ".".join(map(str, host.python)),
        "memory_gb": round(host.memory_bytes / GB, 1),
        "disk_free_gb": round(host.disk_free_bytes / GB, 1),
        "docker_available": host.engine.available,
        "docker_engine_version": host.engine.version,
        "compose_version": host.engine.compose_version,
        "buildx_version": host.engine.buildx_version,
        "networks": [dataclasses.asdict(network) for network in host.engine.networks],
        "containers": list(host.engine.containers),
        "images": list(host.engine.images),
    }


def main() -> None:
    """Look, judge, and say it."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    host = read_host(engine_socket=options["engine_socket"], reference_url=options["acme_server"])
    firewall = options["firewall"]
    wanted = Wanted(
        networks={name: network["subnet"] for name, network in options["networks"].items()},
        containers=options["containers"],
        ports=options["ports"],
        routes_accepted=options["routes_accepted"],
        firewall=Firewall(firewall["networks"], int(firewall["port"])) if firewall else None,
        domains=options["domains"],
        public_addresses=options["public_addresses"],
        ssh_keys_only=options["ssh_keys_only"],
        ssh_keyless=options["ssh_keyless"],
    )
    limits = Limits(
        systems=options["systems"],
        python=options["python_min"],
        engine=options["engine_min"],
        compose=options["compose_min"],
        memory_gb=options["memory_min_gb"],
        disk_gb=options["disk_min_gb"],
        disk_deployed_gb=options["disk_deployed_min_gb"],
        clock_seconds=options["clock_max_seconds"],
    )
    problems = host_problems(host, wanted, limits)
    if problems:
        message = headline(problems, "This host cannot carry the system")
        module.fail_json(msg=message, problems=listing(problems))
    module.exit_json(changed=False, **facts_of(host))


if __name__ == "__main__":
    main()
