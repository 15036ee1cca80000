# SPDX-License-Identifier: Apache-2.0
"""Makes demo/emoji.zip from the two npm packages whose drawings it holds.

They are emoji-datasource-twitter and emoji-datasource-google, the same version of both. Give the
files that `npm pack emoji-datasource-twitter@16.0.0` and its like write, or unpacked folders:

  python demo/make_emoji_archive.py emoji-datasource-twitter-*.tgz emoji-datasource-google-*.tgz

The archive holds the base images, without skin-tone variants:

  index.json                  an entry an image, in the order of the sheets' cells
  twitter.webp, google.webp   all 64 px images of a style on one lossless RGBA sheet: 8 MB,
                              where single PNG files take 10.4 MB, and decoded in 0.1 s
  ATTRIBUTION.md, LICENSE-*   so that they travel with the images

Every visible pixel is the package's (the colour under alpha 0 is dropped); what was written is
read back and compared. The same packages and the same Pillow give the same bytes.
"""
import argparse
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

STYLES = ('twitter', 'google')
CELL = 64
COLUMNS = 44
DATE = (1980, 1, 1, 0, 0, 0)
HERE = Path(__file__).resolve().parent


def open_package(source: Path) -> Callable[[str], bytes]:
    """A function that gives the bytes of a file of an npm package, a folder or a .tgz."""
    if source.is_dir():
        root = source / 'package' if (source / 'package').is_dir() else source
        return lambda name: (root / name).read_bytes()
    if not source.is_file():
        sys.exit(f'error: no such folder or .tgz: {source}; `npm pack emoji-datasource-<style>` '
                 'downloads it')
    with tarfile.open(source) as archive:
        wanted = [m for m in archive.getmembers()
                  if m.isfile() and ('/64/' in m.name or '/img/' not in m.name)]
        files = {m.name.removeprefix('package/'): archive.extractfile(m).read() for m in wanted}
    return files.__getitem__


def make_index(table: list[dict]) -> list[dict]:
    """The index's entries in Unicode's order: like things side by side, which compresses best."""
    keep = ('name', 'short_name', 'short_names', 'category', 'subcategory', 'unified', 'image')
    table = sorted(table, key=lambda entry: (entry['sort_order'], entry['unified']))
    missing = [e['name'] for e in table if not all(e[f'has_img_{style}'] for style in STYLES)]
    if missing:
        sys.exit(f'error: {len(missing)} images are missing in one of the styles, such as '
                 f'{missing[0]}; an image of another style must not take their place')
    return [dict(cell=i, **{key: entry[key] for key in keep}) for i, entry in enumerate(table)]


def make_sheet(read: Callable[[str], bytes], style: str, index: list[dict]) -> bytes:
    """All images of a style as one lossless WebP, read back and compared."""
    rows = -(-len(index) // COLUMNS)
    sheet = np.zeros((rows, COLUMNS, CELL, CELL, 4), np.uint8)
    for entry in index:
        with Image.open(io.BytesIO(read(f'img/{style}/64/{entry["image"]}'))) as image:
            if image.size != (CELL, CELL):
                sys.exit(f'error: {style} {entry["image"]} has {image.size} pixels, expected '
                         f'{CELL} x {CELL}')
            sheet[divmod(entry['cell'], COLUMNS)] = np.asarray(image.convert('RGBA'))
    sheet[sheet[..., 3] == 0] = 0
    sheet = sheet.swapaxes(1, 2).reshape(rows * CELL, COLUMNS * CELL, 4)
    written = io.BytesIO()
    Image.fromarray(sheet).save(written, 'WEBP', lossless=True, quality=100, method=4)
    back = np.array(Image.open(io.BytesIO(written.getvalue())).convert('RGBA'))
    back[back[..., 3] == 0] = 0
    if not np.array_equal(back, sheet):
        sys.exit(f'error: the sheet of {style} was not stored losslessly by this Pillow')
    return written.getvalue()


def write_archive(path: Path, entries: dict[str, bytes]) -> None:
    """A zip file whose bytes depend on nothing but the entries."""
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in sorted(entries.items()):
            info = zipfile.ZipInfo(name, DATE)
            info.external_attr = 0o644 << 16
            packed = name.endswith('.webp')
            info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=None if packed else 9)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for style in STYLES:
        parser.add_argument(style, type=Path, help=f'emoji-datasource-{style}: .tgz or folder')
    parser.add_argument('--out', type=Path, default=HERE / 'emoji.zip')
    args = parser.parse_args()
    packages = {style: open_package(getattr(args, style)) for style in STYLES}
    tables = [json.loads(read('emoji.json')) for read in packages.values()]
    if tables[0] != tables[1]:
        sys.exit('error: the two packages hold different tables; take the same version of both')
    index = make_index(tables[0])
    head = dict(
        cell_size=CELL, columns=COLUMNS, styles=STYLES,
        package_versions={f'emoji-datasource-{style}': json.loads(read('package.json'))['version']
                          for style, read in packages.items()})
    entries = {f'{style}.webp': make_sheet(read, style, index) for style, read in packages.items()}
    entries['index.json'] = json.dumps(dict(head, emoji=index), indent=0).encode()
    entries['LICENSE-emoji-data.txt'] = packages[STYLES[0]]('LICENSE')
    entries['LICENSE-Apache-2.0.txt'] = (HERE.parent / 'LICENSE').read_bytes()
    entries['ATTRIBUTION.md'] = (HERE / 'ATTRIBUTION.md').read_bytes()
    write_archive(args.out, entries)
    print(f'{args.out}: {len(index)} images in {len(STYLES)} styles, '
          f'{args.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
