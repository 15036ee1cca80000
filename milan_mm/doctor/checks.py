# SPDX-License-Identifier: Apache-2.0
"""Whether training can start here, and what to do where it cannot.

Nothing but the standard library is imported at the top, and ``packages.py``, which does the same:
this has to load in an environment in which everything else is broken, milan_mm itself included.
"""
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..packages import FORKS, NEEDED, UPSTREAM, installed

OK, WARN, FAIL = 'ok', 'warn', 'FAIL'
SETUP = 'bash tools/setup_env.sh'
DOWNSTREAM = 'needed for detection and segmentation only'
HEADLESS = ('the build that needs no libGL: pip uninstall -y opencv-python opencv-python-headless '
            '&& pip install opencv-python-headless')
GIB = 2**30


class Check(NamedTuple):
    """One line of the report; ``remedy`` says how to mend what is not ``ok``."""
    name: str
    status: str
    detail: str
    remedy: str = ''


def run_checks(teacher: str | None = None, data: str | None = None,
               work_dir: str = 'work_dirs', task: str | None = None) -> Iterator[Check]:
    """All checks, each given out as soon as it is done.

    Args:
        teacher: file, folder or ``MODEL:TAG`` to load as teacher; None leaves it out.
        data: folder of images; None leaves it out.
        work_dir: where runs will be written.
        task: that ``data`` is annotated for, 'det', 'seg' or 'cls': all of it is looked through.
    """
    checks: list[tuple[Callable, tuple]] = [
        (check_python, ()), (check_packages, ()), (check_lineage, ()), (check_cv2, ()),
        (check_mm, ()), (check_mmcv_ops, ()), (check_plugin, ()), (check_device, ()),
        (check_memory, ()), (check_work_dir, (work_dir,)),
        *((check_input, given) for given in (
            ('teacher', teacher), ('annotations', data, task, work_dir) if task else
            ('data', data)) if given[1] is not None)]
    for check, args in checks:
        # What the packages print while they are imported would hide the report.
        with contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                found = list(check(*args))
            except Exception as error:  # a doctor must not faint
                name = check.__name__.removeprefix('check_')
                found = [Check(name, FAIL, f'the check broke off: {_say(error)}', SETUP)]
        yield from found


def check_python() -> Iterator[Check]:
    """The version of this Python."""
    version = '.'.join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        yield Check('python', OK, f'{version} ({sys.executable})')
    else:
        yield Check('python', FAIL, f'{version}; 3.10, 3.11 or 3.12 is needed',
                    f'{SETUP} --python /path/to/python3.11')


def check_packages() -> Iterator[Check]:
    """Imports what milan_mm itself needs, and holds the versions against its requirements."""
    good, missing, broken = _import_all([(name, name) for name in NEEDED])
    if missing:
        yield Check('packages', FAIL, f'not installed: {", ".join(missing)}', SETUP)
    for name, error in broken:
        remedy = SETUP
        if name == 'torchvision':
            remedy = ('install the torchvision made for torch '
                      f'{installed("torch")} (both from one index), or: {SETUP}')
        yield Check(name, FAIL, _say(error), remedy)
    if good:
        yield Check('packages', OK, ', '.join(good))
    for line in _outside_ranges():
        yield Check('versions', WARN, line, f'pip install "{line.split(" wanted: ")[1]}"')
    if 'torch' in sys.modules and 'numpy' in sys.modules:
        try:
            sys.modules['torch'].zeros(1).numpy()
        except Exception as error:
            yield Check('torch + numpy', FAIL, _say(error),
                        'this torch was built for an older numpy: pip install "numpy<2"')


def _import_all(modules: Sequence[tuple[str, str]]) -> tuple[list, list, list]:
    """Imports (name, module) pairs: names with versions, names missing, names with their error."""
    good, missing, broken = [], [], []
    for name, module in modules:
        if importlib.util.find_spec(name) is None:
            missing.append(name)
            continue
        try:
            importlib.import_module(module)
        except Exception as error:
            broken.append((name, error))
        else:
            version = getattr(sys.modules[name], '__version__', None) or installed(name)
            good.append(f'{name} {version or "(version unknown)"}')
    return good, missing, broken


def check_lineage() -> Iterator[Check]:
    """The forks and upstream share import names: one of them, not both."""
    forks = [f'{n} {v}' for n in FORKS if (v := installed(n))]
    upstream = [f'{n} {v}' for n in UPSTREAM if (v := installed(n))]
    if forks and upstream:
        yield Check(
            'lineage', FAIL, f'mixed: {", ".join(forks + upstream)}; they overwrite each other',
            f'a fresh environment: {SETUP} --stack onedl|openmmlab --venv NEW_DIR')
    elif not forks and not upstream:
        yield Check('lineage', FAIL, 'no OpenMMLab packages', f'{SETUP} --stack onedl|openmmlab')
    else:
        yield Check('lineage', OK, f'{"onedl" if forks else "openmmlab"}: '
                    f'{", ".join(forks or upstream)}')
    if upstream and not forks:
        yield from _check_upstream_limits()


