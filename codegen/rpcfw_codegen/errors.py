"""What the generator says when it cannot go on: one exception, whose message names the value and how to mend it."""

from __future__ import annotations


class CodegenError(Exception):
    """Nothing was written: a target that cannot be read, a name that cannot be imported, a file that is not ours."""
