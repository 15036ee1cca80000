# SPDX-License-Identifier: Apache-2.0
"""The annotated sets of a config, looked through; it then reads what was put right."""
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.io import write_atomically
from ..datasets.checks.class_folders import check_class_folders
from ..datasets.checks.coco import check_coco
from ..datasets.checks.facts import Facts
from ..datasets.checks.findings import Findings
from ..datasets.checks.label_maps import check_label_maps
from .data_paths import EVALUATORS, LOADERS, datasets_of

_FACTS = '.data_check_facts.json'
_DATA = ('type', 'data_root', 'data_prefix', 'ann_file')  # which make two sets the same data


class DataCheck:
    """Looks through the sets of a config, and changes it to read them as they should be.

    A COCO file that had to be put right is written anew into ``data_check/`` of the work folder,
    for training and metrics alike; of images with label maps the list of those that can be used.

    Args:
        cfg: changed in place; its ``work_dir`` also keeps what was learned of files, until these
            change. Without one, nothing is written unless it has to be.
        log: receives the lines of progress; by default they go to stderr.
        copies: False to look only: nothing is written anew.
        loaders: whose sets are looked through; an evaluation does without the training set.
    """

    def __init__(self, cfg: Config, log: Callable[[str], None] | None = None,
                 copies: bool = True, loaders: Sequence[str] = LOADERS) -> None:
        self.cfg, self.copies, self.loaders = cfg, copies, loaders
        self.work_dir = Path(cfg.work_dir) if cfg.get('work_dir') else None
        self.findings: dict[str, Findings] = {}
        self.facts = Facts(self._known_facts(), log)

    def look(self, name: str, dataset: dict, classes: tuple[str, ...] | None = None) -> None:
        """Looks through one set, by its type; sets of other types are passed over.

        Args:
            name: 'train', 'val' or 'test', by its loader.
            dataset: its config.
            classes: of the training set; None as long as they are not known.
        """
        kind = dataset.get('type', '').rpartition('.')[2]
        root = Path(dataset.get('data_root') or '').expanduser()
        prefix = dataset.get('data_prefix') or {}
        prefix = prefix if isinstance(prefix, dict) else dict(img_path=prefix)
        if kind == 'CocoDataset' and dataset.get('ann_file') and classes is None:
            self._look_at_coco(name, dataset, root, prefix)
        elif 'seg_map_path' in prefix and classes is not None:
            self._look_at_maps(name, dataset, root, prefix, classes)
        elif kind == 'ImageFolder' and dataset.get('with_label') and classes is not None:
            self.findings[name] = check_class_folders(
                root / prefix.get('img_path', ''), self.facts, None if name == 'train' else classes)

    def report(self) -> None:
        """The table to the log; it and every item's name to ``data_check.*`` in the work folder."""
        tables = {name: found.table() for name, found in self.findings.items()}
        if not tables:
            return
        print_log('data check\n' + '\n'.join(tables.values()), logger='current')
        if self.work_dir is None:
            return
        content = {name: found.as_dict() for name, found in self.findings.items()}
        for name, text in (('data_check.txt', '\n'.join(tables.values())),
                           ('data_check.json', json.dumps(content, indent=1)),
                           (_FACTS, json.dumps(self.facts.known))):
            if name != _FACTS or self.facts.looked:
                self._write(self.work_dir / name, text)

    def _look_at_coco(self, name: str, dataset: dict, root: Path, prefix: dict) -> None:
        source = root / dataset['ann_file']
        filters = dataset.get('filter_cfg') or {} if name == 'train' else {}
        checked = check_coco(
            source, root / prefix.get('img', ''), self.facts, _wants_masks(self.cfg),
            filters.get('min_size', 0), bool(filters.get('filter_empty_gt')))
        self.findings[name] = checked.findings
        target = source
        if checked.changed and self.copies:
            target = self._copy(f'{name}.json')
            self._write(target, json.dumps(checked.content))
            dataset['ann_file'] = str(target.absolute())
        if name == 'train' and not checked.has_masks:
            without_masks(self.cfg)
        for metric in metrics_of(self.cfg):
            if metric.get('ann_file') and Path(metric['ann_file']).expanduser() == source:
                metric['ann_file'] = str(target)
                if not checked.has_masks:
                    _without_masks(metric)

    def _look_at_maps(self, name: str, dataset: dict, root: Path, prefix: dict,
                      classes: tuple[str, ...]) -> None:
        any_suffix = dataset['type'].endswith('LabelMapFolder')
        if dataset.get('ann_file'):
            return  # a list of one's own
        checked = check_label_maps(
            root / prefix.get('img_path', ''), root / prefix['seg_map_path'], classes, self.facts,
            dataset.get('img_suffix', None if any_suffix else '.jpg'),
            dataset.get('seg_map_suffix', '.png'), bool(dataset.get('reduce_zero_label')),
            name == 'train')
        self.findings[name] = checked.findings
        if checked.some_left_out and self.copies:
            target = self._copy(f'{name}.json')
            self._write(target, json.dumps(checked.pairs))
            dataset.update(type='milan_mm.LabelMapFolder', ann_file=str(target.absolute()))
        if checked.own_loader:
            dataset['pipeline'] = [
                dict(type='milan_mm.LoadLabelMap')
                if step.get('type', '').rpartition('.')[2] == 'LoadAnnotations' else step
                for step in dataset.get('pipeline') or ()]

    def _copy(self, name: str) -> Path:
        return (self.work_dir or Path('work_dirs')) / 'data_check' / name

    def _write(self, path: Path, text: str) -> None:
        write_atomically(path, lambda to: to.write_text(
            text + '\n', encoding='utf-8', errors='backslashreplace'))

    def _known_facts(self) -> Any:
        """Of the last look from this work folder or, by the doctor, from the one above it."""
        for folder in (self.work_dir, self.work_dir.parent) if self.work_dir else ():
            try:
                return json.loads((folder / _FACTS).read_text(encoding='utf-8'))
            except (OSError, ValueError):
                continue
        return None


