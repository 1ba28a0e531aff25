"""The task "keypoint-detection" of transformers' pipelines, for pictures, texts, sounds or any of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import Pipeline
from transformers.pipelines.base import no_collate_fn
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from mmkp import finding, geometry
from mmkp.data.sample import KeypointDataset, Sample
from mmkp.errors import InputError, choose, nearest
from mmkp.media import TIMEOUT_S
from mmkp.modeling_mmkp import MmkpForKeypointDetection, restore_constants
from mmkp.pipeline_items import BOX_FORMATS, Item, from_columns, is_single, read_item
from mmkp.processing_mmkp import make_processor

TASK = "keypoint-detection"
MOST_FOUND = 20  # faces looked for in a picture, unless top_k asks for fewer
MOST_ROWS = 64  # boxes that go through the network at once: memory stays bounded in a picture of a crowd
# The parameters of each step.
PREPROCESS = ("box_format", "timeout")
FORWARD = ("find", "find_threshold", "find_with", "top_k")
POSTPROCESS = ("threshold", "top_k")
OF_OTHERS = ("local_files_only",)  # what transformers.pipeline passes on although it is not the pipeline's


class KeypointDetectionPipeline(Pipeline):
    """Keypoints from pictures, texts, sounds, or any of them together.

    The result of one input is a list of instances, as object detectors of transformers return it; [] where no face was
    found. Of several inputs it is a list of such lists. All of it can be written as JSON:

        [{"score": 0.93, "schema": "face68", "box": {"x": 31.0, "y": 20.5, "width": 96.0, "height": 96.0},
          "keypoints": [{"name": "jaw_0", "x": 40.2, "y": 61.7, "score": 0.97}, ...]}, ...]

    Coordinates are px of the picture (upright, where EXIF turns it), the centre of its top-left pixel being (0, 0); of
    a text or a sound without picture or box they lie in a frame of 512 x 512 px. `score` is the finder's where the face
    was found by the model, the person's where the model tells people apart, else the mean over the keypoints. `box` is
    what the network looked at, or the person's extent. Keypoints that were not found are left out. Of a model
    with a visibility output a keypoint has `visibility`, the probability that it can be seen.

    A model in half precision is turned into float32, in which coordinates are exact, unless `dtype` asks otherwise.

    Args, here or with a call:
        threshold: keypoints with a lower score are left out; 0 keeps all.
        find: let the model find faces in pictures without a box; by default if it can. Else the whole picture is the
            box. A picture without a face gives [], whatever is said beside it.
        find_threshold: the score that a found face needs; the finder's own by default.
        find_with: another model that finds the faces, where this one cannot (a fine-tuned one): a packaged name, a
            folder or a Hub id.
        top_k: at most so many instances an input, the best; 20 faces are looked for by default.
        box_format: "xywh" or "xyxy", of boxes that are plain numbers.
        timeout: seconds for a URL.
    """

    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    model: Any
    processor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        asked = kwargs.get("dtype")
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, MmkpForKeypointDetection):
            raise InputError("pipeline", expected="a model of mmkp", got=type(self.model).__name__)
        self.processor = self.processor or make_processor(self.model.config)
        if asked == "auto" and self.model.dtype in (torch.float16, torch.bfloat16):
            self.model.float()
            restore_constants(self.model)  # they were rounded
        self._finders: dict[str, tuple[Any, Any]] = {}

    def __call__(
        self,
        inputs: Any = None,
        images: Any = None,
        text: Any = None,
        audio: Any = None,
        boxes: Any = None,
        audio_times: Any = None,
        sampling_rate: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Detect.

        Args:
            inputs: one picture (PIL, array (H, W, 3), path, URL, base64, bytes), or one mapping with some of `image`,
                `text`, `audio`, `sampling_rate`, `audio_time`, `box`, or a `Sample`; or a list, dataset or generator of
                these. Or leave it to the keywords:
            images, text, audio: one, or a list with None for what an item lacks.
            boxes: of one item a box, or several; of a list one such for each, or None.
            audio_times: seconds into each sound; its middle without.
            sampling_rate: Hz, of sounds that are bare samples; for all or for each.
            kwargs: the pipeline's parameters, `batch_size` and `num_workers`.

        Returns:
            A list of instances for one input, a list of them for a list, an iterator for a dataset or generator.

        Raises:
            InputError: nothing given, or something that cannot be used.
        """
        if inputs is not None and images is not None:
            raise InputError("pipeline", expected="inputs or images", got="both")
        inputs = images if inputs is None else inputs
        columns = {
            "text": text,
            "audio": audio,
            "box": boxes,
            "audio_time": audio_times,
            "sampling_rate": sampling_rate,
        }
        if any(v is not None for v in columns.values()):
            inputs = from_columns({"image": inputs, **columns})
        if isinstance(inputs, (list, tuple)) and not inputs:
            return []
        return super().__call__(_as_transformers(inputs), **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = {*PREPROCESS, *FORWARD, *POSTPROCESS}
        for name, value in kwargs.items():
            if name not in known and name not in OF_OTHERS:
                raise InputError("pipeline", expected="a parameter", got=repr(name), remedy=nearest(name, known))
            if value is not None:
                _check(name, value)
        given = {k: v for k, v in kwargs.items() if v is not None}
        preprocess, forward, postprocess = (
            {k: given[k] for k in names if k in given} for names in (PREPROCESS, FORWARD, POSTPROCESS)
        )
        return preprocess, forward, postprocess

    def preprocess(self, given: Any, box_format: str = "xywh", timeout: float = TIMEOUT_S) -> dict[str, Item]:
        """Read one input; the processor works on the whole batch, once faces are found."""
        return {"item": read_item(given, self.model.modalities, box_format, timeout)}

    def _forward(
        self, model_inputs: dict[str, Any], find: bool | None = None, find_threshold: float | None = None,
        find_with: str | None = None, top_k: int | None = None,
    ) -> dict[str, list]:  # fmt: skip
        """One item, or a list of them -> its instances, or a list of lists."""
        items = model_inputs["item"]
        if isinstance(items, Item):
            found = self._forward({"item": [items]}, find, find_threshold, find_with, top_k)
            return {"instances": found["instances"][0]}
        if find is False and find_with is not None:
            raise InputError("find_with", expected="no find=False beside it", got=repr(find_with))
        looked = [self._boxes(item, find, find_threshold, find_with, top_k or MOST_FOUND) for item in items]
        rows = [(i, box, score) for i, found in enumerate(looked) for box, score in found]
        instances: list[list] = [[] for _ in items]
        for start in range(0, len(rows), MOST_ROWS):
            part = rows[start : start + MOST_ROWS]
            for (i, box, score), found in zip(part, self._detect([(items[i], b) for i, b, _ in part]), strict=True):
                people = found["instances"] if self.model.finds_people else [found]
                instances[i] += [{"box": box, "score": score, **one} for one in people]
        return {"instances": instances}

    def _boxes(
        self, item: Item, find: bool | None, threshold: float | None, find_with: str | None, most: int
    ) -> list[tuple[np.ndarray, float | None]]:
        """The boxes to look at, xywh px, with the finder's score where it found them."""
        if item.boxes_xywh is not None:
            return [(box, None) for box in item.boxes_xywh]
        model, processor = (self.model, self.processor) if find_with is None else self._finder(find_with)
        if item.image is None or find is False or (find is None and not finding.can_find(model)):
            return [(geometry.whole_image_box(item.size_hw), None)]
        found = finding.find(model, processor, item.image, threshold=threshold, most=most)
        return [(b, float(s)) for b, s in zip(found.boxes_xywh, found.scores, strict=True)]

    def _finder(self, name: str) -> tuple[Any, Any]:
        """Another model that finds, and its processor; loaded once."""
        from mmkp.hub import load  # which registers this pipeline

        if name not in self._finders:
            loaded = load(name)
            finding.check_finder(loaded.model, f"find_with {name}")
            model: Any = loaded.model
            self._finders[name] = (model.to(self.device), loaded.processor)
        return self._finders[name]

    def _detect(self, rows: Sequence[tuple[Item, np.ndarray]]) -> list[dict[str, Any]]:
        """Keypoints of items within boxes, in one pass of the network."""
        items = [item for item, _ in rows]
        heard = any(i.audio is not None for i in items)
        inputs = self.processor(
            images=[i.image for i in items], text=[i.text for i in items], audio=[i.audio for i in items],
            sampling_rate=[i.rate_hz for i in items], boxes=[box for _, box in rows],
            audio_times=[i.audio_time_s for i in items] if heard else None,
        )  # fmt: skip
        for name in {"pixel_values", "input_features"} & set(inputs):
            inputs[name] = inputs[name].to(self.model.dtype)
        outputs = self.model(**self.ensure_tensor_on_device(**inputs))
        return self.processor.post_process_keypoint_detection(outputs, target_sizes=[i.size_hw for i in items])

    def postprocess(
        self, model_outputs: dict[str, list], threshold: float = 0.0, top_k: int | None = None
    ) -> list[dict[str, Any]]:
        """Instances as plain values; of more than `top_k` the best, in the order they came in."""
        made = [self._plain(one, threshold) for one in model_outputs["instances"]]
        best = sorted(range(len(made)), key=lambda i: -made[i]["score"])[: None if top_k is None else int(top_k)]
        return [made[i] for i in sorted(best)]

    def _plain(self, found: dict[str, Any], threshold: float) -> dict[str, Any]:
        points, scores = found["keypoints"].double().numpy(), found["scores"].double().numpy()
        known, box = np.isfinite(points).all(-1), found["box"]
        if self.model.finds_people and known.any():
            low, high = points[known].min(0), points[known].max(0)
            box = np.concatenate([low, high - low])
        names, seen = self.model.schema.keypoints, found.get("visibility")
        return {
            "score": float(scores.mean() if found["score"] is None else found["score"]),
            "schema": self.model.schema.name,
            "box": dict(zip(("x", "y", "width", "height"), map(float, box), strict=True)),
            "keypoints": [
                {
                    "name": names[k],
                    "x": float(points[k, 0]),
                    "y": float(points[k, 1]),
                    "score": float(scores[k]),
                    **({} if seen is None else {"visibility": float(seen[k])}),
                }
                for k in np.flatnonzero(known & (scores >= threshold))
            ],
        }

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess_params: dict, forward_params: dict,
        postprocess_params: dict,
    ) -> PipelineIterator:  # fmt: skip
        """As in transformers, but a batch is a list of items: the processor pads, and masks what is absent."""
        kind = PipelineDataset if hasattr(inputs, "__len__") else PipelineIterator
        read = kind(inputs, self.preprocess, preprocess_params)
        collate = no_collate_fn if batch_size == 1 else _as_lists
        batches = DataLoader(read, num_workers=num_workers, batch_size=batch_size, collate_fn=collate)
        found = PipelineIterator(batches, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(found, self.postprocess, postprocess_params)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model and processor, and nothing that would have to be run to load them."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def pipeline(
    model: Any,
    processor: Any = None,
    device: int | str | torch.device | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> KeypointDetectionPipeline:
    """A keypoint detection pipeline.

    Args:
        model: a packaged name, a folder, a Hub id, what `mmkp.hub.load` returns, or a model.
        processor: the model's own by default.
        device: the first accelerator by default, else the CPU.
        revision: of a Hub id.
        batch_size: inputs that go through the network together when a list, dataset or generator is given.
        kwargs: the pipeline's parameters, for every call.

    Raises:
        InputError: no such model.
    """
    from mmkp.hub import Loaded, load

    if isinstance(model, (str, Path)):
        model = load(str(model), revision)
    if isinstance(model, Loaded):
        model, processor = model.model, processor or model.processor
    if not isinstance(model, MmkpForKeypointDetection):
        raise InputError("model", expected="a packaged name, a folder, a Hub id or a model", got=type(model).__name__)
    return KeypointDetectionPipeline(
        model.eval(), processor=processor, task=TASK, device=device, batch_size=batch_size, **kwargs
    )


class _Samples(Dataset):
    """A dataset of mmkp as torch's, which is what transformers knows."""

    def __init__(self, dataset: KeypointDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]


def _as_lists(batch: list[dict[str, Item]]) -> dict[str, list[Item]]:
    return {"item": [one["item"] for one in batch]}


def _as_transformers(inputs: Any) -> Any:
    """Inputs in a form whose kind transformers recognises: one, a list, a torch dataset or a generator."""
    if all(hasattr(inputs, name) for name in ("schema", "problems", "__getitem__")):  # a KeypointDataset
        return _Samples(inputs)
    if is_single(inputs) or isinstance(inputs, (list, Dataset, IterableDataset)) or not isinstance(inputs, Iterable):
        return inputs
    return list(inputs) if isinstance(inputs, tuple) else (one for one in inputs)


def _check(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if name in ("threshold", "find_threshold") and not (is_number and 0 <= value <= 1):
        raise InputError(name, expected="a score of 0 to 1", got=repr(value))
    if name == "top_k" and not (is_number and value == int(value) and value >= 1):
        raise InputError(name, expected="a whole number of at least 1", got=repr(value))
    if name == "timeout" and not (is_number and value > 0):
        raise InputError(name, expected="seconds above 0", got=repr(value))
    if name == "find_with" and not isinstance(value, str):
        raise InputError(name, expected="a packaged name, a folder or a Hub id", got=type(value).__name__)
    if name == "find" and not isinstance(value, bool):
        raise InputError(name, expected="True, False or None", got=repr(value))
    if name == "box_format":
        choose(name, str(value), BOX_FORMATS)
