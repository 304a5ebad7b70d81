"""How long deploying takes and how much memory the system needs, beside Docker Compose alone.

    .venv/bin/python bench/deploy.py                  unchanged run and memory, of the dev stack that runs here
    .venv/bin/python bench/deploy.py --from-nothing   also a deployment with the images present, and one without any
                                                      image: DELETES the dev stack, its data and its images first

Figures depend on the machine; ratios less so. Both sides of a ratio are measured in turn, in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STACKS_ROOT = Path("/opt/cariflex")
PLAYBOOK = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "inventories/dev"]
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def run(command: Sequence[str], folder: Path = ROOT) -> str:
    """Run a command and return what it printed; stop with its output if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def seconds(what: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.monotonic()
    what()
    return time.monotonic() - start


def stacks() -> list[Path]:
    """Folders of the stacks that are deployed."""
    found = sorted(path.parent for path in STACKS_ROOT.glob("*/compose.yml"))
    if not found:
        sys.exit(f"There is no stack in {STACKS_ROOT}. Run `make dev` first.")
    return found


def site() -> str:
    """One run of site.yml."""
    return run([*PLAYBOOK, "playbooks/site.yml"])


def compose_up(*options: str) -> None:
    """What `site.yml` is compared with: starting the same projects with Compose alone, one after the other."""
    for folder in stacks():
        run(["docker", "compose", "up", "--detach", *options], folder)


def purge(*, images: bool) -> None:
    """Delete the dev stack with its data, and its images if asked to."""
    answers = ["-e", '{"purge_confirmed": true}', "-e", json.dumps({"purge_images": images})]
    run([*PLAYBOOK, "playbooks/purge.yml", *answers])


def memory_gib() -> float:
    """Memory of all containers of the stacks, in GiB."""
    names = [
        name
        for folder in stacks()
        for name in run(["docker", "compose", "ps", "--format", "{{.Name}}"], folder).split()
    ]
    usage = run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *names])
    total = 0.0
    for line in usage.splitlines():
        text = line.split("/")[0].strip()
        unit = next(unit for unit in ("KiB", "MiB", "GiB", "B") if text.endswith(unit))
        total += float(text.removesuffix(unit)) * UNITS[unit]
    return total / 2**30


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each side of the unchanged comparison (default 5)")
    parser.add_argument("--from-nothing", action="store_true", help="deletes the dev stack, its data and images first")
    options = parser.parse_args()
    rows: list[tuple[str, str, str]] = []

    if options.from_nothing:
        purge(images=True)
        rows.append(("images from nothing, then a deployment", f"{seconds(site):.0f} s", "≤ 600 s for the images"))
        purge(images=False)
        rows.append(("deployment with the images present", f"{seconds(site):.0f} s", "≤ 90 s"))

    if "changed=0" not in site():
        sys.exit("site.yml still changes something: run `make dev` again and look at what it changes.")
    sides = [(seconds(compose_up), seconds(lambda: compose_up("--wait")), seconds(site)) for _ in range(options.runs)]
    compose, waiting, ours = (statistics.median(side) for side in zip(*sides, strict=True))
    rows.append(("unchanged: docker compose up -d", f"{compose:.1f} s", "baseline"))
    rows.append(("unchanged: docker compose up -d --wait", f"{waiting:.1f} s", "baseline that also waits for health"))
    rows.append(("unchanged: site.yml", f"{ours:.1f} s", "≤ 20 s"))
    rows.append(("unchanged: site.yml / docker compose up -d", f"{ours / compose:.1f}", "≤ 5"))
    rows.append(("unchanged: site.yml / docker compose up -d --wait", f"{ours / waiting:.1f}", ""))
    rows.append(("memory of all containers", f"{memory_gib():.2f} GiB", "≤ 3.5 GB"))

    width = max(len(name) for name, _, _ in rows)
    for name, value, aim in rows:
        print(f"{name:<{width}}  {value:>10}  {aim}")


if __name__ == "__main__":
    main()
