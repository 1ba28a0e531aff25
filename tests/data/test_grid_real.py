"""GridDataset on clips of the real corpus, where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mmkp.data.grid import GridDataset
from mmkp.data.grid_files import find_clips, read_words

CLIPS = 24  # beside those of other people; fewer give the sound's lag no clear peak


@pytest.fixture(scope="module")
def corpus() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "grid"
    path = Path(os.environ.get("MMKP_TEST_GRID") or beside)
    if not path.is_dir():
        pytest.skip("the GRID corpus is not here: set MMKP_TEST_GRID to its folder (data_cards/grid.md)")
    return path


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> GridDataset:
    """A few clips of the corpus, linked into a folder of their own."""
    root = tmp_path_factory.mktemp("grid")
    clips = find_clips(corpus)[0]
    for clip in [c for c in clips if not c.others][:CLIPS] + [c for c in clips if c.others]:
        folder = root / clip.speaker
        folder.mkdir(exist_ok=True)
        for file in (clip.video, clip.align, clip.landmarks):
            if file:
                (folder / file.name).symlink_to(file)
    return GridDataset(root, split="all", cache_dir=root / "cache")


def test_every_clip_has_75_frames_of_the_corpus_size(data):
    assert len(data) == 75 * len(data.clips)
    assert {data[i].image.shape for i in range(0, len(data), 75)} == {(288, 360, 3)}
    assert [data[i].info["time_s"] for i in (0, 1, 74)] == pytest.approx([0, 0.04, 2.96])


def test_only_missing_aligns_are_reported(data):
    assert all("no .align" in line for line in data.problems)


def test_eyes_lie_in_the_middle_of_the_box_and_lips_below_them(data):
    for index in range(0, len(data), 55):
        sample = data[index]
        x, y, side, _ = sample.box_xywh
        relative = (sample.keypoints_xy - (x, y)) / side
        assert relative[36:48, 0].mean() == pytest.approx(0.5, abs=0.01)
        assert 0.5 < relative[48:68, 1].mean() < 0.8
        assert (relative > 0).all() and (relative < 1).all()


def test_lips_are_redder_than_the_skin_around_them(data):
    """Labels that sit wrong by more than a lip's height would fail; the inner side of the lower lip is looked at."""
    redder = []
    for index in range(0, len(data), 35):
        sample = data[index]
        lip_xy = (sample.keypoints_xy[57] + sample.keypoints_xy[66]) / 2
        chin_xy = 0.5 * (sample.keypoints_xy[57] + sample.keypoints_xy[8])
        lip, chin = (sample.image[round(float(y)), round(float(x))].astype(float) for x, y in (lip_xy, chin_xy))
        redder.append(lip[0] / lip[1] - chin[0] / chin[1])
    assert np.mean(np.array(redder) > 0) > 0.9


def test_the_sound_is_loud_when_the_mouth_is_open(data):
    """Energy against lip opening, by lag: the peak lies within a frame of none (0.01 s later over 240 clips of s1)."""
    lags_s = np.arange(-0.2, 0.21, 0.04)
    curves = []
    for clip in range(len(data.clips)):
        samples = [data[i] for i in range(clip * 75 + 8, clip * 75 + 67)]
        gaps = [np.linalg.norm(s.keypoints_xy[62] - s.keypoints_xy[66]) for s in samples]
        curves.append([np.corrcoef(gaps, [energy(s, lag) for s in samples])[0, 1] for lag in lags_s])
    mean = np.mean(curves, axis=0)
    assert abs(lags_s[mean.argmax()]) <= 0.04
    assert mean.max() > 0.4


def energy(sample, lag_s: float) -> float:
    """Log energy of 40 ms of sound about the frame's time plus a lag."""
    middle = round((sample.audio_time_s + lag_s) * sample.rate_hz)
    return float(np.log((sample.audio[max(0, middle - 320) : middle + 320].astype(float) ** 2).mean() + 1e-7))


def test_every_align_of_the_corpus_says_what_the_file_name_spells(corpus):
    """Of the excerpt's 241 aligns none has a bad line or another sentence."""
    clips = [clip for clip in find_clips(corpus)[0] if clip.align]
    assert [(clip.name, problems) for clip in clips if (problems := read_words(clip)[2])] == []
