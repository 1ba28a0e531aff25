"""What each modality can know of a covered mouth: the lip NME of a best guess from the generator's own variables.

Not a trained network's figure but a yardstick for one: the guess sees the quantities a perfect reader of each modality
would read, with the blur that modality has, and learns the mean of the lips given them from half of the clips.

image: pose (2 degrees blur), smile as cheeks and lids show it, and whatever of the jaw line the cover leaves in sight.
text: the mouth that a neutral voice would make at the cursor, which only knows a place among a word's letters.
audio: the mouth as it sounds (stops sound alike, so do f and th), and how loud it is.

Errors are measured in the frame of the eyes. Who has no picture is not told how the head is rolled: a model is given
a box, which stands upright whatever the head does. What is best in the frame of the box is told beside it for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from mmkp.data.face import eye_frame
from mmkp.data.sample import MODALITIES
from mmkp.data.talker.clip import FRAMES_PER_CLIP, Clip, make_clip, moment
from mmkp.data.talker.mouth import landmarks
from mmkp.data.talker.speech import synthesise
from mmkp.data.talker.view import View
from mmkp.data.talker.visemes import STEP_S, trajectory
from mmkp.errors import InputError

GATE = 0.8  # all three together must err at most this share of the best single modality
_TAKEN_FOR = {"pbm": "tdn", "kg": "tdn", "fv": "th"}  # a stop is a silence, weak fricatives are one hiss
_AROUND_S = np.array([-0.08, 0.0, 0.08])  # a reader of either also knows what comes before and after
# Blur of what is read, standard deviations: degrees of pose, smile (of a range of 1.5), a jaw point's place in
# outer-eye distances (about 0.4 px of a 96 px picture), the mouth as it sounds (of ranges of about 1), log loudness.
_POSE_DEG, _SMILE, _PLACE_D, _SOUND, _LOUD = 2.0, 0.2, 0.012, 0.10, 0.12
_CHIN, _SIDES, _TEMPLES = np.arange(6, 11), [3, 4, 12, 13], (1, 15)  # of the jaw line's 17 points
_COMPONENTS = 12  # of the 40 lip coordinates: more than the generator has degrees of freedom there
_LEAST_CLIPS = 20


def ceilings(n: int = 4000, seed: int = 0, split: str = "train") -> dict[str, Any]:
    """Monte Carlo of the lip NME (of the outer-eye distance) with the mouth covered.

    Args:
        n: samples drawn, in clips of 8; half of the clips teach, half are judged.
        seed: of the clips and of every blur.
        split: whose sentences are spoken.

    Returns:
        For each subset of the modalities, joined by "+", and for mean_shape {"lip_nme", "ci95", "n"}, and the same
        under "in_box" for those without the image, in the frame of the face's box; "gate" with the share that all
        three reach of the best single one, and whether that passes.

    Raises:
        InputError: too few samples for an interval.
    """
    clips = n // FRAMES_PER_CLIP
    if clips < _LEAST_CLIPS:
        raise InputError(
            "ceilings", expected=f"n of at least {_LEAST_CLIPS * FRAMES_PER_CLIP}", got=str(n), remedy="Draw more."
        )
    drawn = [_observe(make_clip(seed, split, i), np.random.default_rng([seed, i])) for i in range(clips)]
    known = {m: np.concatenate([d[m] for d in drawn]) for m in MODALITIES}
    lips, in_box = (np.concatenate([d[frame] for d in drawn]) for frame in ("lips", "lips_in_box"))
    group = np.repeat(np.arange(clips), FRAMES_PER_CLIP)
    teach = group % 2 == 0

    def judge(names: Sequence[str], points: np.ndarray) -> dict[str, Any]:
        if names:
            features = np.concatenate([known[m] for m in names], axis=1)
            guess = _learn(features[teach], points[teach], seed)(features[~teach])
        else:
            guess = points[teach].mean(0)
        return _summary(points[~teach] - guess, group[~teach], seed)

    result: dict[str, Any] = {}
    for names in (c for count in range(4) for c in combinations(MODALITIES, count)):
        found = judge(names, lips)
        if "image" not in names:
            found["in_box"] = judge(names, in_box)
        result["+".join(names) or "mean_shape"] = found
    best = min(MODALITIES, key=lambda m: result[m]["lip_nme"])
    ratio = result["+".join(MODALITIES)]["lip_nme"] / result[best]["lip_nme"]
    result["gate"] = {"passed": bool(ratio <= GATE), "ratio": ratio, "limit": GATE, "best_single": best}
    return result


def _observe(clip: Clip, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the modalities know at each frame of a clip, and where the lips are (8, 40), in outer-eye distances: in
    the frame of the eyes and in that of the box."""
    neutral = synthesise(clip.sentence)
    read = trajectory(neutral.phonemes, neutral.duration_s)
    heard = trajectory(clip.speech.phonemes, clip.speech.duration_s, _TAKEN_FOR)
    cover_d = rng.uniform([0.42, 1.35, 0.50], [0.55, 1.55, 0.70])  # the protocol's: top, bottom, half width
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*MODALITIES, "lips", "lips_in_box")}
    for time_s in clip.frames_s:
        state, view = moment(clip, float(time_s), rng)
        shown = view.project(landmarks(clip.person, state))
        points, rolled = in_eye_frame(shown), in_box_frame(shown)
        rows["lips"].append(points[48:].ravel())
        rows["lips_in_box"].append(rolled[48:].ravel())
        rows["image"].append(_seen(points, view, state.smile, cover_d, rng))
        rows["text"].append(_window(read, _place_in_neutral(clip, neutral.words, float(time_s))))
        sound = _window(heard, float(time_s))
        loud = np.log(np.interp(time_s, np.arange(len(clip.gain)) * STEP_S, clip.gain))
        blur = np.append(np.full(len(sound), _SOUND), _LOUD)
        rows["audio"].append(np.append(sound, loud) + rng.normal(0, blur))
    return {name: np.array(values) for name, values in rows.items()}


