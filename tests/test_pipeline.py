"""The pipeline: every form of input, batches as single items, and the task in transformers' own hands."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import pipeline as transformers_pipeline
from transformers.pipelines.pt_utils import KeyDataset

import mmkp
from mmkp import InputError, finding
from mmkp.evaluation.single import predict_one
from mmkp.hub import load, packaged
from mmkp.processing_mmkp import make_processor

RATE = 16_000
BOX = [20.0, 10.0, 64.0, 64.0]
IMAGE = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
WAVE = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)


def tiny_model(**changes) -> mmkp.MmkpForKeypointDetection:
    torch.manual_seed(0)
    config = {
        "keypoint_schema": mmkp.load_schema("face68").model_dump(mode="json"), "hidden_size": 16,
        "input_size_hw": (32, 32), "image_config": {"backbone": "test_efficientnet", "stride": 4},
        "text_config": {"layers": 1, "heads": 2}, "audio_config": {"layers": 1, "heads": 2, "mel_bins": 16}, **changes,
    }  # fmt: skip
    return mmkp.MmkpForKeypointDetection(mmkp.MmkpConfig(**config)).eval()


@pytest.fixture(scope="module")
def pipe():
    return mmkp.pipeline(tiny_model(), device="cpu")


@pytest.fixture(scope="module")
def talker():
    return load("grid-talker")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(IMAGE).save(folder / "picture.png")
    soundfile.write(folder / "sound.wav", WAVE, RATE, subtype="FLOAT")
    (folder / "page.html").write_text("<html>no picture, although it is long enough to be anything at all</html>")
    return folder


@pytest.fixture(scope="module")
def server(files):
    """A loopback HTTP server of those files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=files)) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def xy(instance) -> np.ndarray:
    return np.array([[p["x"], p["y"]] for p in instance["keypoints"]])


def assert_same(one, two, tolerance: float = 1e-3) -> None:
    """Results of one input agree."""
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert [p["name"] for p in a["keypoints"]] == [p["name"] for p in b["keypoints"]]
        assert a["box"] == pytest.approx(b["box"])
        np.testing.assert_allclose(xy(a), xy(b), atol=tolerance)


def test_it_says_what_predict_says_of_the_packaged_checkpoint(talker):
    """Through transformers' own function, which loads the fp16 file in its own way."""
    mmkp.register()
    pipe = transformers_pipeline("keypoint-detection", model=str(packaged()["grid-talker"]), device="cpu")
    assert type(pipe) is mmkp.KeypointDetectionPipeline
    assert pipe.dtype == torch.float32
    given = {"image": IMAGE, "text": "bin bl|ue", "audio": (WAVE, RATE), "audio_time": 0.4, "box": BOX}
    (found,) = pipe(given)
    said = predict_one(talker, IMAGE, "bin bl|ue", (WAVE, RATE), 0.4, BOX)
    np.testing.assert_allclose(xy(found), said["instances"][0]["keypoints"], atol=6e-4)  # which rounds to 3 digits
    scores = [p["score"] for p in found["keypoints"]]
    np.testing.assert_allclose(scores, said["instances"][0]["scores"], atol=6e-5)
    assert found["score"] == pytest.approx(np.mean(scores))
    assert found["schema"] == "face68"
    assert [p["name"] for p in found["keypoints"]] == list(mmkp.load_schema("face68").keypoints)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("text", ["hello", None])
def test_without_a_picture_the_frame_is_that_of_predict(talker, text):
    said = predict_one(talker, text=text, audio=(WAVE, RATE))["instances"][0]
    (found,) = mmkp.pipeline(talker, device="cpu")(text=text, audio=WAVE, sampling_rate=RATE)
    np.testing.assert_allclose(xy(found), said["keypoints"], atol=6e-4)
    assert list(found["box"].values()) == said["box_xywh"]


