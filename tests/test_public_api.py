# SPDX-License-Identifier: Apache-2.0
"""``milan_mm.__all__`` is the public API: every registered part, and the little besides."""
import importlib
import pkgutil

from mmengine.registry import Registry

import milan_mm
from milan_mm import registry
from milan_mm.compat.old_names import OLD_NAMES

NOT_REGISTERED = {'pretrain', 'get_model', 'list_models', 'embed', 'MilanError', 'TargetGenerator',
                  'TeacherOutput', 'MaskIds', 'sincos_positions'}


def test_all_parts_are_public_and_little_else():
    for module in pkgutil.walk_packages(milan_mm.__path__, 'milan_mm.'):
        if not module.name.endswith('__main__'):
            importlib.import_module(module.name)
    registries = [one for one in vars(registry).values()
                  if isinstance(one, Registry) and one.scope == 'milan_mm']
    parts = {name: part for one in registries for name, part in one.module_dict.items()
             if name not in OLD_NAMES.get(one, ()) and part.__module__.startswith('milan_mm.')}
    assert len(registries) == 9 and len(parts) > 40
    assert sorted(milan_mm.__all__) == sorted({*parts, *NOT_REGISTERED})
    assert all(getattr(milan_mm, name) is part for name, part in parts.items())
    assert all(hasattr(milan_mm, name) for name in NOT_REGISTERED)


def test_own_parts_need_the_public_api_alone():
    """docs/extend.md imports nothing else of milan_mm."""
    from test_extend import FILES
    lines = [line for text in FILES.values() for line in text.splitlines() if 'milan_mm' in line
             and 'import' in line]
    assert lines and {line.split(' import ')[0] for line in lines if line.startswith('from')} == {
        'from milan_mm', 'from milan_mm.registry'}
    names = {name.strip() for line in lines if line.startswith('from milan_mm import')
             for name in line.split(' import ')[1].split(',')}
    assert names <= set(milan_mm.__all__)
