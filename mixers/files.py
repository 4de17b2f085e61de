"""Writing files so that nobody ever sees half of one."""

import contextlib
import os
import pathlib
import uuid


@contextlib.contextmanager
def replacing(path):
    """Give a temporary name beside `path`; after the block the file of that name takes its place at once.

    If the block fails, `path` stays what it was.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays: writers choose the format by it
    partial = path.with_name(f"{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