def _check_upstream_limits() -> Iterator[Check]:
    remedy = f'{SETUP} --stack openmmlab --venv NEW_DIR, or --stack onedl'
    limits = (('torch', (2, 6), 'its torch.load refuses the checkpoints of mmengine'),
              ('numpy', (2,), 'mmcv and mmdet were built for numpy 1'))
    for name, limit, why in limits:
        version = installed(name)
        if version and _numbers(version) >= limit:
            yield Check('lineage', WARN, f'{name} {version} with upstream\'s last mm* releases: '
                        f'{why}; below {".".join(map(str, limit))} was tested', remedy)


def check_mm() -> Iterator[Check]:
    """Imports the mm* packages, whose own assertions tell which versions fit together."""
    needed = (('mmengine', 'mmengine'), ('mmcv', 'mmcv'), ('mmpretrain', 'mmpretrain.models'))
    later = (('mmdet', 'mmdet'), ('mmseg', 'mmseg'))
    good: list[str] = []
    for modules, status, purpose in ((needed, FAIL, ''), (later, WARN, f' ({DOWNSTREAM})')):
        found, missing, broken = _import_all(modules)
        good += found
        if missing:
            yield Check('mm packages', status, f'not installed: {", ".join(missing)}{purpose}',
                        f'{SETUP} --stack onedl|openmmlab')
        for name, error in broken:
            yield Check(name, status, _say(error) + purpose, _mm_remedy(name, error))
    if good:
        yield Check('mm packages', OK, f'import: {", ".join(good)}')


def _mm_remedy(name: str, error: Exception) -> str:
    text = str(error)
    if 'libGL' in text:
        return HEADLESS
    if 'pkg_resources' in text:
        return 'pip install "setuptools<80"'
    if 'importlib_metadata' in text:
        return 'pip install importlib_metadata'
    if isinstance(error, AssertionError):
        return ('these versions refuse each other; the ones that fit are in '
                f'requirements/onedl.txt and requirements/openmmlab.txt: {SETUP}')
    if name == 'mmpretrain' and (version := installed('transformers')):
        limit = '5' if installed('onedl-mmpretrain') else '4.50'
        if _numbers(version) >= _numbers(limit):
            return f'transformers {version} is too new for it: pip install "transformers<{limit}"'
    return SETUP


def check_cv2() -> Iterator[Check]:
    """Whether OpenCV imports; without libGL only its headless build does."""
    try:
        cv2 = importlib.import_module('cv2')
    except Exception as error:
        yield Check('cv2', FAIL, _say(error), HEADLESS)
    else:
        yield Check('cv2', OK, f'OpenCV {cv2.__version__}')


def check_mmcv_ops() -> Iterator[Check]:
    """Which of mmcv's compiled ops are there, and which milan_mm stands in for."""
    name, purpose = 'mmcv ops', DOWNSTREAM
    if 'mmcv' not in sys.modules:
        return  # said above
    try:
        importlib.import_module('milan_mm.public')  # which puts them there
        stand_ins = importlib.import_module('milan_mm.compat.mmcv_ops').stand_ins()
    except Exception:  # a milan_mm that does not import: said elsewhere
        stand_ins = ()
    if stand_ins:
        yield Check(name, OK, f'not compiled; torchvision stands in for: {", ".join(stand_ins)}')
    elif importlib.util.find_spec('mmcv._ext') is None:
        yield Check(name, WARN, f'not compiled; {purpose}', 'an mmcv with compiled ops, built for '
                    'this torch; pretraining, finetuning and evaluation do without')
    else:
        try:
            ops = [op for op in dir(importlib.import_module('mmcv._ext')) if op[0] != '_']
            yield Check(name, OK, f'compiled: {len(ops)} functions')
        except Exception as error:
            yield Check(name, WARN, f'compiled, and do not load ({purpose}): {_say(error)}',
                        'mmcv was built for another torch: rebuild it, or use mmcv-lite, whose '
                        'missing ops milan_mm stands in for')


def check_plugin() -> Iterator[Check]:
    """Whether milan_mm imports and its parts are registered."""
    try:
        milan_mm = importlib.import_module('milan_mm')
        importlib.import_module('milan_mm.public')
        from milan_mm.registry import MODELS
        found = MODELS.get('MILAN')
    except Exception as error:
        yield Check('milan_mm', FAIL, _say(error),
                    f'mend the lines above first; if all are ok: {SETUP}')
        return
    if found is None:
        yield Check('milan_mm', FAIL, 'imported, and MILAN is not in its registry',
                    f'is another milan_mm first on the path? Found: {milan_mm.__file__}')
    else:
        yield Check('milan_mm', OK, f'{milan_mm.__version__} ({Path(milan_mm.__path__[0])})')