def test_every_form_of_a_picture_is_the_same_picture(pipe, files, server):
    path = files / "picture.png"
    content = path.read_bytes()
    coded = base64.b64encode(content).decode()
    forms = [
        Image.fromarray(IMAGE), path, str(path), f"{server}/picture.png", coded, f"data:image/png;base64,{coded}",
        content, {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}, {"image": IMAGE},
        mmkp.Sample("id", "group", np.zeros((68, 2), np.float32), np.zeros(68, np.uint8),
                    np.array([-0.5, -0.5, 120, 90]), image=IMAGE),
    ]  # fmt: skip
    expected = pipe(IMAGE)
    for form in forms:
        assert_same(pipe(form), expected)
    assert len(pipe(tuple(forms[:2]))) == 2
    assert_same(pipe(images=[IMAGE])[0], expected)


def test_every_form_of_a_sound_is_the_same_sound(pipe, files, server):
    path = files / "sound.wav"
    content = path.read_bytes()
    forms = [
        (RATE, WAVE), {"array": WAVE, "sampling_rate": RATE}, {"raw": torch.from_numpy(WAVE), "sampling_rate": RATE},
        path, str(path), f"{server}/sound.wav", base64.b64encode(content).decode(), {"bytes": content, "path": None},
        (np.stack([WAVE, WAVE], 1), RATE),
    ]  # fmt: skip
    expected = pipe({"audio": (WAVE, RATE)})
    for form in forms:
        assert_same(pipe({"audio": form}), expected)
    assert_same(pipe(audio=WAVE, sampling_rate=RATE), expected)
    early = pipe({"audio": (WAVE, RATE), "audio_time": 0.2})
    assert np.abs(xy(early[0]) - xy(expected[0])).max() > 1e-3


def test_a_picture_is_turned_upright_by_its_exif(pipe):
    turned = Image.fromarray(np.rot90(IMAGE))  # as a camera held upright stores it
    turned.getexif()[0x0112] = 6
    assert_same(pipe(turned), pipe(IMAGE))


def test_a_batch_is_its_items(pipe, monkeypatch):
    """Texts of other lengths and missing modalities side by side; one pass of the network for each batch."""
    many = [
        {"image": IMAGE, "box": BOX}, {"text": "hello"}, {"text": "a much longer text |", "audio": (WAVE, RATE)},
        {"image": IMAGE, "audio": (WAVE[:4000], RATE), "box": [BOX, [0, 0, 50, 60]]}, {"audio": (WAVE, RATE)},
    ]  # fmt: skip
    alone = [pipe(one) for one in many]
    sizes = []
    handle = pipe.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["modality_mask"])), with_kwargs=True
    )
    together = pipe(many, batch_size=4)
    handle.remove()
    assert sizes == [5, 1]  # four items with five boxes, and the last
    assert [len(one) for one in together] == [1, 1, 1, 2, 1]
    for one, two in zip(alone, together, strict=True):
        assert_same(one, two)
    monkeypatch.setattr("mmkp.pipelines.MOST_ROWS", 2)
    for one, two in zip(alone, pipe(many, batch_size=5), strict=True):
        assert_same(one, two)


def test_columns_are_items(pipe):
    columns = {"images": [IMAGE, None], "text": ["hello", "you"], "audio": [None, WAVE], "sampling_rate": RATE,
               "boxes": [BOX, None], "audio_times": [None, 0.3]}  # fmt: skip
    one, two = pipe(**columns, batch_size=2)
    assert_same(one, pipe({"image": IMAGE, "text": "hello", "box": BOX}))
    assert_same(two, pipe({"text": "you", "audio": (WAVE, RATE), "audio_time": 0.3}))
    assert_same(pipe(IMAGE, text="hello", boxes=[BOX, BOX])[1:], one)


