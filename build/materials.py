"""The contents of the archive: a bill of materials (CycloneDX) with hashes, and the texts of the licences."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ \\]+)((?:\s*\\?\s*--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_TEXTS = ("licen", "copying", "notice", "authors")
_SPDX = re.compile(r"\(*[A-Za-z0-9.+-]+\)*(?: (?:AND|OR|WITH) \(*[A-Za-z0-9.+-]+\)*)*")
_RULE = "=" * 80
_OWN_LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Material:
    """One library in the archive: by the hashes of its wheels, or file by file where a part is packed."""

    name: str
    version: str
    licence: str
    texts: Mapping[str, str] = field(repr=False)
    ecosystem: str = "pypi"
    wheels: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def purl(self) -> str:
        """The name of the library among all packages."""
        return f"pkg:{self.ecosystem}/{self.name}@{self.version}"


def libraries(site: Path, report: Mapping[str, Any], requirements: str) -> list[Material]:
    """Return what the installer put into a folder. `SystemExit` unless each wheel is one that is pinned."""
    wheels = _wheels(report)
    pins = _pins(requirements)
    found = sorted(
        (_material(importlib.metadata.PathDistribution(path), path) for path in site.glob("*.dist-info")),
        key=lambda material: material.name,
    )
    if {material.name for material in found} != pins.keys():
        raise SystemExit("build/pyz: error: what was installed is not what is pinned")
    made = []
    for material in found:
        version, hashes = pins[material.name]
        sha256 = wheels.get(material.name)
        if material.version != version or sha256 is None or sha256 not in hashes:
            raise SystemExit(f"build/pyz: error: the wheel of {material.name} is not one that is pinned")
        made.append(
            Material(material.name, material.version, material.licence, material.texts, wheels=(sha256,))
        )
    return made


def merged(found: Sequence[Sequence[Material]]) -> list[Material]:
    """Return the libraries of all targets, each once, with the hashes of all its wheels."""
    return [
        replace(same[0], wheels=tuple(sorted({sha256 for one in same for sha256 in one.wheels})))
        for same in zip(*found, strict=True)
    ]


def bootstrap(files: Mapping[str, bytes]) -> Material:
    """Return the library whose unpacking code stands in the archive."""
    distribution = importlib.metadata.distribution("shiv")
    folder = Path(str(distribution.locate_file(f"shiv-{distribution.version}.dist-info")))
    made = _material(distribution, folder)
    return Material(made.name, made.version, made.licence, made.texts, files=files)


def vendored(package: Path) -> list[Material]:
    """Return libraries of the consoles, which stand in the tree. `SystemExit` for one that was changed."""
    folder = package / "runtime" / "console"
    made = []
    for one in json.loads((folder / "vendored" / "vendored.json").read_text()):
        content = (folder / one["file"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != one["sha256"]:
            raise SystemExit(f"build/pyz: error: {one['file']} is not {one['name']} {one['version']}")
        texts = {name: (folder / "vendored" / name).read_text() for name in one["texts"]}
        files = {f"claudemesh/runtime/console/{one['file']}": content}
        made.append(Material(one["name"], one["version"], one["licence"], texts, "npm", files=files))
    return made


def bill_of_materials(materials: list[Material], version: str, checksum: str) -> str:
    """Return which libraries the archive of this checksum holds, as CycloneDX JSON."""
    own = {
        "type": "application",
        "bom-ref": f"pkg:generic/claudemesh@{version}",
        "name": "claudemesh",
        "version": version,
        "licenses": [_licensed(_OWN_LICENCE)],
        "hashes": [_hashed(checksum)],
    }
    sbom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Made of the content: the same archive has the same bill.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'claudemesh.pyz#{checksum}')}",
        "version": 1,
        "metadata": {"component": own},
        "components": [_component(material) for material in materials],
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [material.purl for material in materials]}],
    }
    return json.dumps(sbom, indent=1, sort_keys=True) + "\n"


def licence_list(materials: list[Material], version: str) -> str:
    """Return the name, version and licence of everything in the archive, and the texts of the licences."""
    rows = [("claudemesh", version, _OWN_LICENCE)]
    rows += [(material.name, material.version, material.licence) for material in materials]
    widths = [max(len(row[at]) for row in rows) for at in (0, 1)]
    lines = ["Licences of what claudemesh.pyz holds. Its own text is in the file LICENSE.", ""]
    lines += [f"{name:<{widths[0]}}  {number:<{widths[1]}}  {licence}" for name, number, licence in rows]
    for material in materials:
        for name, text in sorted(material.texts.items()):
            lines += ["", _RULE, f"{material.name} {material.version}: {name}", _RULE, "", text.strip()]
    return "\n".join(lines) + "\n"


def _wheels(report: Mapping[str, Any]) -> dict[str, str]:
    return {
        _normal(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in report["install"]
    }


def _pins(requirements: str) -> dict[str, tuple[str, frozenset[str]]]:
    return {
        _normal(match[1]): (match[2], frozenset(_HASH.findall(match[3])))
        for match in _PIN.finditer(requirements)
    }


def _material(distribution: importlib.metadata.Distribution, folder: Path) -> Material:
    name = _normal(distribution.metadata["Name"])
    return Material(name, distribution.version, _licence(distribution, name), dict(_texts(folder)))


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.lower().startswith(_TEXTS):
            yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8", errors="replace")


def _licence(distribution: importlib.metadata.Distribution, name: str) -> str:
    metadata = distribution.metadata.json
    classifiers = metadata.get("classifier", [])
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI")]
    stated = metadata.get("license_expression") or " / ".join(named) or metadata.get("license")
    if not stated:
        raise SystemExit(f"build/pyz: error: {name} does not say under which licence it is")
    return str(stated).partition("\n")[0]


def _component(material: Material) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": material.purl,
        "name": material.name,
        "version": material.version,
        "purl": material.purl,
        "licenses": [_licensed(material.licence)],
    }
    if material.wheels:
        component["hashes"] = [_hashed(sha256) for sha256 in material.wheels]
    if material.files:
        component["components"] = [
            {"type": "file", "name": name, "hashes": [_hashed(hashlib.sha256(data).hexdigest())]}
            for name, data in sorted(material.files.items())
        ]
    return component


def _licensed(licence: str) -> dict[str, Any]:
    return {"expression": licence} if _SPDX.fullmatch(licence) else {"license": {"name": licence}}


def _hashed(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
