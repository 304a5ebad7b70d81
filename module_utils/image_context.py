# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Build contexts as reproducible archives, and the references that follow from their content.

An image is named after the SHA-256 of everything it is made from (its context, Dockerfile, arguments and the reference
of its base), so "is it there?" is the same question as "is it up to date?".
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Left-overs of running and testing a tool in place: they must not change an image.
JUNK = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".venv", "build", "dist"}
DIGEST_LENGTH = 12


class ContextError(ValueError):
    """A declaration that no image can be made from; the message names the image and the fix."""


@dataclass(frozen=True)
class Image:
    """How one image is obtained.

    Attributes:
        reference: the image's name as `docker image inspect` takes it, or None if it can be had in no way.
        kind: `registry` (pulled), `bootstrap` (a Debian base), `build` (a Dockerfile), `archive`
            or `none`.
        base: name of the declared image it stands on, or None.
        options: what the way of obtaining it needs (suite; or dockerfile, context, args, target).
    """

    reference: str | None
    kind: str
    base: str | None
    options: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a host has and what it still needs.

    Attributes:
        references: name -> reference of every wanted image; an empty text for one that can be had in no way.
        missing: the images to obtain, bases first, each as the fields of `Image` and its name.
        left_out: names of the images that can be had in no way.
        decided: the way they are obtained, or None when the registry has to be asked first.
    """

    references: dict[str, str]
    missing: list[dict[str, Any]]
    left_out: list[str]
    decided: str | None


def context_files(root: Path, exclude: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Every file of a build context as (name in the archive, path), sorted by name."""
    excluded = [Path(entry).parts for entry in exclude]
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        is_junk = any(part in JUNK or part.endswith((".egg-info", ".pyc")) for part in parts)
        is_excluded = any(parts[: len(entry)] == entry for entry in excluded)
        if path.is_file() and not is_junk and not is_excluded:
            yield "/".join(parts), path


