"""The SDKs as files that programs copy: one file a language, and the same shape in each.

Python has `claudemesh/sdk.py`, which `from claudemesh import Daemon` imports too. The other files are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Sdk:
    """The file of one language: the folder of the package that holds it, its name there, and its name as a
    copy."""

    package: str
    file: str
    copy: str

    def source(self) -> bytes:
        """Return the content of the file."""
        return files(self.package).joinpath(self.file).read_bytes()


SDKS: Mapping[str, Sdk] = {
    "python": Sdk("claudemesh", "sdk.py", "claudemesh_sdk.py"),
    "typescript": Sdk("claudemesh.sdks", "typescript/claudemesh.ts", "claudemesh.ts"),
    # TypeScript's, without the types.
    "javascript": Sdk("claudemesh.sdks", "typescript/claudemesh.js", "claudemesh.mjs"),
    "go": Sdk("claudemesh.sdks", "go/claudemesh.go", "claudemesh.go"),
}
