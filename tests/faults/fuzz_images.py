# SPDX-License-Identifier: Apache-2.0
"""Small images of every format, spoilt at random: each is decoded, or refused by one error.

    python tests/faults/fuzz_images.py [--count 2000] [--seed 0] [--keep DIR]

It is a fault if another error than UnreadableImageError comes out, if an image takes more than ten
seconds or too much memory, or if it comes out near black or white throughout, which its original
does not. The latter is counted apart where the first bytes of the file were changed, which say what
its values mean: an image without its palette is another image.
"""
import argparse
import io
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from milan_mm.datasets.decoding import MAX_PIXELS, SUFFIXES, composite, open_image  # noqa: E402
from milan_mm.errors import UnreadableImageError  # noqa: E402

SECONDS = 10
MEMORY = 20 * MAX_PIXELS
HEADER = 200  # bytes


def seeds() -> dict[str, bytes]:
    """An image of each format and mode, none of them near black or white."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(60, 200, (6, 8, 4), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((64, 48), Image.Resampling.BICUBIC)
    image.putalpha(image.getchannel('A').point(lambda value: 128 + value // 2))
    rgb, grey = image.convert('RGB'), image.convert('L')
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        'rgb.png': rgb, 'rgba.png': image, 'grey.png': grey, 'deep.png': deep,
        'palette.png': rgb.quantize(16), 'two.png': grey.convert('1'), 'turned.png': (rgb, exif),
        'rgb.jpg': rgb, 'grey.jpg': grey, 'cmyk.jpg': rgb.convert('CMYK'),
        'turned.jpg': (rgb, exif),
        'rgb.webp': rgb, 'rgba.webp': image, 'rgb.bmp': rgb, 'palette.bmp': rgb.quantize(16),
        'rgb.tif': rgb, 'deep.tif': deep, 'real.tif': real, 'cmyk.tif': rgb.convert('CMYK'),
        'palette.gif': rgb.quantize(16), 'grey.gif': grey}
    if '.avif' in SUFFIXES:
        kinds['rgb.avif'] = rgb
    files = {name: _saved(image, name) for name, image in kinds.items()}
    for name, how in (('lossless.webp', dict(lossless=True)), ('progressive.jpg', dict(
            progressive=True)), ('lzw.tif', dict(compression='tiff_lzw')),
            ('deflate.tif', dict(compression='tiff_deflate')),
            ('jpeg.tif', dict(compression='jpeg')), ('interlaced.gif', dict(interlace=1))):
        files[name] = _saved(rgb, name, **how)
    return files


def _saved(image: Image.Image | tuple, name: str, **how: object) -> bytes:
    if isinstance(image, tuple):
        image, how['exif'] = image
    kind = dict(jpg='jpeg', tif='tiff').get(name.split('.')[1], name.split('.')[1])
    image.save(out := io.BytesIO(), kind, **how)
    return out.getvalue()


def spoil(draw: random.Random, files: dict[str, bytes], name: str) -> tuple[bytes, str]:
    """A file, and what was done to it."""
    data, how = bytearray(files[name]), draw.choice(
        ['cut', 'flip', 'header', 'swap', 'zeros', 'numbers', 'insert', 'join'])
    if how == 'cut':
        del data[draw.randrange(len(data)):]
    elif how in ('flip', 'header'):
        end = len(data) if how == 'flip' else min(64, len(data))
        for _ in range(draw.choice([1, 1, 2, 5, 20])):
            data[draw.randrange(end)] ^= 1 << draw.randrange(8)
    elif how == 'swap':  # the beginning of another format
        other, length = files[draw.choice(list(files))], draw.choice([4, 8, 16, 32, 64])
        data[:length] = other[:length]
    elif how == 'zeros':
        start = draw.randrange(len(data))
        end = min(len(data), start + draw.choice([1, 4, 64, 512]))
        data[start:end] = bytes(end - start)
    elif how == 'numbers':  # sizes and offsets at their limits
        start = draw.randrange(max(1, min(200, len(data) - 4)))
        data[start:start + 4] = draw.choice([
            b'\xff' * 4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f', b'\0\0\0\1', b'\x80\0\0\0',
            b'\0\0\xff\xff', b'\0\1\0\0'])
    elif how == 'insert':
        start = draw.randrange(len(data))
        data[start:start] = draw.randbytes(draw.choice([1, 4, 100]))
    else:
        other = files[draw.choice(list(files))]
        data = data[:draw.randrange(len(data))] + other[draw.randrange(len(other)):]
    return bytes(data), how


_BY_HEADER = 'black or white by its header'


def is_flat(pixels: np.ndarray) -> bool:
    """Whether all values are near black, or all near white."""
    return bool(pixels.max() < 16 or pixels.min() > 239)


def decode(path: Path) -> tuple[str, np.ndarray | None]:
    """What became of a file: 'decoded', 'refused' or the fault."""
    signal.alarm(SECONDS)
    try:
        pixels = np.asarray(composite(open_image(path)))
    except UnreadableImageError as error:
        clear = path.name in str(error) and '\n' not in str(error)
        return 'refused' if clear else f'unclear: {error}', None
    except TimeoutError:
        return f'took more than {SECONDS} s', None
    except BaseException as error:
        return f'{type(error).__name__}: {error}', None
    finally:
        signal.alarm(0)
    return 'decoded', pixels


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _late(*args: object) -> None:
    raise TimeoutError


def fuzz(count: int, seed: int, keep: Path | None, log=print) -> Counter:
    """Spoils and decodes ``count`` images; gives how many came to what, by kind of fault."""
    before, previous = _peak(), signal.signal(signal.SIGALRM, _late)
    draw, files, counts = random.Random(seed), seeds(), Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name, data in files.items():
            path = Path(folder) / name
            path.write_bytes(data)
            what, pixels = decode(path)
            assert what == 'decoded' and not is_flat(pixels) or name == 'two.png', (name, what)
        for i in range(count):
            name = draw.choice(list(files))
            data, how = spoil(draw, files, name)
            path = Path(folder) / f'{i:05}_{how}_{name}'
            path.write_bytes(data)
            what, pixels = decode(path)
            if pixels is not None and is_flat(pixels):
                same = data[:HEADER] == files[name][:HEADER]
                what = 'black or white' if same else _BY_HEADER
            counts[what if what in ('decoded', 'refused', _BY_HEADER) else 'fault'] += 1
            if what not in ('decoded', 'refused'):
                log(f'{path.name}: {what}')
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / path.name).write_bytes(data)
            path.unlink()
    signal.signal(signal.SIGALRM, previous)
    more = _peak() - before
    counts['fault'] += more > MEMORY
    log(f'seed {seed}: {dict(counts)}, {more / 2**20:.0f} MB more memory at the peak')
    return counts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', type=Path, help='folder for the files that came to a fault')
    args = parser.parse_args()
    counts = fuzz(args.count, args.seed, args.keep)
    sys.exit(bool(counts['fault']))
