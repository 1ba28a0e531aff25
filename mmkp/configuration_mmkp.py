"""MmkpConfig: one composite configuration, a sub-configuration per modality.

The fields here are also what a recipe's `model` section may hold: the recipe reads its keys, types and defaults from
these classes, so that there is one list of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

MODALITIES = ("image", "text", "audio")


class MmkpImageConfig(PreTrainedConfig):
    """The image encoder.

    Attributes:
        backbone: a timm name (`mobilenetv3_small_100`), or a Hub id / folder that AutoBackbone understands (with `/`).
        backbone_config: the transformers configuration of such a backbone, filled in when it is first made.
        weights: what the backbone starts from when training begins: `none`, `hub` (its own pretrained weights), or
            `package:NAME`, weights that a Python package carries.
        stride: px of the input per cell of the grid.
        deepest_stride: stages of the backbone beyond this stride are left out.
        frozen_norm: batch normalisation keeps its statistics (small batches, exact data parallelism).
        drop_path_rate: stochastic depth, where the backbone has it.
        neck: `top_down` brings all stages onto the grid; `finest` takes the one stage of the grid's stride (for HRNet
            its fused branch of that stride).
        scales: 1 to 4 levels of an image pyramid, each half the size of the one before; one backbone serves all.
        scale_fusion: how the levels are joined: `average`, `weighted`, `product`, `attention` (a softmax over the
            levels at every place) or `conv_gru` (from coarse to fine).
    """

    model_type = "mmkp_image"
    base_config_key = "image_config"

    backbone: str = "mobilenetv3_small_100"
    backbone_config: dict | None = None
    weights: str = "none"
    stride: int = 4
    deepest_stride: int = 32
    frozen_norm: bool = False
    drop_path_rate: float = 0.0
    neck: str = "top_down"
    scales: int = 1
    scale_fusion: str = "average"


class MmkpTextConfig(PreTrainedConfig):
    """The text encoder.

    Attributes:
        encoder: `bytes`, a small transformer from scratch over bytes, or a Hub id / folder that AutoModel understands.
        encoder_config: the transformers configuration of such an encoder, filled in when it is first made.
        weights: `none`, `hub` (the named encoder's own) or `package:NAME`.
        layers, heads: of the byte transformer.
        max_bytes: longest text, in tokens of the tokenizer.
        dropout: of the byte transformer.
    """

    model_type = "mmkp_text"
    base_config_key = "text_config"

    encoder: str = "bytes"
    encoder_config: dict | None = None
    weights: str = "none"
    layers: int = 2
    heads: int = 4
    max_bytes: int = 128
    dropout: float = 0.1


class MmkpAudioConfig(PreTrainedConfig):
    """The audio encoder.

    Attributes:
        encoder: `log_mel`, a small convolution + transformer encoder on log-mel frames, or a Hub id / folder of a
            transformers audio encoder (Whisper, Wav2Vec2, AST).
        encoder_config: the transformers configuration of such an encoder, filled in when it is first made.
        weights: `none`, `hub` (the named encoder's own) or `package:NAME`.
        mel_bins: channels of the log-mel frames.
        layers, heads, dropout: of the log-mel encoder.
        window_s: seconds of sound around the picture's moment.
        rate_hz: sampling rate that the encoder hears.
    """

    model_type = "mmkp_audio"
    base_config_key = "audio_config"

    encoder: str = "log_mel"
    encoder_config: dict | None = None
    weights: str = "none"
    mel_bins: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    window_s: float = 0.5
    rate_hz: int = 16_000


class MmkpConfig(PreTrainedConfig):
    """The whole model.

    Attributes:
        modalities: which of image, text and audio the model has, in this order.
        hidden_size: D, channels of tokens and grids.
        input_size_hw: height and width of the network's input, px; every frame of the model is this one.
        fusion: `name`, `level` (feature or model) and the fusion's own options.
        head, codec, loss: `name` and their own options; a loss without a name is the codec's usual one.
        visibility: weight of the loss of a visibility output beside the head; 0: the model has none.
        calibration: temperature and bias of the scores, fitted on validation (mmkp.calibration); None: as they come.
        finder: sizes of the part that finds faces (mmkp.heads.finder) and the `threshold` of its scores, once it is
            fitted (mmkp.training.finder); None: the model has none.
        keypoint_schema: the schema in its plain form (see mmkp.schema).
    """

    model_type = "mmkp"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["instances", "raw"]  # transformers.Trainer gathers the others
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "image_config": MmkpImageConfig,
        "text_config": MmkpTextConfig,
        "audio_config": MmkpAudioConfig,
    }

    image_config: Any = None
    text_config: Any = None
    audio_config: Any = None
    modalities: Any = MODALITIES
    hidden_size: int = 96
    input_size_hw: Any = (128, 128)
    fusion: Any = None
    head: Any = None
    codec: Any = None
    loss: Any = None
    visibility: float = 0.0
    calibration: dict | None = None
    finder: dict | None = None
    keypoint_schema: dict | None = None
    mmkp_version: str = "0.1.0"

    def __post_init__(self, **kwargs: Any) -> None:
        self.modalities = tuple(m for m in MODALITIES if m in self.modalities)
        self.input_size_hw = tuple(self.input_size_hw)
        self.fusion = {"name": "average", "level": "feature", **(self.fusion or {})}
        self.head = {"name": "heatmap", **(self.head or {})}
        self.codec = {"name": "heatmap", **(self.codec or {})}
        self.loss = {"name": None, **(self.loss or {})}
        super().__post_init__(**kwargs)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Cells of the grid on which the modalities meet, height and width."""
        stride = self.image_config.stride
        return self.input_size_hw[0] // stride, self.input_size_hw[1] // stride