@functools.cache
def pack(root: Path, dockerfile: Path, exclude: tuple[str, ...]) -> bytes:
    """The context as a tar archive that is the same for the same content, wherever and whenever it is made.

    Owners, times and all of the mode but the executable bit are fixed. The Dockerfile is added as `Dockerfile`.
    """
    files = dict(context_files(root, exclude))
    files["Dockerfile"] = dockerfile
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def digest(*parts: bytes) -> str:
    """The first characters of the SHA-256 over the parts, each prefixed by its length."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:DIGEST_LENGTH]


def plan(
    declared: Mapping[str, Mapping[str, Any]],
    project: Path,
    serial: str,
    images_from: str,
    wanted: Sequence[str],
    present: Collection[str],
    archived: Mapping[str, str] | None = None,
) -> Plan:
    """Which reference every wanted image has, and which of them (and of their bases) have to be obtained.

    Args:
        declared: as for `resolve`.
        project: as for `resolve`.
        serial: as for `resolve`.
        images_from: `registry`, `build`, `archive` or `auto`.
        wanted: names of the images this host needs; empty for all that are not only bases of others.
        present: references of the images that are on the host.
        archived: name -> reference of the images in the archive; required for `archive`.

    Raises:
        ContextError: an unknown name, or an archive made from other sources than these.
    """
    ways = {way: resolve(declared, project, way == "registry", serial) for way in ("registry", "build")}
    bases = {image.base for image in ways["build"].values() if image.base}
    for name in wanted:
        if name not in declared:
            raise ContextError(f"images_wanted: {name!r} is not declared; declared are {sorted(declared)}")
    names = list(wanted) or [name for name in declared if name not in bases]

    # what cannot be made here may have been brought to the host
    brought = {
        n: image
        for n, image in ways["registry"].items()
        if not ways["build"][n].reference and image.reference in present
    }
    if images_from == "archive":
        there = {n: str(image.reference) for n, image in brought.items()}
        return _plan_archive(ways, names, present, {**there, **(archived or {})})
    if images_from == "auto":
        # The images that can be had both ways tell which way this host went before; it stays with that.
        public = [n for n in names if ways["registry"][n].kind == "registry" and ways["build"][n].kind == "build"]
        before = [way for way, images in ways.items() if all(images[n].reference in present for n in public)]
        if not before:
            return Plan({}, [], [], None)
        images_from = before[0]

    images = {**ways[images_from], **brought}
    missing = [n for n in names if images[n].reference and images[n].reference not in present]
    needed = dict.fromkeys(images[n].base for n in missing if images[n].base)
    missing = [n for n in needed if n and images[n].reference not in present] + missing
    return Plan(
        {n: images[n].reference or "" for n in names},
        [{"name": n, **asdict(images[n])} for n in missing],
        [n for n in names if not images[n].reference],
        images_from,
    )


def _plan_archive(
    ways: Mapping[str, Mapping[str, Image]], names: Sequence[str], present: Collection[str], archived: Mapping[str, str]
) -> Plan:
    for name in names:
        fitting = {images[name].reference for images in ways.values()} - {None}
        if fitting and name in archived and archived[name] not in fitting:
            raise ContextError(
                f"the archive's {name} is {archived[name]}, these sources make {sorted(map(str, fitting))}: "
                "save the archive anew from this checkout with playbooks/bundle.yml"
            )
    missing = [n for n in names if n in archived and archived[n] not in present]
    return Plan(
        {n: archived.get(n, "") for n in names},
        [{"name": n, "reference": archived[n], "kind": "archive", "base": None, "options": {}} for n in missing],
        [n for n in names if n not in archived],
        "archive",
    )


def resolve(
    declared: Mapping[str, Mapping[str, Any]], project: Path, from_registry: bool, serial: str
) -> dict[str, Image]:
    """The reference of every declared image, bases first.

    Args:
        declared: name -> `registry` (a reference) and/or `build` (suite, or context, dockerfile, base, tag, args,
            target).
        project: the folder that the declared paths are relative to.
        from_registry: take the `registry` reference where there is one.
        serial: a text that goes into every built image's digest; a new one makes all of them anew.

    Raises:
        ContextError: a missing folder, Dockerfile or base, or bases that form a loop.
    """
    resolved: dict[str, Image] = {}

    def one(name: str, asked_by: tuple[str, ...]) -> Image:
        if name in resolved:
            return resolved[name]
        if name in asked_by:
            raise ContextError(f"image {name}: its bases form a loop ({' -> '.join([*asked_by, name])})")
        if name not in declared:
            raise ContextError(
                f"image {asked_by[-1]}: its base {name!r} is not declared; declared are {sorted(declared)}"
            )
        resolved[name] = _resolve_one(
            name, declared[name], project, from_registry, serial, lambda base: one(base, (*asked_by, name))
        )
        return resolved[name]

    for name in declared:
        one(name, ())
    return resolved


def _resolve_one(
    name: str,
    entry: Mapping[str, Any],
    project: Path,
    from_registry: bool,
    serial: str,
    base_of: Callable[[str], Image],
) -> Image:
    recipe = entry.get("build")
    if from_registry and entry.get("registry"):
        return Image(entry["registry"], "registry", None, {})
    if not recipe:
        return Image(None, "none", None, {})
    if "suite" in recipe:
        script = project / "files/images/debian/build.sh"
        mark = digest(script.read_bytes(), recipe["suite"].encode(), serial.encode())
        return Image(f"cariflex/debian:{recipe['suite']}-{mark}", "bootstrap", None, {"suite": recipe["suite"]})

    context = project / recipe["context"]
    dockerfile = project / recipe.get("dockerfile", f"{recipe['context']}/Dockerfile")
    for path in (context, dockerfile):
        if not path.exists():
            raise ContextError(f"image {name}: {path} does not exist; correct versions_images.{name}.build")
    base = base_of(recipe["base"])
    args = {**recipe.get("args", {}), "BASE": base.reference}
    target = recipe.get("target")
    exclude = tuple(recipe.get("exclude", []))
    settings = json.dumps([args, target, serial], sort_keys=True).encode()
    mark = digest(pack(context, dockerfile, exclude), settings)
    # our own services carry the documented image name; a rebuilt public image must not be taken for the public one
    repository = f"cariflex/{name}" if entry.get("registry") else name
    tag = f"{recipe['tag']}-{mark}" if "tag" in recipe else mark
    options = {
        "context": str(context),
        "dockerfile": str(dockerfile),
        "exclude": exclude,
        "args": args,
        "target": target,
    }
    return Image(f"{repository}:{tag}", "build", recipe["base"], options)
