"""Checks of a host for common faults, for `doctor` and `bugreport`.

`gather.py` collects the facts. Each check is a plain function over them, and `repairs.py` decides from them
what may be mended.
"""
