# SPDX-License-Identifier: Apache-2.0
"""Where ``milan`` and the files of ``tools/`` start.

It lies beside the package because whatever lies in it begins with ``import milan_mm``, which
registers all components and takes seconds. While ``starting`` is set, milan_mm leaves that until a
command is run (see ``milan_mm/__init__.py``), so that help and errors of spelling come at once.
"""
from collections.abc import Sequence

starting = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit code.

    Args:
        arguments: the command and its options; None for those of this process.
    """
    global starting
    starting = True
    from milan_mm.cli.main import main
    return main(arguments)
