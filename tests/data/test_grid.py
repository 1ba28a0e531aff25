"""GridDataset on small folders made here: MPEG-1 pictures that turn bright when the sound sets in."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import numpy as np
import pytest

import mmkp.data.av_io
from mmkp.data.face import face_box
from mmkp.data.grid import GridDataset
from mmkp.data.grid_cache import VERSION
from mmkp.errors import InputError

FRAMES, BRIGHT_FROM = 12, 6
STEM = "bbaa1p"  # bin blue at a one please; in train
WORDS = "0 1000 sil\n1000 3000 bin\n3000 4000 blue\n4000 6000 at\n6000 8000 a\n8000 9000 one\n9000 11000 please\n"


def write_video(
    path: Path,
    frames: int = FRAMES,
    sound: bool = True,
    size_hw: tuple[int, int] = (48, 64),
    lost_s: tuple[float, float] = (0, 0),
) -> None:
    """An .mpg as GRID's, 25 frames per second: dark, then from frame BRIGHT_FROM on bright with a tone.

    What lies in `lost_s`, of pictures and of sound, is not written: a hole in the time stamps. MPEG has these but now
    and then, so such a file is a Matroska one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska" if any(lost_s) else "mpeg") as container:
        video = container.add_stream("mpeg1video", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = size_hw[1], size_hw[0], "yuv420p", 2_000_000
        tracks = container.add_stream("mp2", rate=44_100, layout="mono") if sound else None
        for number in range(frames):
            picture = np.full((*size_hw, 3), 200 if number >= BRIGHT_FROM else 30, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            if not lost_s[0] <= number / 25 < lost_s[1]:
                container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if tracks is None:
            return
        at = np.arange(44_100 * frames // 25)
        onset = BRIGHT_FROM * 44_100 // 25
        wave = np.where(at < onset, 0, 12_000 * np.sin((at - onset) * 0.2)).astype(np.int16)
        for start in range(0, len(wave), 1152):
            block = av.AudioFrame.from_ndarray(wave[None, start : start + 1152], format="s16", layout="mono")
            block.sample_rate, block.pts = 44_100, start
            if lost_s[0] <= start / 44_100 < lost_s[1]:
                continue
            container.mux(tracks.encode(block))
        container.mux(tracks.encode(None))


def face(frames: int = FRAMES) -> np.ndarray:
    """Points (T, 68, 2) as mediapipe gives them, eyes level and 16 px apart; values that float16 holds."""
    points = np.tile(np.stack([np.arange(68) / 2 + 10, np.arange(68) / 4 + 12], -1), (frames, 1, 1))
    points[:, 36:42] = (24, 20)
    points[:, 42:48] = (40, 20)
    return points + np.arange(frames)[:, None, None] / 4


def write_labels(path: Path, points: np.ndarray, size_hw: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, keypoints_xy=points.astype(np.float16), size_hw=np.array(size_hw))


def write_align(path: Path, text: str = WORDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One whole clip, s1/bbaa1p."""
    write_video(tmp_path / f"grid/s1/{STEM}.mpg")
    write_labels(tmp_path / f"grid/landmarks/{STEM}.npz", face())
    write_align(tmp_path / f"grid/align/{STEM}.align")
    return tmp_path / "grid"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMKP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "grid"


@pytest.fixture
def no_video(monkeypatch: pytest.MonkeyPatch):
    """Call it, and from then on no media file can be opened."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a media file was opened")

    return lambda: monkeypatch.setattr(mmkp.data.av_io.av, "open", refuse)


def test_a_frame_becomes_a_sample(root, cache):
    data = GridDataset(root)
    assert len(data) == FRAMES
    assert data.describe() == {"split": "train", "clips": 1, "frames": FRAMES, "speakers": 1, "problems": 0}
    sample = data[7]
    assert (sample.id, sample.group) == (f"s1/{STEM}/07", f"s1/{STEM}")
    assert {k: sample.info[k] for k in ("speaker", "stem", "frame")} == {"speaker": "s1", "stem": STEM, "frame": 7}
    assert sample.info["time_s"] == pytest.approx(7 / 25)
    assert sample.image.shape == (48, 64, 3)
    assert sample.image.dtype == np.uint8
    assert abs(int(np.median(sample.image)) - 200) <= 4
    assert abs(int(np.median(data[3].image)) - 30) <= 4
    assert sample.present == (True, True, True)
    np.testing.assert_array_equal(sample.visible, np.full(68, 2, np.uint8))
    np.testing.assert_allclose(sample.box_xywh, face_box(sample.keypoints_xy), atol=1e-5)
    assert sample.box_xywh[2] == pytest.approx(2.4 * 16)


def test_labels_move_by_half_a_pixel(root, cache):
    for number, sample in enumerate(GridDataset(root)):
        np.testing.assert_array_equal(sample.keypoints_xy, (face()[number] - 0.5).astype(np.float32))
        assert sample.keypoints_xy.dtype == np.float32


def test_labels_made_at_another_size_are_scaled_about_the_edge(root, cache):
    write_labels(root / f"landmarks/{STEM}.npz", face() * 2, size_hw=(96, 128))
    data = GridDataset(root)
    np.testing.assert_allclose(data[0].keypoints_xy, face()[0] - 0.5, atol=1e-6)
    assert data.problems == (f"s1/{STEM}: landmarks made at 96x128 px are scaled to 48x64",)


def test_picture_and_sound_share_a_clock(root, cache):
    """In these files the two streams start at different times; the tone still sets in with the bright picture."""
    data = GridDataset(root)
    with av.open(str(root / f"s1/{STEM}.mpg")) as container:
        starts = {stream.type: float(stream.start_time * stream.time_base) for stream in container.streams}
    assert abs(starts["video"] - starts["audio"]) > 0.005
    for sample in data:
        onset_s = np.argmax(np.abs(sample.audio) > 0.1) / sample.rate_hz
        bright_s = sample.audio_time_s + (BRIGHT_FROM - sample.info["frame"]) / 25
        assert onset_s == pytest.approx(bright_s, abs=0.003)


def test_sound_is_a_wave_of_16_khz_within_one(root, cache):
    sample = GridDataset(root)[6]
    assert sample.rate_hz == 16_000
    assert sample.audio.dtype == np.float32
    assert np.abs(sample.audio).max() == pytest.approx(12_000 / 32_768, rel=0.1)
    tone_hz = np.argmax(np.abs(np.fft.rfft(sample.audio))) * 16_000 / len(sample.audio)
    assert tone_hz == pytest.approx(0.2 * 44_100 / (2 * np.pi), rel=0.02)


def test_a_long_clip_gives_the_sound_around_the_frame(tmp_path, cache):
    write_video(tmp_path / f"s1/{STEM}.mpg", frames=75)
    write_labels(tmp_path / f"s1/{STEM}.npz", face(75))
    data = GridDataset(tmp_path)
    assert abs(len(data[40].audio) - 1.5 * 16_000) <= 1
    assert data[40].audio_time_s == pytest.approx(0.75, abs=1e-4)
    assert data[1].audio_time_s == pytest.approx(0.04, abs=0.02)
    assert len(data[74].audio) < 16_000


def test_the_cursor_at_known_times(root, cache):
    texts = {sample.info["frame"]: sample.text for sample in GridDataset(root)}
    assert texts[0] == "|bin blue at a"  # 0.00 s: before the first word, which starts at 0.04
    assert texts[3] == "bin |blue at a one please"  # 0.12 s: where bin ends
    assert texts[5] == "bin blue a|t a one please"  # 0.20 s: half of "at", 0.16 to 0.24
    assert texts[11] == "at a one please |"  # 0.44 s: the end; at ends at 0.24, after 0.19


def test_controls_know_no_times_of_the_sound(root, cache):
    sample = GridDataset(root)[3]  # 0.12 s of 0.48 s: with six words of 0.08 s, half of the second
    assert sample.text_controls["no_times"] == "bin blue at a one please"
    assert sample.text_controls["even_times"] == "bin bl|ue at a one"
    assert GridDataset(root, text_times="even")[3].text == "bin bl|ue at a one"
    assert GridDataset(root, text_times="none")[3].text == "bin blue at a one please"
    assert [GridDataset(root, text_times=t)[3].info["text_times"] for t in ("aligned", "even", "none")] == [
        "aligned",
        "even",
        "none",
    ]


def test_without_an_align_the_file_name_speaks(root, cache):
    (root / f"align/{STEM}.align").unlink()
    data = GridDataset(root)
    assert data[3].text == data[3].text_controls["even_times"] == "bin bl|ue at a one"
    assert data[3].info["text_times"] == "even"
    assert data.problems == (f"s1/{STEM}: no .align: words of the file name, evenly spaced",)


def test_no_words_at_all_is_an_absent_text(root, cache):
    (root / f"s1/{STEM}.mpg").rename(root / "s1/take-1.mpg")
    write_labels(root / "landmarks/take-1.npz", face())
    data = GridDataset(root, split="all")
    assert data[0].text is None
    assert data[0].text_controls == {}
    assert data[0].present == (True, False, True)
    assert "no text" in data.problems[0]


def test_the_second_pass_opens_no_video(root, cache, no_video):
    first = GridDataset(root)
    before = [first[i] for i in range(len(first))]
    no_video()
    second = GridDataset(root)
    for one, other in zip(before, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.audio, other.audio)
        assert (one.id, one.text) == (other.id, other.text)
    assert second.fingerprint == first.fingerprint


def test_the_cache_follows_the_clip_and_not_its_folder(root, cache, no_video, tmp_path):
    fingerprint = GridDataset(root).fingerprint
    root.rename(tmp_path / "moved")
    no_video()
    assert GridDataset(tmp_path / "moved").fingerprint == fingerprint


def test_changed_files_are_read_anew(root, cache):
    before = GridDataset(root)
    write_align(root / f"align/{STEM}.align", WORDS.replace("3000", "2000"))
    after = GridDataset(root)
    assert (before[1].text, after[2].text) == ("|bin blue at a", "bin |blue at a one")
    assert before[2].text.split()[0] in ("b|in", "bi|n")
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_covers_the_options(root, cache):
    options = [{}, {"text_times": "even"}, {"frame_step": 2}, {"split": "all"}]
    assert len({GridDataset(root, **option).fingerprint for option in options}) == len(options)


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def damage_by_emptying(path: Path) -> None:
    path.write_bytes(b"")


def damage_by_another_files_content(path: Path) -> None:
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")  # a whole safetensors file, but not one of ours


@pytest.mark.parametrize("damage", [damage_by_cutting, damage_by_emptying, damage_by_another_files_content])
def test_a_damaged_cache_file_is_built_again(root, cache, damage):
    image = GridDataset(root)[3].image
    (file,) = cache.iterdir()
    damage(file)
    again = GridDataset(root)
    np.testing.assert_array_equal(again[3].image, image)
    assert again.problems == ()


def test_a_cache_file_that_goes_while_in_use_is_built_again(root, cache):
    data = GridDataset(root)
    (file,) = cache.iterdir()
    file.unlink()
    assert data[3].id == f"s1/{STEM}/03"
    assert file.exists()


def test_an_interrupted_write_leaves_no_file(root, cache, monkeypatch):
    def stop(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mmkp.data.grid_cache.os.replace", stop)
        with pytest.raises(InputError, match="No space left") as error:
            GridDataset(root)
    assert "MMKP_CACHE" in str(error.value)
    assert list(cache.iterdir()) == []
    assert len(GridDataset(root)) == FRAMES


def test_a_cache_that_cannot_be_made_says_so(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MMKP_CACHE"):
        GridDataset(root, cache_dir=tmp_path / "file")


def test_what_cannot_be_read_is_skipped_by_name_also_from_the_cache(root, cache, no_video):
    (root / "s1/bbab1p.mpg").write_bytes(b"no video " * 100)
    (root / "s1/bbaa1n.mpg").write_bytes(b"")
    write_video(root / "s1/bbab1s.mpg")
    for stem in ("bbab1p", "bbaa1n"):
        write_labels(root / f"landmarks/{stem}.npz", face())
    (root / "landmarks/bbab1s.npz").write_bytes(b"no zip")
    write_video(root / "s1/bbaa1a.mpg")  # no landmarks of it
    first = GridDataset(root)
    assert first.describe()["clips"] == 1
    assert [line.split(":")[0] for line in first.problems] == ["s1/bbaa1a", "s1/bbaa1n", "s1/bbab1p", "s1/bbab1s"]
    assert all("skipped" in line and str(root) not in line for line in first.problems)
    assert "no landmarks" in first.problems[0]
    no_video()
    assert GridDataset(root).problems == first.problems


def test_nothing_usable_is_an_error_that_says_why(root, cache):
    (root / f"s1/{STEM}.mpg").write_bytes(b"no video")
    with pytest.raises(InputError, match=rf"s1/{STEM}.*skipped"):
        GridDataset(root)


def test_a_split_without_clips_is_an_error(root, cache):
    with pytest.raises(InputError, match="1 clips, 0 of them in the split"):
        GridDataset(root, split="validation")


@pytest.mark.parametrize(("pictures", "labels"), [(11, 12), (12, 11)])
def test_a_frame_less_on_either_side_is_reported(root, cache, pictures, labels):
    write_video(root / f"s1/{STEM}.mpg", frames=pictures)
    write_labels(root / f"landmarks/{STEM}.npz", face(labels))
    data = GridDataset(root)
    assert len(data) == 11
    assert data.problems == (f"s1/{STEM}: {pictures} frames, {labels} of landmarks: the first 11 are used",)
    np.testing.assert_array_equal(data[10].keypoints_xy, (face()[10] - 0.5).astype(np.float32))


def test_behind_a_gap_neither_labels_nor_sound_are_trusted(root, cache):
    """Of 40 frames, 10 to 19 are lost with their sound: label 10 is not that of the next picture there is."""
    write_video(root / f"s1/{STEM}.mpg", frames=40, lost_s=(0.4, 0.8))
    write_labels(root / f"landmarks/{STEM}.npz", face(40))
    data = GridDataset(root)
    assert data.problems[0] == f"s1/{STEM}: 30 frames, 40 of landmarks: the first 10 are used"
    assert "its sound has a gap after 0.4" in data.problems[1]
    assert len(data) == 10
    assert len(data[9].audio) == pytest.approx(0.4 * 16_000, abs=600)


def test_frames_long_after_the_sound_has_ended_have_no_audio(root, cache):
    write_video(root / f"s1/{STEM}.mpg", frames=40, lost_s=(0.4, 0.8))
    write_labels(root / f"landmarks/{STEM}.npz", face(30))  # as many labels as pictures: made of these very pictures
    data = GridDataset(root)
    assert len(data) == 30
    assert data[9].audio is not None
    assert data[10].info["time_s"] == pytest.approx(0.8)
    assert data[10].audio is None
    assert data[10].present == (True, True, False)


def test_missing_points_are_masked_and_frames_without_eyes_skipped(root, cache):
    points = face()
    points[2, 50] = np.nan
    points[4, 8, 1] = np.inf
    points[5, 40, 0] = np.nan
    write_labels(root / f"landmarks/{STEM}.npz", points)
    data = GridDataset(root)
    assert [sample.info["frame"] for sample in data] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert np.flatnonzero(data[2].visible == 0).tolist() == [50]
    assert np.flatnonzero(data[4].visible == 0).tolist() == [8]
    assert np.isnan(data[2].keypoints_xy[50]).all()
    assert np.isnan(data[4].keypoints_xy[8]).all()
    assert np.isfinite(data[2].box_xywh).all()
    assert data.problems == (
        f"s1/{STEM}: frames 5: an eye point is missing, so there is no box: skipped",
        f"s1/{STEM}: frames 2, 4: 2 points are missing: masked",
    )


@pytest.mark.parametrize("points", [face()[:, :60], face()[..., :1], np.full((FRAMES, 68, 2), np.nan)])
def test_labels_that_are_no_68_points_skip_the_clip(root, cache, points):
    write_labels(root / f"landmarks/{STEM}.npz", points)
    write_video(root / "s1/bbab1p.mpg")
    write_labels(root / "landmarks/bbab1p.npz", face())
    data = GridDataset(root)
    assert {sample.group for sample in data} == {"s1/bbab1p"}
    assert data.problems[0].startswith(f"s1/{STEM}: ")


def test_labels_are_never_unpickled(root, cache):
    np.savez(root / f"landmarks/{STEM}.npz", keypoints_xy=np.array([{}], dtype=object), size_hw=np.array([48, 64]))
    with pytest.raises(InputError, match="landmarks .npz cannot be read"):
        GridDataset(root)


def test_a_clip_without_sound_has_no_audio(root, cache):
    write_video(root / f"s1/{STEM}.mpg", sound=False)
    data = GridDataset(root)
    assert data[3].audio is None
    assert data[3].audio_time_s is None
    assert data.problems == (f"s1/{STEM}: no sound in it: no audio",)


def test_bad_align_lines_are_reported(root, cache):
    write_align(root / f"align/{STEM}.align", WORDS.replace("3000 4000 blue", "3000 blue"))
    data = GridDataset(root)
    assert data[3].info["text_times"] == "even"
    assert any(".align line 3" in line for line in data.problems)


def test_frame_step_takes_every_nth_frame_of_the_clip(root, cache):
    assert [sample.info["frame"] for sample in GridDataset(root, frame_step=5)] == [0, 5, 10]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "trian"}, "'train'"),
        ({"split": "val"}, "one of train, validation, test"),
        ({"text_times": "align"}, "'aligned'"),
        ({"frame_step": 0}, "frame_step"),
    ],
)
def test_wrong_options_are_refused_by_name(root, cache, options, match):
    with pytest.raises(InputError, match=match):
        GridDataset(root, **options)


def test_it_travels_to_a_worker(root, cache):
    data = GridDataset(root)
    before = data[3]
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[3].image, before.image)
    assert copy.fingerprint == data.fingerprint


def test_indices_count_from_either_end_and_stop(root, cache):
    data = GridDataset(root)
    assert data[-1].id == data[FRAMES - 1].id
    with pytest.raises(IndexError):
        data[FRAMES]


def test_an_older_version_of_the_cache_is_not_used(root, cache, monkeypatch):
    GridDataset(root)
    monkeypatch.setattr("mmkp.data.grid_cache.VERSION", VERSION + 1)
    GridDataset(root)
    assert len(list(cache.iterdir())) == 2
