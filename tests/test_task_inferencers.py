# SPDX-License-Identifier: Apache-2.0
"""mmdet's and mmseg's own inferencers take our configs and checkpoints, as OpenMMLab's users do."""
import numpy as np
import pytest
import torch
from helpers_tasks import small_detector, small_segmentor
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from PIL import Image

from milan_mm.inference.tasks import load_task_model

CLASSES = ('Boden', 'rot', 'grün')
_MAKERS = dict(mmdet=small_detector, mmseg=small_segmentor)


@pytest.fixture(params=_MAKERS)
def trained(request, tmp_path):
    """What a training leaves in its work folder: a config that says all, and a checkpoint."""
    package = request.param
    init_default_scope(package)
    cfg = Config.fromfile(_MAKERS[package](tmp_path / 'small.py'))
    for place in (('roi_head', 'bbox_head'), ('roi_head', 'mask_head'), ('decode_head', ),
                  ('auxiliary_head', )):
        part = cfg.model
        for key in place:
            part = part.get(key, {})
        if part:
            part.num_classes = 3
    for step in cfg.test_dataloader.dataset.pipeline:
        if 'scale' in step:
            step['scale'] = (64, 64)
    cfg.dump(tmp_path / 'small.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    palette = [(1, 2, 3), (250, 0, 0), (0, 250, 0)]
    torch.save(dict(state_dict=model.state_dict(),
                    meta=dict(dataset_meta=dict(classes=CLASSES, palette=palette))),
               tmp_path / 'small.pth')
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, which mmseg's own loader does not do
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'image.png', exif=exif)
    yield package, tmp_path, upright
    DefaultScope._instance_dict.clear()


def test_a_file_and_an_array(trained):
    package, folder, image = trained
    expected = load_task_model(Config.fromfile(folder / 'small.py'), folder / 'small.pth')(image)
    files = dict(model=str(folder / 'small.py'), weights=str(folder / 'small.pth'), device='cpu')
    bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    if package == 'mmdet':
        from mmdet.apis import DetInferencer
        infer = DetInferencer(**files, show_progress=False)
        found = infer([str(folder / 'image.png'), bgr], out_dir=str(folder / 'out'),
                      no_save_pred=False)['predictions']
        for one in found:
            np.testing.assert_allclose(one['scores'], expected.pred_instances.scores, atol=1e-5)
            np.testing.assert_allclose(one['bboxes'], expected.pred_instances.bboxes, atol=1e-3)
            assert one['labels'] == expected.pred_instances.labels.tolist()
            assert len(one['labels'])
    else:
        from mmseg.apis import MMSegInferencer
        infer = MMSegInferencer(**files)
        found = infer([str(folder / 'image.png'), bgr], out_dir=str(folder / 'out'))['predictions']
        for one in found:
            np.testing.assert_array_equal(one, expected.pred_sem_seg.data[0])
    drawn = list((folder / 'out/vis').iterdir())
    assert len(drawn) == 2 and all(Image.open(path).size == image.size for path in drawn if
                                   path.name != 'image.png')
    assert tuple(infer.model.dataset_meta['classes']) == CLASSES


def test_pipelines_of_others_stay_theirs():
    from milan_mm.compat.inferencers import _pipeline
    theirs = dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')])))
    assert _pipeline(theirs) is None and _pipeline({}) is None