def look_at_sets(cfg: Config, check: DataCheck, classes: tuple[str, ...] | None = None) -> None:
    """Each set of a config; one that validation and test share is reported once."""
    seen: list[Any] = []
    for loader in check.loaders:
        name = loader.removesuffix('_dataloader')
        for dataset in datasets_of((cfg.get(loader) or {}).get('dataset')):
            data = {key: dataset.get(key) for key in _DATA}
            if not any(dataset is other for other in seen):
                check.look(name, dataset, classes)
            if data in seen:
                check.findings.pop(name, None)
            seen += [dataset, data]


def without_masks(cfg: Config) -> None:
    """Takes mask head, loading of masks and measuring of them out: boxes alone are trained."""
    head = cfg.model.get('roi_head') or {}
    head.update(mask_head=None, mask_roi_extractor=None)
    for loader in LOADERS:
        for dataset in datasets_of((cfg.get(loader) or {}).get('dataset')):
            for step in dataset.get('pipeline') or ():
                if step.get('with_mask'):
                    step['with_mask'] = False
    for metric in metrics_of(cfg):
        _without_masks(metric)


def _wants_masks(cfg: Config) -> bool:
    return bool((cfg.model.get('roi_head') or {}).get('mask_head'))


def metrics_of(cfg: Config) -> list[dict]:
    """The configs of all metrics."""
    values = [cfg.get(name) for name in EVALUATORS]
    return [metric for value in values for metric in (
        value if isinstance(value, (list, tuple)) else [value]) if isinstance(metric, dict)]


def _without_masks(metric: dict) -> None:
    if isinstance(metric.get('metric'), (list, tuple)):
        metric['metric'] = [name for name in metric['metric'] if name != 'segm']
