# SPDX-License-Identifier: Apache-2.0
"""Text files as other programs write them: with byte-order marks, in UTF-8 or UTF-16."""
import codecs
import json
from pathlib import Path
from typing import Any

from ...errors import MilanError

# UTF-32's little-endian mark begins like UTF-16's, and so comes first.
_MARKS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF32_LE, 'utf-32'),
          (codecs.BOM_UTF32_BE, 'utf-32'), (codecs.BOM_UTF16_LE, 'utf-16'),
          (codecs.BOM_UTF16_BE, 'utf-16'))


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file, and its encoding.

    Raises:
        OSError: if it cannot be read.
        MilanError: if it is in another encoding than UTF-8, UTF-16 and UTF-32.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), 'utf-8')
    if encoding == 'utf-8' and 0 in data[:2]:  # UTF-16 without a mark
        encoding = 'utf-16-be' if data[0] == 0 else 'utf-16-le'
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        raise MilanError(f'{path} is not in UTF-8: byte {error.start} is '
                         f'0x{data[error.start]:02x}. Save it as UTF-8') from error


def read_names(path: Path) -> list[str]:
    """One name a line; a blank line between two keeps its number, those at the end are nobody's.

    Raises:
        MilanError: if the file is missing or in another encoding.
    """
    if not path.is_file():
        raise MilanError(f'{path} is missing: write one class a line, in the order of the label '
                         'maps\' values from 0')
    return [line.strip() for line in read_text(path)[0].rstrip().splitlines()]


def read_coco(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a COCO file, and its encoding.

    Raises:
        MilanError: if it is missing, no JSON, or lacks one of COCO's lists.
    """
    try:
        text, encoding = read_text(path)
        content = json.loads(text)
    except OSError as error:
        raise MilanError(f'no such annotation file: {path}. Give another place with --data-root '
                         'DIR, or other names with --cfg-options') from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, MilanError):
            raise
        raise MilanError(f'{path} is no COCO file ({type(error).__name__}: {error}); expected JSON '
                         'with images, annotations and categories') from error
    lists = content if isinstance(content, dict) else {}
    lacking = [name for name in ('images', 'annotations', 'categories')
               if not isinstance(lists.get(name), list)]
    if lacking:
        raise MilanError(f'{path} is no COCO file: it has no list of {" and ".join(lacking)}; '
                         'expected JSON with images, annotations and categories')
    return content, encoding
