"""MmkpProcessor: image processor + tokenizer + feature extractor, and the way back from outputs to pictures."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ByT5Tokenizer, ProcessorMixin

from mmkp import geometry
from mmkp.data.timing import around_cursor
from mmkp.errors import InputError, nearest
from mmkp.features import MmkpFeatureExtractor
from mmkp.image_processing_mmkp import MmkpImageProcessor, as_box, as_rgb, check_within
from mmkp.loading.source import HUB_OPTIONS, find
from mmkp.modeling_mmkp import MmkpKeypointOutput

OF_OTHERS = ("padding", "return_attention_mask")  # what generic code passes to any processor


class MmkpBatch(BatchFeature):
    """The model's inputs; in whatever precision they are turned into, px stay exact."""

    def to(self, *args: Any, **kwargs: Any) -> MmkpBatch:
        """As of BatchFeature, in place; `image_to_input` changes its device alone."""
        exact = self.get("image_to_input")
        super().to(*args, **kwargs)
        if isinstance(exact, torch.Tensor):
            self["image_to_input"] = exact.to(self["image_to_input"].device)
        return self


class MmkpProcessor(ProcessorMixin):
    """Pictures, texts and sounds -> inputs; outputs -> keypoints in the picture.

    Args:
        image_processor: MmkpImageProcessor.
        tokenizer: ByT5Tokenizer for the byte encoder, or the named text encoder's own.
        feature_extractor: MmkpFeatureExtractor, or the named audio encoder's own.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, feature_extractor: Any = None) -> None:
        super().__init__(
            image_processor or MmkpImageProcessor(), tokenizer or ByT5Tokenizer(model_max_length=128),
            feature_extractor or MmkpFeatureExtractor(),
        )  # fmt: skip

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, by packaged name as well; only from a folder that passes `mmkp.loading.safety`.

        Raises:
            InputError: no such model, or settings that name code to run.
        """
        options = {k: kwargs.pop(k) for k in HUB_OPTIONS if k in kwargs}
        folder = find(pretrained_model_name_or_path, weights=False, **options)
        return super().from_pretrained(str(folder), *args, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str | None] | None = None,
        audio: Any = None,
        sampling_rate: int | list[int] | None = None,
        boxes: Sequence | None = None,
        audio_times: Sequence[float | None] | None = None,
        return_tensors: str | None = "pt",
        truncation: bool | str | None = False,
        **kwargs: Any,
    ) -> MmkpBatch:
        """Inputs of the model. Any modality may be left out, for all items or (None in a list) for some.

        Args:
            images: PIL pictures, (H, W, 3) uint8 arrays or (3, H, W) uint8 tensors.
            text: what is said, with `|` at the picture's moment where that is known.
            audio: (T,) float arrays in [-1, 1].
            sampling_rate: Hz, for all or for each.
            boxes: xywh px, image frame; one for one item, or one each. The whole picture without.
            audio_times: seconds into each sound; its middle without.
            return_tensors: "pt", or "np" for arrays.
            truncation: True, or transformers' other names for it: texts longer than the encoder takes are cut
                (`fitting`) instead of refused.
            kwargs: of transformers' processors `padding` and `return_attention_mask`, which change nothing here.

        Returns:
            pixel_values, image_to_input, input_ids, attention_mask, input_features, input_features_mask (what is
            absent from all items is left out), and modality_mask (B, 3) in the order image, text, audio.

        Raises:
            InputError: no modality, lists of different lengths, an item that is not usable, an unknown keyword.
        """
        _check_call(return_tensors, kwargs)
        lists = {
            "image": _as_list(images, (Image.Image, np.ndarray, torch.Tensor)),
            "text": _as_list(text, (str,)),
            "audio": _as_list(_as_array(audio), (np.ndarray, torch.Tensor)),
        }  # fmt: skip
        sizes = {len(v) for v in lists.values() if v is not None}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(
                "inputs", expected="an image, a text or a sound, and lists of one length",
                got="none of them" if not sizes else f"lists of {sorted(sizes)}",
            )  # fmt: skip
        count = sizes.pop()
        parts = {m: v if v is not None else [None] * count for m, v in lists.items()}
        mask = torch.tensor([[parts[m][i] is not None for m in parts] for i in range(count)])
        if not mask.any(1).all():
            raise InputError(
                "inputs", expected="a modality for every item", got=f"none for item {int(mask.any(1).int().argmin())}"
            )
        boxes = [boxes] if boxes is not None and _is_one_box(boxes) else boxes
        times = [audio_times] if isinstance(audio_times, (int, float, np.number)) else audio_times
        for name, given in (("boxes", boxes), ("audio_times", times)):
            if given is not None and len(given) != count:
                raise InputError(name, expected=f"one for each of {count} items", got=f"{len(given)}")
        batch: dict[str, Any] = {"modality_mask": mask}
        affines = self._affines(parts["image"], boxes)
        if np.isfinite(affines).any():
            batch["image_to_input"] = torch.from_numpy(affines)
        if mask[:, 0].any():
            batch["pixel_values"] = self._pixels(parts["image"], affines)
        if mask[:, 1].any():
            cut = truncation not in (False, None, "do_not_truncate")
            texts = [self.fitting(t) if cut and t is not None else t for t in parts["text"]]
            batch |= self.texts(texts)
        if mask[:, 2].any():
            batch |= self._sounds(parts["audio"], sampling_rate, times)
        if return_tensors == "np":
            return MmkpBatch({name: value.numpy() for name, value in batch.items()})
        return MmkpBatch(batch)

    def _affines(self, images: list, boxes: Sequence | None) -> np.ndarray:
        """(B, 2, 3) image frame -> input frame; NaN for an item that has neither a picture nor a box."""
        made = np.full((len(images), 2, 3), np.nan, np.float32)
        for i, image in enumerate(images):
            box = None if boxes is None else boxes[i]
            if box is not None or image is not None:
                size = (0, 0) if image is None else as_rgb(image).shape[:2]
                made[i] = self.image_processor.affine(box, (size[0], size[1]))
                if image is not None and box is not None:
                    check_within(as_box(box)[None], (size[0], size[1]))
        return made

    def _pixels(self, images: list, affines: np.ndarray) -> torch.Tensor:
        blank = np.zeros((1, 1, 3), np.uint8)
        affines = np.where(np.isfinite(affines), affines, geometry.identity())
        made = self.image_processor.preprocess(
            [blank if i is None else i for i in images], image_to_input=list(affines)
        )
        return made["pixel_values"]

    def fitting(self, text: str) -> str:
        """A text as far as the encoder takes it: the words around its cursor, or its first ones.

        Raises:
            InputError: an empty text.
        """
        _check_text(text)
        limit = self.tokenizer.model_max_length
        if len(text) < limit // 4:  # UTF-8 has at most four bytes a letter, other vocabularies fewer tokens than bytes
            return text
        return around_cursor(text, lambda part: len(self._coded(part)["input_ids"]) <= limit)

    def _coded(self, text: str | list[str], **options: Any) -> Any:
        """The tokenizer's answer; what only looks like one of its special tokens ("</s>") is text like any other."""
        if isinstance(self.tokenizer, ByT5Tokenizer):
            options["split_special_tokens"] = True
        return self.tokenizer(text, verbose=False, **options)

    def texts(self, texts: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask (B, L); an absent text is a blank row.

        Raises:
            InputError: an empty text, or one that is longer than the encoder takes.
        """
        for text in texts:
            if text is not None:
                _check_text(text)
        limit = self.tokenizer.model_max_length
        coded = self._coded(["" if t is None else t for t in texts], padding=True, return_attention_mask=True)
        longest = max(sum(row) for row in coded["attention_mask"])
        if longest > limit:
            raise InputError(
                "text", expected=f"at most {limit} tokens", got=f"{longest}",
                remedy="Give the words around the picture's moment, about half a second of speech "
                "(MmkpProcessor.fitting cuts a text to them).",
            )  # fmt: skip
        return {
            "input_ids": torch.tensor(coded["input_ids"]), "attention_mask": torch.tensor(coded["attention_mask"])
        }  # fmt: skip

    def _sounds(self, sounds: list, sampling_rate: Any, times: Sequence | None) -> dict[str, torch.Tensor]:
        rate = self.feature_extractor.sampling_rate
        many = isinstance(sampling_rate, (list, tuple, np.ndarray))
        many = many and np.ndim(sampling_rate) > 0
        rates = [_rate(r) for r in sampling_rate] if many else [_rate(sampling_rate)] * len(sounds)
        if len(rates) != len(sounds):
            raise InputError(
                "sampling_rate", expected=f"one, or one for each of {len(sounds)} items", got=str(len(rates))
            )
        at = list(times) if times is not None else [None] * len(sounds)
        blank = np.zeros(rate, np.float32)
        sounds = [blank if s is None else np.asarray(s) for s in sounds]
        rates = [rate if s is blank else r for s, r in zip(sounds, rates, strict=True)]
        return self.sounds(sounds, rates, at)

    def sounds(self, sounds: list[np.ndarray], rates: list[int], times: list[float | None]) -> dict[str, torch.Tensor]:
        """input_features, and input_features_mask where the extractor is ours."""
        extractor = self.feature_extractor
        if isinstance(extractor, MmkpFeatureExtractor):
            made = extractor(sounds, sampling_rate=rates, audio_times=times)
            return {"input_features": made["input_features"], "input_features_mask": made["input_features_mask"]}
        ours = MmkpFeatureExtractor(sampling_rate=extractor.sampling_rate, window_s=extractor.window_s)
        waves = [ours.cut(s, r, t)[0] for s, r, t in zip(sounds, rates, times, strict=True)]
        made = extractor(waves, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        return {"input_features": made[extractor.model_input_names[0]]}

    def post_process_keypoint_detection(
        self, outputs: MmkpKeypointOutput, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Any]]:
        """Keypoints in the frame of each picture.

        Args:
            outputs: of the model.
            target_sizes: (height, width) of each picture, px; needed only where no picture and no box went in.

        Returns:
            For each item `keypoints` (K, 2) px, image frame, `scores` (K,) in [0, 1], `labels` (K,) indices; of a model
            with a visibility output `visibility` (K,), the probability that the keypoint can be seen; and where the
            model tells people apart `instances`, best first, each with `keypoints` (NaN where not found), `scores`
            and the `score` of the whole.

        Raises:
            InputError: sizes that are not one for each item.
        """
        assert outputs.keypoints_xy is not None and outputs.scores is not None
        points = outputs.keypoints_xy.detach().double()
        if target_sizes is not None and (
            len(target_sizes) != len(points) or any(np.ndim(s) == 0 for s in target_sizes)
        ):
            raise InputError(
                "target_sizes", expected=f"(height, width) for each of {len(points)} items", got=str(target_sizes)[:80]
            )
        affine = torch.full((len(points), 2, 3), torch.nan, dtype=torch.float64)
        if outputs.image_to_input is not None:
            affine = outputs.image_to_input.double().cpu()
        for i in torch.nonzero(~torch.isfinite(affine).flatten(1).all(1))[
            :, 0
        ].tolist():  # neither picture nor box went in
            size = None if target_sizes is None else target_sizes[i]
            known = geometry.identity() if size is None else self.image_processor.affine(None, size)
            affine[i] = torch.from_numpy(known)
        affine = affine.to(points.device)
        points = geometry.input_to_image(points, affine)
        labels = torch.arange(points.shape[1])
        made: list[dict[str, Any]] = [
            {"keypoints": p.float(), "scores": s.detach(), "labels": labels}
            for p, s in zip(points, outputs.scores, strict=True)
        ]
        for item, seen in zip(made, () if outputs.visibility is None else outputs.visibility.detach(), strict=False):
            item["visibility"] = seen
        for item, people, back in zip(made, outputs.instances or [], affine, strict=False):
            xy = geometry.input_to_image(people.keypoints_xy.double(), back.expand(len(people.scores), -1, -1))
            item["instances"] = [
                {"keypoints": p, "scores": s, "score": whole}
                for p, s, whole in zip(xy.float(), people.scores, people.instance_scores, strict=True)
            ]
        return made


def _as_list(value: Any, single: tuple[type, ...]) -> list | None:
    if value is None:
        return None
    if isinstance(value, single) and not (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim > 3):
        return [value]
    many = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    return list(value) if many else [value]  # what is none of them is refused as an item, by what it should be


def _as_array(audio: Any) -> Any:
    """A sound that is a plain list of numbers, as feature extractors of transformers take it, as an array."""
    plain = isinstance(audio, (list, tuple)) and len(audio) > 0 and isinstance(audio[0], (int, float, np.number))
    if not plain:
        return audio
    try:
        return np.asarray(audio, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError("audio", expected="numbers alone in a list of samples", got=str(error)) from error


def _check_call(return_tensors: str | None, more: dict[str, Any]) -> None:
    if return_tensors not in ("pt", "np", None):
        raise InputError("return_tensors", expected="pt or np", got=repr(return_tensors))
    known = [p for p in inspect.signature(MmkpProcessor.__call__).parameters if p not in ("self", "kwargs")]
    for name in more:
        if name not in OF_OTHERS:
            raise InputError("processor", expected="a keyword it knows", got=repr(name), remedy=nearest(name, known))


def _is_one_box(boxes: Any) -> bool:
    return isinstance(boxes, Mapping) or (
        len(boxes) == 4 and all(isinstance(b, (int, float, np.number)) for b in boxes)
    )


def _rate(rate: Any) -> Any:
    """A rate in Hz as a plain int where it is one; None and what is none stay, to be refused by name."""
    if isinstance(rate, (torch.Tensor, np.ndarray)) and rate.ndim == 0:
        rate = rate.item()
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not float(rate).is_integer():
        raise InputError("sampling_rate", expected="a whole number of Hz", got=repr(rate))
    return int(rate)


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise InputError("text", expected="a string", got=type(text).__name__)
    if not text.strip():
        raise InputError("text", expected="at least one character", got="none", remedy="Leave the text out.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("text", expected="Unicode", got="bytes that are no UTF-8") from error


def make_processor(config: Any) -> MmkpProcessor:
    """The processor that fits a MmkpConfig.

    Raises:
        InputError: the tokenizer or feature extractor of a named encoder cannot be loaded.
    """
    text, audio = config.text_config, config.audio_config
    return MmkpProcessor(
        MmkpImageProcessor(size_hw=config.input_size_hw),
        ByT5Tokenizer(model_max_length=text.max_bytes) if text.encoder == "bytes" else _tokenizer(text),
        MmkpFeatureExtractor(audio.mel_bins, audio.rate_hz, audio.window_s)
        if audio.encoder == "log_mel" else _extractor(audio),
    )  # fmt: skip


def _tokenizer(config: Any) -> Any:
    from transformers import AutoTokenizer

    from mmkp.encoders.packages import package_path

    try:
        tokenizer = AutoTokenizer.from_pretrained(package_path(config.weights) or config.encoder)
    except (OSError, ValueError) as error:
        raise InputError(
            "text.encoder", expected="an encoder with a tokenizer", got=str(error).splitlines()[0]
        ) from error
    tokenizer.model_max_length = min(tokenizer.model_max_length, 512)
    return tokenizer


def _extractor(config: Any) -> Any:
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(config.encoder)
    except (OSError, ValueError) as error:
        raise InputError(
            "audio.encoder", expected="an encoder with a feature extractor", got=str(error).splitlines()[0]
        ) from error
    extractor.window_s = config.window_s  # saved and loaded with the extractor's own settings
    return extractor
