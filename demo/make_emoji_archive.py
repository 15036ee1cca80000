#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Make ``demo/emoji.zip`` from the two npm packages it is taken from.

The packages are ``emoji-datasource-twitter`` and ``emoji-datasource-google`` (same version of both), e.g. from
``npm pack emoji-datasource-twitter@16.0.0``; give the ``.tgz`` files or the unpacked folders::

    python demo/make_emoji_archive.py emoji-datasource-twitter-16.0.0.tgz emoji-datasource-google-16.0.0.tgz

The archive holds, for the base pictures (no skin-tone variants):

* ``index.json``: one entry a picture, in the order of the cells of the sheets,
* ``twitter.webp``, ``google.webp``: all 64 px pictures of a style as one lossless RGBA sheet. One sheet compresses to 8 MB
  where the PNG files take 10.4 MB, and decodes in a tenth of a second. Every visible pixel equals the package's (the
  colour under alpha 0 is dropped); the script reads its own output back and compares,
* the licence of the table and the attribution of the artwork, so that they travel with the pictures.

The same packages and the same Pillow give the same bytes: entries are sorted, dates are fixed.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

STYLES = ('twitter', 'google')
CELL = 64
COLUMNS = 44
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def open_package(source: Path) -> Callable[[str], bytes]:
    """A function that returns the bytes of a file inside an npm package (folder or ``.tgz``)."""
    if source.is_dir():
        root = source / 'package' if (source / 'package').is_dir() else source
        return lambda name: (root / name).read_bytes()
    if not source.is_file():
        raise SystemExit(f'{source}: no such folder or .tgz; get it with `npm pack emoji-datasource-<style>`')
    with tarfile.open(source) as archive:
        files = {
            member.name.removeprefix('package/'): archive.extractfile(member).read()
            for member in archive.getmembers()
            if member.isfile() and ('/64/' in member.name or '/img/' not in member.name)
        }
    return files.__getitem__


def make_index(table: list[dict]) -> list[dict]:
    """The entries of the archive's index, in Unicode's order (like things stand side by side, which also compresses)."""
    keep = ('name', 'short_name', 'short_names', 'category', 'subcategory', 'unified')
    table = sorted(table, key=lambda entry: (entry['sort_order'], entry['unified']))
    missing = [e['short_name'] for e in table if not all(e[f'has_img_{style}'] for style in STYLES)]
    if missing:
        raise SystemExit(f'{len(missing)} pictures are missing in one of the styles, e.g. {missing[:5]}')
    return [
        {'cell': cell, **{key: entry[key] for key in keep}, 'image': entry['image']} for cell, entry in enumerate(table)
    ]


def make_sheet(read: Callable[[str], bytes], style: str, index: list[dict]) -> bytes:
    """All pictures of a style as one lossless WebP sheet, read back and compared with the originals."""
    rows = -(-len(index) // COLUMNS)
    sheet = np.zeros((rows * CELL, COLUMNS * CELL, 4), np.uint8)
    for entry in index:
        picture = Image.open(io.BytesIO(read(f'img/{style}/64/{entry["image"]}'))).convert('RGBA')
        if picture.size != (CELL, CELL):
            raise SystemExit(f'{style} {entry["image"]}: {picture.size} pixels, {CELL} x {CELL} expected')
        row, column = divmod(entry['cell'], COLUMNS)
        sheet[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = np.asarray(picture)
    sheet[sheet[..., 3] == 0] = 0
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, 'WEBP', lossless=True, quality=100, method=4)
    back = np.array(Image.open(io.BytesIO(buffer.getvalue())).convert('RGBA'))
    back[back[..., 3] == 0] = 0
    if not np.array_equal(back, sheet):
        raise SystemExit(f'{style}: this Pillow did not store the sheet losslessly')
    return buffer.getvalue()


def main() -> None:
    """Command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('twitter', type=Path, help='package emoji-datasource-twitter: folder or .tgz')
    parser.add_argument('google', type=Path, help='package emoji-datasource-google: folder or .tgz')
    parser.add_argument('--out', type=Path, default=here / 'emoji.zip')
    args = parser.parse_args()

    packages = {style: open_package(getattr(args, style)) for style in STYLES}
    tables = {style: json.loads(read('emoji.json')) for style, read in packages.items()}
    if tables['twitter'] != tables['google']:
        raise SystemExit('the two packages hold different emoji tables: take the same version of both')
    versions = {style: json.loads(read('package.json'))['version'] for style, read in packages.items()}
    index = make_index(tables['twitter'])
    head = {'cell_size': CELL, 'columns': COLUMNS, 'styles': list(STYLES), 'package_versions': versions}
    entries = {
        'ATTRIBUTION.md': (here / 'ATTRIBUTION.md').read_bytes(),
        'LICENSE-emoji-data.txt': packages['twitter']('LICENSE'),
        'index.json': json.dumps({**head, 'emoji': index}, ensure_ascii=False, indent=0).encode(),
        **{f'{style}.webp': make_sheet(read, style, index) for style, read in packages.items()},
    }
    with zipfile.ZipFile(args.out, 'w') as archive:
        for name, data in sorted(entries.items()):
            info = zipfile.ZipInfo(name, FIXED_DATE)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_STORED if name.endswith('.webp') else zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=9)
    print(f'{args.out}: {len(index)} pictures in {len(STYLES)} styles, {args.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
