"""The archive's `__main__.py`: runs the launcher, unless this Python is too old to read it.

It is Python 2 and 3 at once, so that every Python prints the sentence. The build fills in the text between
@ signs.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    try:
        sys.stderr.write(
            "claudemesh: error: This file runs on @COVERED@, and this is Python %d.%d. "
            "Start it with one of these: @PYTHON@ %s\n"
            % (sys.version_info[0], sys.version_info[1], sys.argv[0])
        )
    except (AttributeError, IOError):  # noqa: UP024 - it is closed, which Python 2 tells by the second one
        sys.exit(78)
    sys.exit(78)

import claudemesh_launcher  # type: ignore[import-not-found]

sys.exit(claudemesh_launcher.main())
