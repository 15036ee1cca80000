# SPDX-License-Identifier: Apache-2.0
"""Makes demo/styles.zip: four more drawing styles of what demo/emoji.zip holds, and keywords.

The teacher that comes with the package is trained on them, too (demo/train_teacher.py). Give the
files that `npm pack PACKAGE@VERSION` writes, of the packages that `PACKAGES` below names:

  pip install resvg-py==0.5.0
  python demo/make_style_archive.py *.tgz

The archive holds

  index.json       style -> cells of emoji.zip's index that it draws, in the order of its sheet;
                   cell -> Unicode's (CLDR's) English keywords
  <style>.webp     its drawings, 64 px each, side by side, with alpha; near-lossless
  LICENSE-*, ATTRIBUTION-styles.md

A drawing is found by its code points, where the package lists them, else by its Unicode or CLDR
name. What is not found is left out.
"""
import argparse
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from make_emoji_archive import CELL, COLUMNS, HERE, write_archive
from PIL import Image

PACKAGES = {
    'emojione': '@iconify-json/emojione@1.2.3',
    'noto-v1': '@iconify-json/noto-v1@1.2.5',
    'fluent-emoji-flat': '@iconify-json/fluent-emoji-flat@1.2.6',
    'fxemoji': '@iconify-json/fxemoji@1.2.2',
    'cldr': 'cldr-annotations-full@48.2.0',
}
_ANNOTATIONS = 'annotations/en/annotations.json'


def read_package(paths: list[Path], spec: str) -> dict[str, bytes]:
    """The JSON files and the licence of a package, by their names in it."""
    name, version = spec.rsplit('@', 1)
    wanted = f'{name.replace("@", "").replace("/", "-")}-{version}.tgz'
    found = next((path for path in paths if path.name == wanted), None)
    if found is None:
        sys.exit(f'error: {wanted} is missing; `npm pack {spec}` downloads it')
    names = ('icons.json', 'chars.json', _ANNOTATIONS, 'LICENSE')
    with tarfile.open(found) as archive:
        return {m.name.partition('/')[2]: archive.extractfile(m).read() for m in archive
                if m.name.partition('/')[2] in names}


def characters(unified: str) -> list[str]:
    """An entry's characters, with and without the variation selectors."""
    text = ''.join(chr(int(point, 16)) for point in unified.split('-'))
    return [text, text.replace('\ufe0f', '')]


def names_of(entry: dict, cldr: dict) -> Iterator[str]:
    """What a drawing may be called, as letters and figures without gaps."""
    told = [cldr[text]['tts'][0] for text in characters(entry['unified'])
            if 'tts' in cldr.get(text, {})]
    for name in (*told, entry['name'], entry['short_name']):
        yield re.sub('[^a-z0-9]', '', name.lower())


def find_icons(package: dict[str, bytes], emoji: list[dict], cldr: dict) -> dict[int, str]:
    """Cell -> the SVG of its drawing."""
    icons = json.loads(package['icons.json'])
    aliases = icons.get('aliases', {})

    def plain(points: str) -> str:
        return '-'.join(p for p in points.lower().split('-') if p != 'fe0f').lstrip('0')

    by_points = {plain(points): name for points, name in json.loads(package['chars.json']).items()}
    by_name = {name.replace('-', ''): name for name in [*icons['icons'], *aliases]}
    found: dict[int, str] = {}
    for entry in emoji:
        name = by_points.get(plain(entry['unified'])) if by_points else next(
            (by_name[key] for key in names_of(entry, cldr) if key in by_name), None)
        while name in aliases:
            name = aliases[name]['parent']
        if name in icons['icons']:
            icon = icons['icons'][name]
            left, top, width, height = (icon.get(key, icons.get(key, default)) for key, default in (
                ('left', 0), ('top', 0), ('width', 16), ('height', 16)))
            found[entry['cell']] = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
                f' viewBox="{left} {top} {width} {height}" width="{CELL}" height="{CELL}">'
                f'{icon["body"]}</svg>')
    return found


def make_sheet(drawings: list[str]) -> bytes:
    """All drawings of a style as one WebP."""
    import resvg_py  # a renderer of SVG; only who makes the archive needs it
    rows = -(-len(drawings) // COLUMNS)
    sheet = np.zeros((rows, COLUMNS, CELL, CELL, 4), np.uint8)
    for i, svg in enumerate(drawings):
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=CELL, height=CELL))
        with Image.open(io.BytesIO(png)) as image:
            sheet[divmod(i, COLUMNS)] = np.asarray(image.convert('RGBA'))
    sheet[sheet[..., 3] == 0] = 0
    sheet = sheet.swapaxes(1, 2).reshape(rows * CELL, COLUMNS * CELL, 4)
    written = io.BytesIO()
    Image.fromarray(sheet).save(written, 'WEBP', quality=90, alpha_quality=90, method=6)
    return written.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('packages', nargs='+', type=Path, help='the .tgz files')
    parser.add_argument('--out', type=Path, default=HERE / 'styles.zip')
    args = parser.parse_args()
    with zipfile.ZipFile(HERE / 'emoji.zip') as archive:
        emoji = json.loads(archive.read('index.json'))['emoji']
    packages = {name: read_package(args.packages, spec) for name, spec in PACKAGES.items()}
    cldr_package = packages.pop('cldr')
    cldr = json.loads(cldr_package[_ANNOTATIONS])['annotations']['annotations']
    index = dict(cell_size=CELL, columns=COLUMNS, packages=PACKAGES, styles={}, keywords={})
    entries = {}
    for style, package in packages.items():
        found = find_icons(package, emoji, cldr)
        index['styles'][style] = list(found)
        entries[f'{style}.webp'] = make_sheet(list(found.values()))
    for entry in emoji:
        words = next((cldr[text]['default'] for text in characters(entry['unified'])
                      if 'default' in cldr.get(text, {})), None)
        if words:
            index['keywords'][entry['cell']] = [word.lower() for word in words]
    entries['index.json'] = json.dumps(index, indent=0, ensure_ascii=False).encode()
    entries['LICENSE-Unicode-3.0.txt'] = cldr_package['LICENSE']
    entries['ATTRIBUTION-styles.md'] = (HERE / 'ATTRIBUTION-styles.md').read_bytes()
    write_archive(args.out, entries)
    counts = ', '.join(f'{len(cells)} of {style}' for style, cells in index['styles'].items())
    print(f'{args.out}: {counts}; keywords of {len(index["keywords"])}; '
          f'{args.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
