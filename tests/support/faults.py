"""A disk that fails on demand: a preloaded library makes writes to chosen files fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

# The switch is a file that holds an errno and a part of a path, such as "5 inbox.db". Without it all is well.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(int fd) {
    const char *place = getenv("CM_TEST_FAULT");
    if (!place) return 0;
    FILE *file = fopen(place, "re");
    if (!file) return 0;
    int number = 0;
    char part[256] = "", link[64], path[4096];
    int found = fscanf(file, "%d %255s", &number, part);
    fclose(file);
    if (found != 2) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strstr(path, part) ? number : 0;
}

#define FAULT(fd) do { int number = fails(fd); if (number) { errno = number; return -1; } } while (0)
#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    FAULT(fd);
    return next(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    FAULT(fd);
    return next(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    FAULT(fd);
    return next(fd, data, size);
}
int fsync(int fd) {
    NEXT(fsync);
    FAULT(fd);
    return next(fd);
}
int fdatasync(int fd) {
    NEXT(fdatasync);
    FAULT(fd);
    return next(fd);
}
"""


class FaultyDisk:
    """The library and its switch. Processes need `environment` at their start."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "faults.so"
        self._switch = folder / "fault"
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.fail("a C compiler is needed: install gcc")
        source = folder / "faults.c"
        source.write_text(_SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"], check=True
        )

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment that a process needs for the switch."""
        return {"LD_PRELOAD": str(self._library), "CM_TEST_FAULT": str(self._switch)}

    def fail(self, number: int, part: str) -> None:
        """From now on writes and syncs of files with this part in their path fail with this errno."""
        new = self._switch.with_suffix(".new")
        new.write_text(f"{number} {part}")
        new.rename(self._switch)

    def heal(self) -> None:
        """All is well again."""
        self._switch.unlink(missing_ok=True)
