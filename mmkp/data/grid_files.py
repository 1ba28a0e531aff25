"""The GRID corpus on disk: which files make a clip, which split it is in, and what is said in it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmkp.data.timing import Word
from mmkp.errors import InputError

CARD = "data_cards/grid.md"
OTHERS = "others"
VIDEO_SUFFIXES = (".mpg", ".mpeg")
# Folders that hold a kind of file and not a speaker; the mpg_* ones are the corpus's own names of its archives.
KIND_FOLDERS = ("video", "mpg_6000", "mpg_vcd")
ALIGN_FOLDERS = ("align", "alignments")
MAX_DEPTH = 5  # root/others/s1/video/mpg_6000 is the deepest form seen
UNITS_PER_SECOND = 25_000  # of an .align: 1000 units are one frame of 25 per second
SILENCES = ("sil", "sp")

_COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
_COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
_PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
_LETTERS = {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"}  # no w: its name has three syllables
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = {"z": "zero", **{str(i + 1): name for i, name in enumerate(_NUMBERS)}}
_ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
_GRAMMAR = (_COMMANDS, _COLOURS, _PREPOSITIONS, _LETTERS, _DIGITS, _ADVERBS)


@dataclass(frozen=True)
class ClipFiles:
    """The files of one clip. `shared` names the kinds of file left out because two speakers' clips lay claim to it."""

    speaker: str
    stem: str
    video: Path
    align: Path | None
    landmarks: Path | None
    others: bool = False
    shared: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How reports call the clip."""
        return f"{self.speaker}/{self.stem}"

    @property
    def split(self) -> str:
        """train, validation, test or others."""
        return OTHERS if self.others else split_of(self.stem)

    def identity(self) -> str:
        """Changes with the size or time of any of the files, and not with the folder they lie in."""
        stats = [p.stat() if p else None for p in (self.video, self.align, self.landmarks)]
        return repr([self.stem, *((s.st_size, s.st_mtime_ns) if s else None for s in stats)])

    def digest(self) -> str:
        """sha1 of the files' content: the same on every machine."""
        content = hashlib.sha1()
        for path in (self.video, self.align, self.landmarks):
            content.update(hashlib.sha1(path.read_bytes()).digest() if path else b"none")
        return content.hexdigest()


def split_of(stem: str) -> str:
    """The split of a clip by its stem (DESIGN, section 6)."""
    bucket = int(hashlib.sha1(stem.encode()).hexdigest(), 16) % 10
    return "train" if bucket < 7 else "validation" if bucket == 7 else "test"


def spelled_words(stem: str) -> list[str] | None:
    """The six words that a clip's name spells ("bbaf2n": bin blue at f two now), or None if it spells none."""
    if len(stem) != len(_GRAMMAR) or any(c not in words for c, words in zip(stem.lower(), _GRAMMAR, strict=True)):
        return None
    return [words[c] for c, words in zip(stem.lower(), _GRAMMAR, strict=True)]


def find_clips(root: Path) -> tuple[list[ClipFiles], list[str]]:
    """Every clip in a folder, sorted by speaker and stem, and what was odd about the folder.

    Raises:
        InputError: no such folder, no clips in it, or no landmarks for any of them.
    """
    expected = "a folder with s*/*.mpg (or video/, s*/video/), align/*.align and landmarks/*.npz"
    if not root.is_dir():
        got = "a file" if root.exists() else "no such folder"
        raise InputError(f"grid:{root}", expected=expected, got=got, remedy=f"See {CARD}.")
    clips, problems = {}, []
    for video in _videos(root):
        clip = _clip_files(root, video)
        if clip.name in clips:
            problems.append(f"{clip.name}: there twice, {video.relative_to(root)} is left out")
            continue
        clips[clip.name] = clip
    if not clips:
        raise InputError(f"grid:{root}", expected=expected, got="no .mpg in it", remedy=f"See {CARD}.")
    if not any(clip.landmarks for clip in clips.values()):
        remedy = f"How to make them: {CARD}."
        raise InputError(f"grid:{root}", expected=expected, got=f"{len(clips)} clips, no landmarks", remedy=remedy)
    return _without_shared([clips[name] for name in sorted(clips)]), problems


