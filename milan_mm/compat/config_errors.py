# SPDX-License-Identifier: Apache-2.0
"""mmengine lists the whole ``sys.path`` in the error of a ``custom_imports`` that fails.

The line grows with the machine's paths and says neither which module is missing nor why, although
the error's cause does. To be deleted once mmengine's message is a sentence.
"""


def sentence_of(error: BaseException) -> str:
    """What went wrong in reading a config, on one line."""
    words = ' '.join(str(error).split())
    told, listed, _ = words.partition(', the current sys.path is:')
    if not listed:
        return words
    return (f'{told}: {error.__cause__}. Install the package, or add the folder that holds it to '
            'PYTHONPATH')
