"""The GRID audio-visual corpus: a face's 68 points, what is said, and its sound, frame by frame."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmkp.data.face import face_box
from mmkp.data.grid_cache import (
    READ_ERRORS,
    VERSION,
    Clip,
    FrameData,
    build_clip,
    cache_folder,
    cached_clips,
    read_frame,
)
from mmkp.data.grid_decode import RATE_HZ
from mmkp.data.grid_files import CARD, find_clips
from mmkp.data.sample import Sample
from mmkp.data.timing import WINDOW_S, evenly_spaced, sentence, text_at
from mmkp.errors import InputError, nearest
from mmkp.schema import load_schema

SPLITS = ("train", "validation", "test", "others", "all")
TEXT_TIMES = ("aligned", "even", "none")
SOUND_SPAN_S = 1.5  # of sound around a frame: the protocol's 0.5 s, and half a second each way to move it by


class GridDataset:
    """GRID as samples: one per video frame, image frame px, times in seconds after the clip's first frame.

    Args:
        path: a folder in the corpus's layout, one speaker or several (data_cards/grid.md).
        split: train, validation, test, others (the clips under others/) or all.
        cache_dir: where decoded clips are kept; else $MMKP_CACHE, else ~/.cache/mmkp.
        text_times: what `Sample.text` is: `aligned` (cursor by the .align; evenly spaced words where there is none),
            `even` (cursor by evenly spaced words) or `none` (the sentence, without cursor).
        frame_step: take every n-th frame of a clip.

    Raises:
        InputError: no such split, folder, clips or landmarks; a cache that cannot be written.
    """

    name = "grid"
    schema = load_schema("face68")

    def __init__(
        self,
        path: str | Path,
        split: str = "train",
        cache_dir: str | Path | None = None,
        text_times: str = "aligned",
        frame_step: int = 1,
    ) -> None:
        for where, value, choices in (("split", split, SPLITS), ("text_times", text_times, TEXT_TIMES)):
            if value not in choices:
                expected = f"one of {', '.join(choices)}"
                raise InputError(f"grid {where}", expected=expected, got=repr(value), remedy=nearest(value, choices))
        if frame_step < 1:
            raise InputError(
                "grid frame_step", expected="1 or more", got=str(frame_step), remedy="1 takes every frame."
            )
        self.path, self.split, self.text_times, self.frame_step = Path(path).expanduser(), split, text_times, frame_step
        found, problems = find_clips(self.path)
        sources = [files for files in found if split in ("all", files.split)]
        self._folder = cache_folder(cache_dir)
        clips = cached_clips(sources, self._folder)
        for clip in clips:
            faults = [f"{clip.error}: skipped"] if clip.error else clip.problems
            problems += [f"{clip.files.name}: {fault}" for fault in faults]
        self.problems = tuple(problems)
        self.clips: list[Clip] = [clip for clip in clips if clip.error is None]
        self._index = [
            (number, frame)
            for number, clip in enumerate(self.clips)
            for frame in clip.frames
            if frame % frame_step == 0
        ]
        if not self._index:
            got = f"{len(found)} clips, {len(sources)} of them in the split, none usable"
            remedy = f"Try split 'all', or see {CARD}. {' '.join(problems[:3])}"
            raise InputError(f"grid:{self.path} split {split}", expected="at least one clip", got=got, remedy=remedy)
        self.fingerprint = self._fingerprint()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:
        number, frame = self._index[index]
        clip = self.clips[number]
        data, audio_time_s = self._read(number, frame)
        time_s = float(clip.times_s[frame])
        even_times = text_at(evenly_spaced([word.text for word in clip.words], clip.duration_s), time_s)
        texts = {"aligned": text_at(clip.words, time_s), "even": even_times, "none": sentence(clip.words)}
        text_times = "even" if self.text_times == "aligned" and not clip.timed else self.text_times
        return Sample(
            id=f"{clip.files.name}/{frame:02d}",
            group=clip.files.name,
            keypoints_xy=data.keypoints_xy,
            visible=np.where(np.isfinite(data.keypoints_xy).all(-1), 2, 0).astype(np.uint8),
            box_xywh=face_box(data.keypoints_xy.astype(np.float64)),
            image=data.image,
            audio=data.sound.astype(np.float32) / 32768 if audio_time_s is not None else None,
            rate_hz=RATE_HZ,
            audio_time_s=audio_time_s,
            text=texts[text_times] if clip.words else None,
            text_controls={"no_times": texts["none"], "even_times": even_times} if clip.words else {},
            info={
                "speaker": clip.files.speaker,
                "stem": clip.files.stem,
                "frame": frame,
                "time_s": time_s,
                "text_times": text_times,
            },
        )

    def describe(self) -> dict[str, Any]:
        """What is in it: counts of clips, frames and speakers, and the problems met."""
        return {
            "split": self.split,
            "clips": len(self.clips),
            "frames": len(self),
            "speakers": len({clip.files.speaker for clip in self.clips}),
            "problems": len(self.problems),
        }

    def _read(self, number: int, frame: int) -> tuple[FrameData, float | None]:
        """A frame with the sound around it, and the frame's time within that sound (None: no sound)."""
        clip = self.clips[number]
        at_s = None if clip.sound_start_s is None else float(clip.times_s[frame]) - clip.sound_start_s
        if at_s is not None and not -WINDOW_S / 2 < at_s < clip.sound_s + WINDOW_S / 2:
            at_s = None  # the window that a model hears would hold none of the sound
        # A whole sample, so that the cut does not move the sound against the picture.
        from_s = 0.0 if at_s is None else max(0, round((at_s - SOUND_SPAN_S / 2) * RATE_HZ)) / RATE_HZ
        to_s = 0.0 if at_s is None else at_s + SOUND_SPAN_S / 2
        read = partial(read_frame, frame=frame, from_s=from_s, to_s=to_s)
        try:
            data = read(clip)
        except READ_ERRORS:  # damaged or removed since it was opened
            clip = build_clip(clip.files, self._folder)
            if clip.error:
                remedy = f"Put the clip back as it was, or open the dataset anew. See {CARD}."
                raise InputError(clip.files.name, expected="its files", got=clip.error, remedy=remedy) from None
            self.clips[number] = clip
            data = read(clip)
        return data, None if at_s is None else at_s - from_s

    def _fingerprint(self) -> str:
        used = [(clip.files.name, clip.digest) for clip in self.clips]
        content = json.dumps([VERSION, self.split, self.text_times, self.frame_step, used])
        return hashlib.sha1(content.encode()).hexdigest()[:16]
