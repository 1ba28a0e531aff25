"""MmkpForKeypointDetection: encoders, lift, fusion and head, at feature level or at model level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from mmkp import losses
from mmkp.calibration import temper
from mmkp.codecs import make_codec
from mmkp.configuration_mmkp import MODALITIES, MmkpConfig
from mmkp.criteria import make_criterion, point_weights
from mmkp.encoders import make_encoder
from mmkp.encoders.text import as_mask
from mmkp.errors import InputError
from mmkp.fusion import make_fusion
from mmkp.fusion.lift import TokenLift
from mmkp.heads import head_upsample, make_head
from mmkp.heads.finder import Finder
from mmkp.heads.visibility import VisibilityHead
from mmkp.loading.fit import looked_through
from mmkp.schema import KeypointSchema, parse_schema


@dataclass
class MmkpKeypointOutput(ModelOutput):
    """What the model returns.

    Attributes:
        loss: scalar, when labels were given.
        keypoints_xy: (B, K, 2) px, input frame.
        scores: (B, K) in [0, 1].
        raw: the head's output after fusion, as the codec reads it.
        visibility: (B, K) probability that the keypoint can be seen, where the model says so.
        image_to_input: (B, 2, 3), as given.
        loss_per_item: (B,), when labels were given.
        instances: for every picture its people, px of the input frame, where the codec tells them apart.
    """

    loss: Tensor | None = None
    keypoints_xy: Tensor | None = None
    scores: Tensor | None = None
    raw: Tensor | None = None
    visibility: Tensor | None = None
    image_to_input: Tensor | None = None
    loss_per_item: Tensor | None = None
    instances: Any = None


@dataclass
class Detected:
    """What the heads say after fusion: every stage, the last of which is the answer, and visibility logits (B, K)."""

    stages: tuple[Tensor, ...]
    visibility: Tensor | None = None


@dataclass
class Encoded:
    """Tokens and masks by modality, and which modalities each item has."""

    tokens: dict[str, Float[Tensor, "B L D"]]
    masks: dict[str, Bool[Tensor, "B L"]]
    present: Bool[Tensor, "B M"]


class MmkpPreTrainedModel(PreTrainedModel):
    """Saving, loading and initialisation in the way of transformers."""

    config_class = MmkpConfig
    base_model_prefix = "mmkp"
    main_input_name = "pixel_values"
    input_modalities: ClassVar[list[str]] = list(MODALITIES)
    supports_gradient_checkpointing = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, by packaged name as well; only safetensors, and only what passes `mmkp.loading.safety`.

        In float32 unless `dtype` says otherwise: checkpoints are stored in fp16.

        Raises:
            InputError: no such model, or one that is refused.
        """
        source = pretrained_model_name_or_path
        kwargs.setdefault("dtype", kwargs.pop("torch_dtype", None) or torch.float32)
        if source is not None:
            source = str(looked_through(cls, source, kwargs))
        made = super().from_pretrained(source, *args, **kwargs)
        model = made[0] if isinstance(made, tuple) else made
        restore_constants(model)
        if source is not None:
            model.name_or_path = model.config._name_or_path = str(pretrained_model_name_or_path)
        return made

    def _init_weights(self, module: nn.Module) -> None:
        """Every part initialises itself when it is built; a checkpoint that lacks weights is refused (mmkp.hub)."""


def restore_constants(model: Any) -> None:
    """Give buffers that no checkpoint holds their values again, from a model that is built anew.

    transformers 5 builds a model without memory and leaves such buffers, ours and those of timm's backbones, as
    whatever the memory held.
    """
    owners = [
        (name, key)
        for name, module in model.named_modules()
        for key in module._non_persistent_buffers_set
        if module._buffers.get(key) is not None
    ]
    if not owners:
        return
    with torch.random.fork_rng():
        fresh = type(model)(model.config)
    for name, key in owners:
        own, value = model.get_submodule(name)._buffers[key], fresh.get_submodule(name)._buffers[key]
        dtype = own.dtype if value.is_floating_point() else value.dtype
        model.get_submodule(name)._buffers[key] = value.to(own.device, dtype)