def in_eye_frame(keypoints_xy: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68 2"]:
    """Points about the middle of the eyes, upright, in outer-eye distances: what a face's box and roll leave."""
    middle, distance, roll = eye_frame(keypoints_xy)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return (keypoints_xy - middle) @ turn / distance


def in_box_frame(keypoints_xy: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68 2"]:
    """Points about the middle of the eyes, in outer-eye distances, rolled as they are: what a face's box leaves."""
    middle, distance, _ = eye_frame(keypoints_xy)
    return (keypoints_xy - middle) / distance


def _seen(
    points: np.ndarray, view: View, smile: float, cover_d: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, " 8"]:
    """Pose, smile, the size of the face against its eyes, and the chin where it shows below the cover."""
    top, bottom, half_width = cover_d
    blurred = points[:27] + rng.normal(0, _PLACE_D, (27, 2))
    jaw = blurred[:17]
    hidden = (np.abs(jaw[:, 0]) < half_width) & (jaw[:, 1] > top) & (jaw[:, 1] < bottom)
    chin = bottom if hidden[_CHIN].all() else jaw[_CHIN][~hidden[_CHIN], 1].max()
    sides = jaw[_SIDES, 1].mean()
    width = np.linalg.norm(jaw[_TEMPLES[0]] - jaw[_TEMPLES[1]])
    pose = np.radians([view.yaw, view.pitch, view.roll] + rng.normal(0, _POSE_DEG, 3))
    return np.concatenate([pose, [smile + rng.normal(0, _SMILE), width, sides, chin, bottom]])


def _window(mouth: Float[np.ndarray, "F 6"], time_s: float) -> Float[np.ndarray, " 7"]:
    """What shows of the mouth's parameters (all but the tongue) at a moment, and the jaw before and after."""
    before, now, after = np.clip(np.round((_AROUND_S + time_s) / STEP_S).astype(int), 0, len(mouth) - 1)
    return np.concatenate([mouth[now, :5], mouth[[before, after], 0]])


def _place_in_neutral(clip: Clip, words: Sequence[Any], time_s: float) -> float:
    """The moment in a neutral reading of the same words that the cursor points at, known to a letter."""
    index = max(0, sum(word.start_s <= time_s for word in clip.words) - 1)
    word, other = clip.words[index], words[min(index, len(words) - 1)]
    share = np.clip((time_s - word.start_s) / max(1e-6, word.end_s - word.start_s), 0, 1)
    share = round(share * len(word.text)) / len(word.text)
    return other.start_s + share * (other.end_s - other.start_s)


def _learn(features: np.ndarray, lips: np.ndarray, seed: int) -> Any:
    """The mean of the lips given the features: a quadratic ridge, and a forest for what that leaves."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    shape = PCA(_COMPONENTS, random_state=seed).fit(lips)
    target = shape.transform(lips)
    # Ridge strengths over four decades, chosen by leave-one-out on the teaching half alone.
    smooth = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), RidgeCV(np.logspace(0, 4, 5))
    ).fit(features, target)
    forest = ExtraTreesRegressor(40, min_samples_leaf=8, max_features=0.5, random_state=seed)
    forest.fit(features, target - smooth.predict(features))
    return lambda unseen: shape.inverse_transform(smooth.predict(unseen) + forest.predict(unseen))


def _summary(errors: Float[np.ndarray, "m 40"], group: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean over lip points and samples, with a bootstrap over clips (10,000 draws, as the protocol asks)."""
    per_sample = np.linalg.norm(errors.reshape(len(errors), -1, 2), axis=-1).mean(1)
    per_clip = per_sample.reshape(-1, FRAMES_PER_CLIP).mean(1)
    picks = np.random.default_rng(seed).multinomial(len(per_clip), np.full(len(per_clip), 1 / len(per_clip)), 10_000)
    low, high = np.percentile(picks @ per_clip / len(per_clip), [2.5, 97.5])
    return {"lip_nme": float(per_sample.mean()), "ci95": [float(low), float(high)], "n": len(group)}