def test_datasets_and_generators_stream(pipe):
    rows = [{"picture": IMAGE, "n": 0}, {"picture": IMAGE[:, ::-1].copy(), "n": 1}, {"picture": IMAGE, "n": 2}]
    expected = pipe([row["picture"] for row in rows], batch_size=2)
    taken = []

    def generate():
        for row in rows:
            taken.append(row["n"])
            yield {"image": row["picture"]}

    found = pipe(generate())
    assert_same(next(iter(found)), expected[0])
    assert taken == [0, 1] or taken == [0]  # the rest is not read before it is asked for
    for stream in (pipe(KeyDataset(rows, "picture"), batch_size=2), pipe(generate(), batch_size=2)):
        for one, two in zip(stream, expected, strict=True):
            assert_same(one, two)


def test_a_dataset_of_ours_and_its_export_are_inputs(pipe, tmp_path):
    """`open_dataset`'s samples, and rows of the Parquet that `mmkp push --data` writes, labels and all."""
    import datasets

    from mmkp.data import open_dataset
    from mmkp.data.export_parquet import export_parquet

    (tmp_path / "own").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "own" / "p.png")
    soundfile.write(tmp_path / "own" / "s.wav", WAVE, RATE, subtype="FLOAT")
    line = {"file_name": "p.png", "audio": "s.wav", "text": "a|b", "box": BOX, "group": "g", "split": "train"}
    points = [[30.0, 30.0, 2]] * 68
    (tmp_path / "own" / "metadata.jsonl").write_text(json.dumps({**line, "keypoints": points}))
    (tmp_path / "own" / "schema.yaml").write_text("schema: face68\n")
    samples = open_dataset(str(tmp_path / "own"), "all")
    wanted = pipe({"image": IMAGE, "audio": (WAVE, RATE), "text": "a|b", "box": BOX})
    assert_same(next(iter(pipe(samples))), wanted)
    export_parquet(samples, tmp_path / "parquet", split="train")
    rows = datasets.load_dataset(str(tmp_path / "parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert_same(next(iter(pipe(rows))), wanted)


def test_a_stream_of_samples_is_an_iterator(pipe):
    """A dataset that has samples in their order alone, as `open_dataset(..., streaming=True)` gives them."""

    class Flow:
        schema, problems = pipe.model.schema, ()

        def __iter__(self):
            yield {"image": IMAGE, "box": BOX}

    assert_same(next(iter(pipe(Flow()))), pipe({"image": IMAGE, "box": BOX}))


def test_boxes_in_every_form(pipe):
    expected = pipe(IMAGE, boxes=BOX)
    corners = [20.0, 10.0, 84.0, 74.0]
    assert expected[0]["box"] == {"x": 20, "y": 10, "width": 64, "height": 64}
    assert_same(pipe(IMAGE, boxes=corners, box_format="xyxy"), expected)
    assert_same(pipe(IMAGE, boxes=[dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))]), expected)
    assert_same(pipe(IMAGE, boxes=expected[0]["box"]), expected)
    assert_same(mmkp.pipeline(pipe.model, device="cpu", box_format="xyxy")(IMAGE, boxes=np.array(corners)), expected)


def test_threshold_and_top_k(pipe):
    all_of_it = pipe(IMAGE, boxes=[BOX, [0, 0, 50, 60], [30, 20, 70, 60]])
    scores = sorted(p["score"] for p in all_of_it[0]["keypoints"])
    least = scores[34]
    kept = pipe(IMAGE, boxes=BOX, threshold=least)[0]["keypoints"]
    assert [p["name"] for p in kept] == [p["name"] for p in all_of_it[0]["keypoints"] if p["score"] >= least]
    assert 0 < len(kept) < 68
    best = max(all_of_it, key=lambda one: one["score"])
    assert pipe(IMAGE, boxes=[one["box"] for one in all_of_it], top_k=1)[0]["box"] == best["box"]


