"""Which files make a GRID clip, in which split it is, and what is said in it. No media file is opened here."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkp.data.grid_files import find_clips, parse_align, read_words, spelled_words, split_of
from mmkp.data.timing import Word
from mmkp.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(root: Path) -> list[tuple[str, str | None, str | None]]:
    def relative(path: Path | None) -> str | None:
        return path.relative_to(root).as_posix() if path else None

    return [(c.name, relative(c.align), relative(c.landmarks)) for c in find_clips(root)[0]]


@pytest.mark.parametrize(
    ("video", "align", "landmarks", "name"),
    [
        ("s1/bbaf2n.mpg", "align/bbaf2n.align", "landmarks/bbaf2n.npz", "s1/bbaf2n"),
        ("s1/video/bbaf2n.mpg", "s1/align/bbaf2n.align", "s1/landmarks/bbaf2n.npz", "s1/bbaf2n"),
        ("s1/video/mpg_6000/bbaf2n.mpg", "alignments/s1/bbaf2n.align", "landmarks/s1/bbaf2n.npz", "s1/bbaf2n"),
        ("s1/bbaf2n.MPG", "s1/bbaf2n.align", "s1/bbaf2n.npz", "s1/bbaf2n"),
        ("video/bbaf2n.mpg", "align/bbaf2n.align", "landmarks/bbaf2n.npz", "corpus/bbaf2n"),
        ("others/video/bbaf2n.mpg", "others/align/bbaf2n.align", "others/landmarks/bbaf2n.npz", "others/bbaf2n"),
        ("others/s9/bbaf2n.mpg", "others/align/bbaf2n.align", "others/s9/landmarks/bbaf2n.npz", "others/s9/bbaf2n"),
    ],
)
def test_the_layouts_the_corpus_comes_in(tmp_path, video, align, landmarks, name):
    root = touch(tmp_path / "corpus", video, align, landmarks)
    assert found(root) == [(name, align, landmarks)]


def test_the_nearest_file_is_the_clips_own(tmp_path):
    root = touch(tmp_path, "s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "s1/align/bbaf2n.align", "s2/align/bbaf2n.align")
    touch(root, "align/bbaf2n.align", "landmarks/s1/bbaf2n.npz", "landmarks/s2/bbaf2n.npz")
    assert found(root) == [
        ("s1/bbaf2n", "s1/align/bbaf2n.align", "landmarks/s1/bbaf2n.npz"),
        ("s2/bbaf2n", "s2/align/bbaf2n.align", "landmarks/s2/bbaf2n.npz"),
    ]


def test_a_file_that_two_speakers_clips_claim_is_nobodys(tmp_path):
    root = touch(tmp_path, "s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "align/bbaf2n.align")
    touch(root, "landmarks/s1/bbaf2n.npz", "landmarks/s2/bbaf2n.npz")
    clips, _ = find_clips(root)
    assert [clip.align for clip in clips] == [None, None]
    timed, spelled, problems = read_words(clips[0])
    assert timed is None
    assert spelled == ["bin", "blue", "at", "f", "two", "now"]
    assert "two speakers" in problems[0]


def test_others_take_no_file_of_the_same_name_from_the_root(tmp_path):
    root = touch(tmp_path, "others/video/bbaf2n.mpg", "align/bbaf2n.align", "others/landmarks/bbaf2n.npz")
    assert found(root) == [("others/bbaf2n", None, "others/landmarks/bbaf2n.npz")]


def test_a_clip_there_twice_is_taken_once_and_reported(tmp_path):
    root = touch(tmp_path, "s1/video/mpg_6000/bbaf2n.mpg", "s1/bbaf2n.mpg", "landmarks/bbaf2n.npz")
    clips, problems = find_clips(root)
    assert [clip.video.relative_to(root).as_posix() for clip in clips] == ["s1/bbaf2n.mpg"]
    assert problems == ["s1/bbaf2n: there twice, s1/video/mpg_6000/bbaf2n.mpg is left out"]


def test_what_an_archive_of_macos_leaves_is_no_clip(tmp_path):
    root = touch(tmp_path, "s1/bbaf2n.mpg", "s1/._bbaf2n.mpg", "__MACOSX/s1/bbaf2n.mpg", "landmarks/bbaf2n.npz")
    assert len(found(root)) == 1


@pytest.mark.parametrize(
    ("names", "got"),
    [([], "no .mpg"), (["s1/a.txt"], "no .mpg"), (["s1/bbaf2n.mpg", "align/bbaf2n.align"], "1 clips, no landmarks")],
)
def test_no_dataset_there_names_the_data_card(tmp_path, names, got):
    with pytest.raises(InputError, match=got) as error:
        find_clips(touch(tmp_path, *names))
    assert "data_cards/grid.md" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_clips(tmp_path / "grid")
    with pytest.raises(InputError, match="got a file"):
        find_clips(touch(tmp_path, "grid.zip") / "grid.zip")


# Stems and sha1(stem) % 10, worked out apart from the package.
SPLITS_BY_HAND = {
    "bbaa2s": "train",  # 0
    "bbab1p": "train",  # 1
    "bbaa1n": "train",  # 2
    "bbaa1p": "train",  # 3
    "bbab1s": "train",  # 4
    "bbaa1a": "train",  # 5
    "bbac1s": "train",  # 6
    "bbaa2p": "validation",  # 7
    "bbab2n": "test",  # 8
    "bbab1n": "test",  # 9
}


def test_the_split_is_sha1_of_the_stem_modulo_ten():
    assert {stem: split_of(stem) for stem in SPLITS_BY_HAND} == SPLITS_BY_HAND


def test_clips_under_others_are_in_no_split_of_the_rest(tmp_path):
    root = touch(tmp_path, "others/video/bbaf2n.mpg", "s1/bbaf2n.mpg", "landmarks/bbaf2n.npz")
    assert [(clip.name, clip.split) for clip in find_clips(root)[0]] == [
        ("others/bbaf2n", "others"),
        ("s1/bbaf2n", split_of("bbaf2n")),
    ]


@pytest.mark.parametrize(
    ("stem", "sentence"),
    [
        ("bbaf2n", "bin blue at f two now"),
        ("lgbzzp", "lay green by z zero please"),
        ("prix1s", "place red in x one soon"),
        ("swwa9a", "set white with a nine again"),
    ],
)
def test_the_file_name_spells_the_sentence(stem, sentence):
    assert spelled_words(stem) == sentence.split()


@pytest.mark.parametrize("stem", ["bbaf2", "bbaf2nn", "xbaf2n", "bbaw2n", "bbaf0n", "interview"])
def test_a_name_that_spells_no_sentence(stem):
    assert spelled_words(stem) is None


def test_align_has_25000_units_a_second_and_silences_are_no_words():
    words, faults = parse_align("0 23750 sil\n23750 29500 bin\n29500 34000 BLUE\n34000 34500 sp\n\n34500 40000 at\n")
    assert words == [Word("bin", 0.95, 1.18), Word("blue", 1.18, 1.36), Word("at", 1.38, 1.6)]
    assert faults == []


@pytest.mark.parametrize(
    "line",
    ["23750 bin", "a b bin", "23750 29500 bin blue", "-5 100 bin", "29500 23750 bin", "100 100 bin", "nan 1 bin"],
)
def test_bad_align_lines_are_named(line):
    words, faults = parse_align(f"0 50 sil\n{line}\n30000 40000 blue\n")
    assert [word.text for word in words] == ["blue"]
    assert len(faults) == 1
    assert faults[0].startswith(".align line 2")


def test_overlapping_words_are_named():
    words, faults = parse_align("0 20000 bin\n10000 30000 blue\n20000 30000 at\n")
    assert [word.text for word in words] == ["bin", "at"]
    assert faults[0].startswith(".align line 2")


GOOD = "0 1000 bin\n1000 2000 blue\n2000 3000 at\n3000 4000 f\n4000 5000 two\n5000 6000 now\n"


@pytest.mark.parametrize(
    ("text", "timed", "report"),
    [
        (GOOD, True, None),
        ("rubbish\n" + GOOD, True, "line 1"),  # no word is lost
        (GOOD.replace("1000 2000", "one two"), False, "no full sentence"),
        ("", False, "no full sentence"),
        (GOOD.replace("blue", "red"), True, "file name 'bin blue at f two now'"),
    ],
)
def test_an_align_that_lost_a_word_gives_way_to_the_file_name(tmp_path, text, timed, report):
    root = touch(tmp_path, "s1/bbaf2n.mpg", "align/bbaf2n.align", "landmarks/bbaf2n.npz")
    (root / "align/bbaf2n.align").write_text(text)
    words, spelled, problems = read_words(find_clips(root)[0][0])
    assert (words is not None) == timed
    assert spelled == ["bin", "blue", "at", "f", "two", "now"]
    assert (report in " ".join(problems)) if report else problems == []