def read_words(clip: ClipFiles) -> tuple[list[Word] | None, list[str], list[str]]:
    """What is said in a clip, and what was wrong with its `.align`.

    Returns:
        The words with their times, or None if these are not known: then the words of the file name count. An `.align`
        that lost a word to a bad line gives way to them. The words of the file name, none if it spells no sentence.
        The problems.
    """
    spelled = spelled_words(clip.stem) or []
    instead = "words of the file name, evenly spaced" if spelled else "no text, for the file name spells no sentence"
    if clip.align is None:
        why = "its .align belongs to two speakers' clips" if "align" in clip.shared else "no .align"
        return None, spelled, [f"{why}: {instead}"]
    try:
        words, faults = parse_align(clip.align.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return None, spelled, [f".align: {error.strerror}: {instead}"]
    said = [word.text for word in words]
    if not words or (faults and spelled and said != spelled):
        return None, spelled, [*faults, f"no full sentence in the .align: {instead}"]
    if spelled and said != spelled:
        faults.append(f"the .align says {' '.join(said)!r}, the file name {' '.join(spelled)!r}: the .align is used")
    return words, spelled, faults


def parse_align(text: str) -> tuple[list[Word], list[str]]:
    """The words of an `.align` (lines "start end word", 25,000 units per second), and its bad lines."""
    words: list[Word] = []
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            faults.append(f".align line {number}: expected 'start end word', got {line.strip()[:40]!r}")
            continue
        start_s, end_s = (int(field) / UNITS_PER_SECOND for field in fields[:2])
        if end_s <= start_s or (words and start_s < words[-1].end_s):
            faults.append(
                f".align line {number}: it ends before it starts or overlaps the line before: {line.strip()!r}"
            )
        elif fields[2].lower() not in SILENCES:
            words.append(Word(fields[2].lower(), start_s, end_s))
    return words, faults


def _videos(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        # Hidden files are what macOS leaves in archives (._bbaf2n.mpg), not clips.
        subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "__"))) if depth < MAX_DEPTH else []
        for name in sorted(names):
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _clip_files(root: Path, video: Path) -> ClipFiles:
    """The files beside a video: in its own folder, its speaker's, and those above up to the root, nearest first."""
    parts = video.relative_to(root).parts[:-1]
    speakers = [p for p in parts if p not in KIND_FOLDERS] or [root.resolve().name]
    others = OTHERS in speakers
    speaker = speakers[-1] if speakers[-1] == OTHERS or not others else f"{OTHERS}/{speakers[-1]}"
    folders = [root.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
    if OTHERS in parts:
        # They are other people: a file of the same name at the root is not theirs.
        folders = folders[parts.index(OTHERS) + 1 :]

    def beside(kinds: tuple[str, ...], suffix: str) -> Path | None:
        nested = [names for kind in kinds for names in ((speakers[-1], kind), (kind, speakers[-1]), (kind,))]
        places = (f.joinpath(*names, video.stem + suffix) for f in reversed(folders) for names in [*nested, ()])
        return next((path for path in places if path.is_file()), None)

    align, landmarks = beside(ALIGN_FOLDERS, ".align"), beside(("landmarks",), ".npz")
    return ClipFiles(speaker, video.stem, video, align, landmarks, others)


def _without_shared(clips: list[ClipFiles]) -> list[ClipFiles]:
    """Drop an align or landmarks file that two clips claim: two speakers say the same sentence, it is one's only."""
    uses = Counter(path for clip in clips for path in (clip.align, clip.landmarks) if path)

    def cleaned(clip: ClipFiles) -> ClipFiles:
        shared = tuple(kind for kind in ("align", "landmarks") if uses.get(getattr(clip, kind), 0) > 1)
        align = None if "align" in shared else clip.align
        return replace(clip, shared=shared, align=align, landmarks=None if "landmarks" in shared else clip.landmarks)

    return [cleaned(clip) for clip in clips]