def test_faces_are_found_where_no_box_is_given(monkeypatch):
    """The finder is not trained: what it spots at first is taken for faces, each in its own box."""
    monkeypatch.setattr(finding, "PASSES", 0)
    model = tiny_model(finder={"threshold": 0.0, "face_px": 32, "channels": 8, "judge_channels": 4, "judge_cells": 4})
    pipe = mmkp.pipeline(model, device="cpu")
    found = finding.find(model, pipe.processor, IMAGE, most=3)
    result = pipe(IMAGE, top_k=3)
    assert 0 < len(result) == len(found)
    for one, box, score in zip(result, found.boxes_xywh, found.scores, strict=True):
        assert list(one["box"].values()) == pytest.approx(box.tolist())
        assert one["score"] == pytest.approx(score)
        assert_same(pipe({"image": IMAGE, "box": box}), [one], 1e-2)
    assert pipe(IMAGE, find_threshold=1.0) == []
    assert [len(one) for one in pipe([IMAGE, {"image": IMAGE, "box": BOX}], find_threshold=1.0, batch_size=2)] == [0, 1]
    assert pipe(IMAGE, find=False)[0]["box"] == {"x": -0.5, "y": -0.5, "width": 120, "height": 90}


def test_people_told_apart_are_instances():
    """Two faces as an ideal head says them, one of them without its last point; the better one comes first."""
    schema = mmkp.load_schema("face5")
    parts = {"head": {"name": "openpose", "stages": 1}, "codec": {"name": "openpose"}, "input_size_hw": (160, 160)}
    model = tiny_model(keypoint_schema=schema.model_dump(mode="json"), **parts)
    shape = torch.tensor([[-10.0, -8.0], [10.0, -8.0], [0.0, 2.0], [-8.0, 12.0], [8.0, 12.0]])
    points = torch.stack([shape + torch.tensor([110.0, 100.0]), shape + torch.tensor([40.0, 50.0])])[None]
    labelled = torch.ones(1, 2, 5, dtype=torch.bool)
    labelled[0, 0, 4] = False
    raw = model.codec.raw_of(model.codec.encode(points, labelled))
    model.heads["joint"].register_forward_hook(lambda *_: (raw,))
    whole, part = mmkp.pipeline(model, device="cpu")(np.zeros((160, 160, 3), np.uint8))
    np.testing.assert_allclose(xy(whole), points[0, 1], atol=0.1)
    np.testing.assert_allclose(xy(part), points[0, 0, :4], atol=0.1)
    assert [p["name"] for p in part["keypoints"]] == list(schema.keypoints[:4])
    assert list(whole["box"].values()) == pytest.approx([30, 42, 20, 20], abs=0.2)
    assert part["score"] == pytest.approx(sum(p["score"] for p in part["keypoints"]) / 5)
    assert "NaN" not in json.dumps(part)


def test_a_saved_pipeline_loads_by_folder_and_holds_no_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors"}
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    again = transformers_pipeline("keypoint-detection", model=str(tmp_path), device="cpu")
    assert_same(again(IMAGE, text="hello"), pipe(IMAGE, text="hello"))