class MmkpForKeypointDetection(MmkpPreTrainedModel):
    """Keypoints from any subset of image, text and audio.

    Args:
        config: MmkpConfig; `keypoint_schema` says which keypoints.

    Raises:
        InputError: a part that does not exist, or parts that do not fit.
    """

    def __init__(self, config: MmkpConfig) -> None:
        super().__init__(config)
        channels, self.modalities = config.hidden_size, tuple(config.modalities)
        if not self.modalities:
            raise InputError("model.modalities", expected="at least one of image, text, audio", got="none")
        self.schema: KeypointSchema = parse_schema(config.keypoint_schema, "of the model")
        count = self.schema.num_keypoints
        stride = head_stride(config)
        known = {"stride": stride, "input_size_hw": config.input_size_hw, "schema": self.schema}
        self.codec = make_codec(**config.codec, **known)
        self.finds_people = bool(getattr(self.codec, "multi_instance", False))
        if self.finds_people and config.visibility:
            raise InputError(
                "model.visibility", expected=f"0 with the codec {config.codec['name']}, which finds several people",
                got=str(config.visibility),
            )  # fmt: skip
        sizes = {"image": {"input_size_hw": config.input_size_hw}}
        self.encoders = nn.ModuleDict(
            {m: make_encoder(m, getattr(config, f"{m}_config"), channels, **sizes.get(m, {})) for m in self.modalities}
        )
        self.fusion: Any = make_fusion(members=self.modalities, channels=channels, **config.fusion)
        uses_tokens = getattr(self.fusion, "uses_tokens", False)
        lifted = [m for m in self.modalities if m != "image" and not uses_tokens]
        self.lifts = nn.ModuleDict({m: TokenLift(channels) for m in lifted})
        self.at_model_level = config.fusion["level"] == "model"
        if self.at_model_level and config.fusion["name"] not in self.codec.joins:
            raise InputError(
                "fusion.name", expected=f"{' or '.join(self.codec.joins) or 'none'} at model level with the codec "
                f"{config.codec['name']}", got=repr(config.fusion["name"]),
                remedy="" if self.codec.joins else "Choose the level feature.",
            )  # fmt: skip
        heads = self.modalities if self.at_model_level else ("joint",)
        made = {"codec_name": config.codec["name"], "codec": self.codec, "grid_hw": config.grid_hw, **config.head}
        self.heads = nn.ModuleDict({m: make_head(channels=channels, num_keypoints=count, **made) for m in heads})
        sees = heads if config.visibility else ()
        self.visibility = nn.ModuleDict({m: VisibilityHead(channels, count) for m in sees})
        self.finder = self.make_finder() if config.finder else None
        loss = {"name": self.codec.loss, **{k: v for k, v in config.loss.items() if v is not None}}
        group_weights = loss.pop("group_weights", None)
        self.criterion = make_criterion(codec_name=config.codec["name"], codec=self.codec, schema=self.schema, **loss)
        # The training set's mean shape, in [0, 1] of the input's width and height: what is known without looking.
        self.register_buffer("mean_shape", torch.full((count, 2), 0.5))
        self.register_buffer("loss_weight", point_weights(self.schema, group_weights))
        self.post_init()

    def make_finder(self) -> Finder:
        """The part that finds faces, as the configuration describes it, without weights."""
        sizes = {k: v for k, v in self.config.finder.items() if k != "threshold"}
        neck: Any = self.encoders["image"].neck
        return Finder([lateral.in_channels for lateral in neck.lateral], **sizes)

    def forward(
        self,
        pixel_values: Float[Tensor, "B 3 H W"] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        modality_mask: Tensor | None = None,
        image_to_input: Tensor | None = None,
        labels: Tensor | None = None,
        subset_mask: Bool[Tensor, "B S 3"] | None = None,
        blind_targets: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> MmkpKeypointOutput | tuple:
        """Detect.

        Args:
            pixel_values: (B, 3, H, W), normalised by the processor.
            input_ids, attention_mask: (B, L).
            input_features: (B, F, M) log-mel frames, or what the named audio encoder's extractor gives.
            input_features_mask: (B, F), True where real.
            modality_mask: (B, 3) in the order image, text, audio; False: absent, whatever the input holds. Without
                it, what is given is present.
            image_to_input: (B, 2, 3), carried to the output.
            labels: (B, K, 3): x, y in px of the input frame, and COCO's visibility (0 is not learned from); or
                (B, P, K, 3) for several people, of whom a codec for one person takes the first.
            subset_mask: in training, S subsets of the modalities for each item, in the order image, text, audio. The
                encoders run once, fusion and head for each subset; the loss is the mean over the subsets, and the
                keypoints are those of the last.
            blind_targets: as labels, for the subsets without the image: nobody could hear how a picture was turned.
            return_dict: False for a tuple of what there is, as in transformers.

        Raises:
            InputError: no modality at all, pictures of another size, labels of another number of keypoints.
        """
        inputs = {
            "image": (pixel_values,), "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
        }  # fmt: skip
        encoded = self.encode(inputs, modality_mask)
        if subset_mask is None or labels is None:
            detected = self.detect(encoded)
            loss_per_item = None if labels is None else self.loss(detected, labels)
        else:
            detected, loss_per_item = self._over_subsets(encoded, subset_mask, labels, blind_targets)
        keypoints_xy, scores = self.read(detected)
        made = MmkpKeypointOutput(
            loss=None if loss_per_item is None else loss_per_item.mean(),
            keypoints_xy=keypoints_xy, scores=scores, raw=detected.stages[-1], image_to_input=image_to_input,
            visibility=None if detected.visibility is None else detected.visibility.sigmoid(),
            loss_per_item=loss_per_item,
            instances=self.people(detected) if self.finds_people and not self.training else None,
        )  # fmt: skip
        return made.to_tuple() if return_dict is False else made

    def encode(self, inputs: dict[str, tuple], modality_mask: Tensor | None = None) -> Encoded:
        """Tokens of every modality that is there; an encoder never sees an item in which its modality is absent."""
        given = {m: parts for m, parts in inputs.items() if m in self.modalities and parts[0] is not None}
        if not given:
            raise InputError("inputs", expected=f"at least one of {', '.join(self.modalities)}", got="none of them")
        if "image" in given and given["image"][0].shape[1:] != (3, *self.config.input_size_hw):
            raise InputError(
                "pixel_values", expected=f"(B, 3, {', '.join(map(str, self.config.input_size_hw))})",
                got=str(tuple(given["image"][0].shape)), remedy="MmkpProcessor makes them.",
            )  # fmt: skip
        present = self._presence(given, modality_mask)
        tokens, masks = {}, {}
        for m, parts in given.items():
            here = present[:, self.modalities.index(m)]
            values, mask = parts[0], None if m == "image" else as_mask(parts[1], parts[0])
            tokens[m], masks[m] = self._encode_present(self.encoders[m], values, mask, here)
        return Encoded(tokens, masks, present)

    def _presence(self, given: dict[str, tuple], modality_mask: Tensor | None) -> Tensor:
        first = next(iter(given.values()))[0]
        there = torch.tensor([m in given for m in self.modalities], device=first.device)
        if modality_mask is None:
            return there.expand(first.shape[0], -1)
        return modality_mask[:, [MODALITIES.index(m) for m in self.modalities]].bool().to(first.device) & there

    @staticmethod
    def _encode_present(encoder: nn.Module, values: Tensor, mask: Tensor | None, here: Tensor) -> tuple:
        if bool(here.all()):
            return encoder(values) if mask is None else encoder(values, mask)
        if not bool(here.any()):  # one blank item tells the shape; nothing of it is kept
            blank, modes = torch.zeros_like(values[:1]), [(m, m.training) for m in encoder.modules()]
            encoder.eval()  # statistics must not learn from it
            with torch.no_grad():
                tokens, token_mask = encoder(blank) if mask is None else encoder(blank, torch.ones_like(mask[:1]))
            for module, mode in modes:
                module.training = mode
            tokens, token_mask = tokens[:0], token_mask[:0]
        elif mask is None:
            tokens, token_mask = encoder(values[here])
        else:
            tokens, token_mask = encoder(values[here], mask[here])
        at = here.nonzero()[:, 0]
        whole = tokens.new_zeros(len(here), *tokens.shape[1:]).index_copy(0, at, tokens)
        real = torch.ones(len(here), token_mask.shape[1], dtype=torch.bool, device=here.device)
        return whole, real.index_copy(0, at, token_mask)

    def detect(self, encoded: Encoded) -> Detected:
        """Lift, fuse and read. Cheap beside `encode`."""
        return self._fuse(encoded, self._before_fusion(encoded), encoded.present)

    def _before_fusion(self, encoded: Encoded) -> dict[str, Any]:
        """What each modality says by itself, whoever is present beside it: its grid, or at model level its heads'."""
        grids = self.lift(encoded)
        return {m: self._read(m, grid) for m, grid in grids.items()} if self.at_model_level else grids

    def _fuse(self, encoded: Encoded, said: dict[str, Any], present: Bool[Tensor, "B M"]) -> Detected:
        """Join what the modalities that are present say."""
        if self.at_model_level:
            return self._join(said, present)
        if getattr(self.fusion, "uses_tokens", False):
            grid = self.fusion(said, present, encoded.tokens, encoded.masks, self.config.grid_hw)
        else:
            grid = self.fusion(said, present)
        return self._read("joint", grid)

    def _over_subsets(
        self, encoded: Encoded, subset_mask: Bool[Tensor, "B S 3"], labels: Tensor, blind_targets: Tensor | None
    ) -> tuple[Detected, Float[Tensor, " B"]]:
        """What is detected from the last subset, and every item's loss, the mean over the subsets."""
        chosen = subset_mask[..., [MODALITIES.index(m) for m in self.modalities]].to(encoded.present.device)
        said, values = self._before_fusion(encoded), []
        for mask, sees in zip(chosen.unbind(1), subset_mask[..., 0].to(labels.device).unbind(1), strict=True):
            detected = self._fuse(encoded, said, encoded.present & mask)
            target = labels
            if blind_targets is not None:
                target = torch.where(sees.view(-1, *[1] * (labels.ndim - 1)), labels, blind_targets)
            values.append(self.loss(detected, target))
        return detected, torch.stack(values).mean(0)

    def read(self, detected: Detected) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in px of the input frame, and scores, calibrated where the model is."""
        keypoints_xy, scores = self.codec.decode(detected.stages[-1])
        known = self.config.calibration
        return keypoints_xy, scores if known is None else temper(scores, known["temperature"], known["bias"])

    def people(self, detected: Detected) -> list[Any]:
        """For every picture its people (`mmkp.codecs.openpose.Instances`), by a codec that tells them apart."""
        return self.codec.decode_instances(detected.stages[-1])

    def _read(self, head: str, grid: Float[Tensor, "B D h w"]) -> Detected:
        stages = self.heads[head](grid)
        visibility = self.visibility[head](grid) if head in self.visibility else None
        return Detected(stages if isinstance(stages, tuple) else (stages,), visibility)

    def _join(self, said: dict[str, Detected], present: Tensor) -> Detected:
        """Model level: every stage of the heads joined by the rule; of the visibilities, the mean of the logits."""
        count = len(next(iter(said.values())).stages)
        stages = [
            self.fusion.join_outputs({m: d.stages[i] for m, d in said.items()}, present, self.codec)
            for i in range(count)
        ]
        seen = {m: d.visibility for m, d in said.items() if d.visibility is not None}
        return Detected(tuple(stages), self.fusion.mean(seen, present) if seen else None)

    def lift(self, encoded: Encoded) -> dict[str, Float[Tensor, "B D h w"]]:
        """Every modality's tokens on the image grid; the image's already lie on it."""
        height, width = self.config.grid_hw
        grids = {}
        for m, tokens in encoded.tokens.items():
            if m == "image":
                grids[m] = tokens.transpose(1, 2).unflatten(2, (height, width))
            elif m in self.lifts:
                grids[m] = self.lifts[m](tokens, encoded.masks[m], (height, width))
        return grids

    def loss(
        self, detected: Detected, labels: Float[Tensor, "B K 3"] | Float[Tensor, "B P K 3"]
    ) -> Float[Tensor, " B"]:
        """The loss of every item: the criterion's mean over the stages, and the visibility's.

        Raises:
            InputError: labels of another number of keypoints.
        """
        if labels.shape[-2:] != (self.schema.num_keypoints, 3):
            raise InputError(
                "labels", expected=f"(..., {self.schema.num_keypoints}, 3): x, y and visibility of {self.schema.name}",
                got=str(tuple(labels.shape)),
            )  # fmt: skip
        if labels.ndim == 4 and not self.finds_people:
            labels = labels[:, 0]
        target = self.codec.encode(labels[..., :2], labels[..., 2] > 0)
        parts = [self.criterion(raw, target, self.loss_weight) for raw in detected.stages]
        value = torch.stack(parts).mean(0)
        if detected.visibility is not None:
            seen = losses.visibility_cross_entropy(detected.visibility, labels[..., 2])
            value = value + self.config.visibility * seen
        return value


def head_stride(config: MmkpConfig) -> int:
    """px of the input per cell of what the head puts out.

    Raises:
        InputError: a head that refines the grid to less than one px.
    """
    finer = head_upsample(**config.head)
    if config.image_config.stride % finer:
        raise InputError(
            "head", expected=f"an image.stride that is a multiple of {finer}, as the head makes the grid {finer} times "
            "finer", got=str(config.image_config.stride),
        )  # fmt: skip
    return config.image_config.stride // finer