def check_device() -> Iterator[Check]:
    """CPU cores and what PyTorch sees of GPUs."""
    cores = _cores()
    torch = sys.modules.get('torch')
    if torch is None or not hasattr(torch, 'cuda'):
        yield Check('device', WARN, f'{cores} CPU cores; GPUs unknown without torch', SETUP)
    elif torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield Check('device', OK, f'cuda:{index} {gpu.name}, {gpu.total_memory / GIB:.0f} GB; '
                        f'torch for CUDA {torch.version.cuda}, {cores} CPU cores')
    elif shutil.which('nvidia-smi') or os.path.exists('/dev/nvidia0'):
        yield Check('device', WARN, 'there is an NVIDIA GPU, and torch '
                    f'{torch.__version__} cannot use it; training would run on {cores} CPU cores',
                    'a driver as new as CUDA '
                    f'{torch.version.cuda}, or a torch built for the CUDA that nvidia-smi shows')
    else:
        yield Check('device', OK, f'no GPU: training runs on {cores} CPU cores')


def check_memory() -> Iterator[Check]:
    """How much memory this process may use."""
    total = _memory_limit()
    if total is None:
        yield Check('memory', WARN, 'size unknown on this system', 'ViT-B/16 takes 4 GB at batch 8')
    elif total < 4 * GIB:
        yield Check('memory', WARN, f'{total / GIB:.1f} GB', 'ViT-B/16 takes 4 GB at batch 8: '
                    'a smaller batch with accumulation, or ViT-S')
    else:
        yield Check('memory', OK, f'{total / GIB:.1f} GB')
    with contextlib.suppress(OSError):
        shared = shutil.disk_usage('/dev/shm').total
        if shared < GIB // 2:
            yield Check('shared memory', WARN, f'/dev/shm has {shared / 2**20:.0f} MB; loading '
                        'workers stop with a bus error when it is full',
                        'docker run --shm-size=8g, or num_workers=0')


def check_work_dir(work_dir: str) -> Iterator[Check]:
    """Writes into the folder, or into the nearest one above it that exists."""
    wanted = Path(work_dir).expanduser().absolute()
    folder = next(p for p in (wanted, *wanted.parents) if p.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix='.doctor_') as file:
            file.write(b'0')
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Check('work folder', FAIL, f'{wanted}: {_say(error)}',
                    'another one: --work-dir DIR, or its owner makes it writable')
        return
    status = FAIL if free < GIB // 4 else WARN if free < 5 * GIB else OK
    yield Check('work folder', status, f'{wanted}: writable, {free / GIB:.1f} GB free',
                '' if status == OK else 'a checkpoint of ViT-B with its optimizer takes 1.3 GB: '
                'make room, or --work-dir on another disk')


def check_input(name: str, given: str, *more: str) -> Iterator[Check]:
    """The teacher or the data, whose checks need a milan_mm that imports."""
    try:
        inputs = importlib.import_module('milan_mm.doctor.inputs')
        from milan_mm.errors import MilanError
    except Exception:
        yield Check(name, FAIL, f'{given}: not looked at, milan_mm does not import',
                    'mend the lines above first')
        return
    try:
        found = getattr(inputs, f'check_{name}')(given, *more)
        for part, detail, remedy in [(name, *found)] if isinstance(found, tuple) else found:
            yield Check(part, WARN if remedy else OK, detail, remedy)
    except MilanError as error:
        yield Check(name, FAIL, str(error), 'as the message says')


def _say(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ['no message']
    return f'{type(error).__name__}: {lines[0]}'


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split('+')[0].split('.')
    return tuple(int(part) for part in parts[:3] if part.isdigit())


def _outside_ranges() -> Iterator[str]:
    """'NAME VERSION, wanted: NAME<RANGE>' for each requirement of milan_mm that is not met."""
    try:
        from packaging.requirements import Requirement
        lines = importlib.metadata.requires('milan_mm') or []
    except (ImportError, importlib.metadata.PackageNotFoundError):
        return  # run from a tree that is not installed
    for requirement in map(Requirement, lines):
        version = installed(requirement.name)
        if requirement.marker is None and version and not requirement.specifier.contains(
                version, prereleases=True):
            yield f'{requirement.name} {version}, wanted: {requirement}'


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_limit() -> int | None:
    """Bytes of memory, the container's limit included; None where the system does not tell."""
    sizes = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
    for limit in ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'):
        with contextlib.suppress(ValueError, OSError):
            sizes.append(int(Path(limit).read_text()))
    return min(sizes, default=None)