def test_a_fresh_process_knows_the_task_once_registered(pipe, tmp_path, files):
    pipe.save_pretrained(tmp_path)
    code = (
        "import sys, json, mmkp; assert 'torch' not in sys.modules; mmkp.register()\n"
        "from transformers import pipeline\n"
        "pipe = pipeline('keypoint-detection', model=sys.argv[1], device='cpu')\n"
        "print(json.dumps(pipe(sys.argv[2]))); assert callable(mmkp.pipeline)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(files / "picture.png")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout.splitlines()[-1]), pipe(IMAGE))


def test_half_precision_where_it_is_asked_for(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    half = transformers_pipeline("keypoint-detection", model=str(tmp_path), device="cpu", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(xy(half(IMAGE)[0]), xy(pipe(IMAGE)[0]), atol=8)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (None, "pipeline"), ({}, "pipeline"), ({"image": None}, "pipeline"), ({"imgae": IMAGE}, "pipeline"),
        ("nowhere.jpg", "image nowhere.jpg"), (".", "image ."), (3, "image"), (IMAGE.astype(float), "image"),
        (torch.zeros(3, 4, 4), "image"), ([[IMAGE]], "image"), (b"no picture", "image of bytes"),
        ("http://127.0.0.1:9/picture.png", "image http://127.0.0.1:9"), ("http://[bad", "image http://[bad"),
        ("A" * 80, "image in base64"), ({"text": 3}, "text"), ({"text": " "}, "text"),
        ({"audio": WAVE}, "sampling_rate"), ({"audio": (WAVE, "16k")}, "sampling_rate"),
        ({"audio": (WAVE, float("nan"))}, "sampling_rate"), ({"audio": (WAVE, RATE, 1)}, "audio"),
        ({"audio": {"array": WAVE}}, "sampling_rate"), ({"audio": {}}, "audio"), ({"audio": 3}, "audio"),
        ({"audio": (["a", "b"], RATE)}, "audio"), ({"audio": "nothing.wav"}, "audio nothing.wav"),
        ({"audio": (WAVE, RATE), "audio_time": "soon"}, "audio_time"),
        ({"audio": (WAVE, RATE), "audio_time": 99.0}, "audio_time"),
        ({"image": IMAGE, "box": [0, 0, 5]}, "box"), ({"image": IMAGE, "box": [0, 0, 0, 9]}, "box"),
        ({"image": IMAGE, "box": [500, 0, 9, 9]}, "box"), ({"image": IMAGE, "box": "0,0,9,9"}, "box"),
        ({"image": IMAGE, "box": {"left": 3}}, "box"), ({"image": IMAGE, "box": [0, 0, float("nan"), 9]}, "box"),
        ({"image": IMAGE, "box": 3}, "box"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(pipe, given, where):
    with pytest.raises(InputError) as caught:
        pipe(given)
    assert caught.value.where.startswith(where)


@pytest.mark.parametrize(
    ("keywords", "where"),
    [
        ({"images": [IMAGE, IMAGE], "text": ["a"]}, "text"), ({"images": [IMAGE, IMAGE], "text": "a"}, "text"),
        ({"images": IMAGE, "text": ["a", "b"]}, "image"), ({"images": [IMAGE], "boxes": BOX}, "box"),
        ({"inputs": IMAGE, "images": IMAGE}, "pipeline"), ({"inputs": {"image": IMAGE}, "text": "a"}, "pipeline"),
        ({"images": IMAGE, "treshold": 0.5}, "pipeline"), ({"images": IMAGE, "threshold": 2}, "threshold"),
        ({"images": IMAGE, "top_k": 0}, "top_k"), ({"images": IMAGE, "find": "yes"}, "find"),
        ({"images": IMAGE, "find": True}, "find"), ({"images": IMAGE, "box_format": "yolo"}, "box_format"),
        ({"images": IMAGE, "timeout": -1}, "timeout"), ({"boxes": BOX}, "pipeline"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(pipe, keywords, where):
    with pytest.raises(InputError) as caught:
        pipe(**keywords)
    assert caught.value.where.startswith(where)


def test_an_answer_that_is_no_picture_is_refused(pipe, server):
    with pytest.raises(InputError, match="404"):
        pipe(f"{server}/missing.png")
    with pytest.raises(InputError, match=r"page\.html: expected a picture"):
        pipe(f"{server}/page.html")


def test_what_the_model_cannot_use_is_left_out_or_refused():
    model = tiny_model(modalities=["image", "text"])
    pipe = mmkp.pipeline(model, processor=make_processor(model.config), device="cpu")
    assert_same(pipe(IMAGE, audio=WAVE), pipe(IMAGE))  # without a rate, which is of no interest
    with pytest.raises(InputError, match="only audio, which the model cannot use"):
        pipe(audio=(WAVE, RATE))
    assert pipe([]) == []


@pytest.mark.parametrize("model", ["grid-talkr", 3, torch.nn.Linear(1, 1)])
def test_a_model_that_is_none_is_refused(model):
    with pytest.raises(InputError, match="model"):
        mmkp.pipeline(model)
