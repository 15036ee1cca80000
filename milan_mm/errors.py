# SPDX-License-Identifier: Apache-2.0
"""The one kind of error that is the user's to mend, and the images among it."""


class MilanError(ValueError):
    """Bad input: a file, a folder, a size or an option that cannot work.

    The message says what was given, what was expected and how to mend it. The command line tools
    print it alone, without a traceback, and exit with 2. It takes one string, because the
    registries of mmengine re-raise an error of a constructor as ``type(error)(message)``.
    """


class UnreadableImageError(MilanError):
    """A file that cannot be decoded, or not to what was meant; the message names it."""
