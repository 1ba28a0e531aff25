"""The loop: what a run leaves behind, that it learns, and that it continues exactly."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from helpers import tiny_recipe, train
from safetensors.torch import load_file

from mmkp.data.collate import StepSampler
from mmkp.errors import InputError, MmkpError
from mmkp.recipe import load_recipe, parse_recipe
from mmkp.training import checkpoint, run
from mmkp.training.build import learning_rate_share, part_of
from mmkp.training.loop import Trainer


@pytest.fixture(scope="module")
def finished(grid_root, tmp_path_factory):
    """A run of four steps with evaluations after the second and the last."""
    return train(tiny_recipe(grid_root), tmp_path_factory.mktemp("runs") / "whole")


def weights(run):
    newest = checkpoint.found(run / "checkpoints")[0]
    return load_file(newest / "state.safetensors")


def same(a, b):
    assert a.keys() == b.keys()
    return [k for k in a if not torch.equal(a[k], b[k])]


def test_the_best_checkpoint_is_chosen_by_the_subsets_asked_for(grid_root, tmp_path):
    recipe = tiny_recipe(grid_root, steps=2)
    asked = recipe.model_copy(update={"data": recipe.data.model_copy(update={"validation_subsets": ("image+audio",)})})
    folder = train(asked, tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = rows[-1]["validation"]
    assert {subset for row in found["cells"].values() for subset in row} == {"image+audio"}
    cells = [row["image+audio"]["nme"] for row in found["cells"].values()]
    assert found["nme"] == pytest.approx(sum(cells) / len(cells))
    wrong = asked.model_copy(update={"data": recipe.data.model_copy(update={"validation_subsets": ("audio+image",)})})
    with pytest.raises(InputError, match="validation_subsets"):
        train(wrong, tmp_path / "wrong")


def test_a_run_leaves_everything_needed_to_use_and_repeat_it(finished):
    names = {p.name for p in finished.iterdir()}
    assert {
        "recipe.yaml",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "metrics.jsonl",
        "environment.json",
    } <= names
    again = load_recipe(finished / "recipe.yaml")
    assert again.training.steps == 4
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == [1, 2, 3, 4]
    assert [r["step"] for r in rows if "validation" in r] == [2, 4]
    cells = rows[-1]["validation"]["cells"]
    assert set(cells) == {"clear", "covered"}
    assert len(cells["clear"]) == 7
    assert cells["clear"]["audio"] == cells["covered"]["audio"]  # a cover cannot be heard


def test_the_same_recipe_gives_the_same_weights(finished, grid_root, tmp_path):
    assert same(weights(finished), weights(train(tiny_recipe(grid_root), tmp_path / "again"))) == []


def test_resume_is_bit_identical(finished, grid_root, tmp_path):
    """Cut back to the checkpoint in the middle (and of an epoch), continue: the same bits and the same log."""
    run = tmp_path / "cut"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "los')  # a row cut off by a kill
    train(tiny_recipe(grid_root), run, resume=True)
    assert same(weights(finished), weights(run)) == []
    keep = ("step", "loss", "grad_norm", "lr", "validation")
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k in keep}
            for line in (r / "metrics.jsonl").read_text().splitlines()
        ]
        for r in (finished, run)
    ]
    assert logs[0] == logs[1]


def test_a_broken_checkpoint_is_passed_over(finished, grid_root, tmp_path, capsys):
    run = tmp_path / "broken"
    shutil.copytree(finished, run)
    newest = run / "checkpoints" / "step-000004" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(tiny_recipe(grid_root), run, resume=True)
    said = capsys.readouterr().err
    assert "step-000004 is broken" in said
    assert "resumed at step 2" in said
    assert same(weights(finished), weights(run)) == []


def test_resume_of_another_recipe_says_what_differs(finished, grid_root):
    with pytest.raises(InputError, match=r"training\.learning_rate was 0\.001, is 0\.5"):
        Trainer(tiny_recipe(grid_root, learning_rate=0.5), finished, resume=True)


def test_a_folder_with_a_run_is_not_overwritten(finished, grid_root):
    with pytest.raises(InputError, match="--resume"):
        Trainer(tiny_recipe(grid_root), finished)


def test_a_full_disk_keeps_the_last_good_checkpoint(grid_root, tmp_path, monkeypatch, capsys):
    """From the second evaluation on no file may grow: the run says so, goes on, and keeps the first checkpoint."""
    real, calls = checkpoint.save, []

    def full(*args):
        calls.append(args)
        if len(calls) == 1:
            return real(*args)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            return real(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(checkpoint, "save", full)
    run = train(tiny_recipe(grid_root), tmp_path / "full")
    assert "warning: checkpoint at step 4 not written" in capsys.readouterr().err
    assert [p.name for p in checkpoint.found(run / "checkpoints")] == ["step-000002"]
    assert checkpoint._fault(run / "checkpoints" / "step-000002") is None
    assert not list((run / "checkpoints").glob("*.part"))


def test_a_kill_before_the_first_checkpoint_leaves_a_folder_that_can_be_used(grid_root, tmp_path):
    """Whatever a kill left of the folder: as long as there is no checkpoint, the run begins."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    begun = Trainer(tiny_recipe(grid_root), tmp_path / "run")
    assert not begun.folder.resumed
    again = Trainer(tiny_recipe(grid_root), tmp_path / "run", resume=True)
    assert again.folder.resumed
    again.train()
    assert again.state.step == 4


def test_a_run_begun_before_a_key_was_known_goes_on(finished, grid_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    plain = yaml.safe_load((run / "recipe.yaml").read_text())
    del plain["training"]["start_parts"], plain["training"]["patience"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(plain))
    assert Trainer(tiny_recipe(grid_root), run, resume=True).folder.resumed
    with pytest.raises(InputError, match="training.patience was None, is 3"):
        Trainer(tiny_recipe(grid_root, patience=3), run, resume=True)


def test_a_resume_without_its_recipe_is_refused(finished, grid_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "recipe.yaml").write_text("name: [tiny")
    with pytest.raises(InputError, match=r"the run's recipe\.yaml, whole"):
        Trainer(tiny_recipe(grid_root), run, resume=True)


def test_a_resume_keeps_the_global_batch(finished, grid_root, tmp_path):
    """Half the batch read twice is the same run; half the batch alone is another."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    with pytest.raises(InputError, match="a global batch of 4 items, got 2 on 1 processes"):
        train(tiny_recipe(grid_root, batch_size=2), run, resume=True)
    train(tiny_recipe(grid_root, batch_size=2, accumulate=2), run, resume=True)


def test_a_gradient_that_is_not_finite_stops_before_it_is_taken(grid_root, tmp_path):
    trainer = Trainer(tiny_recipe(grid_root), tmp_path / "nan")
    weight = trainer.parts.model.heads["joint"].logits.weight
    weight.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    before = weight.detach().clone()
    with pytest.raises(MmkpError, match=r"expected a finite gradient, got nan for the items s1/"):
        trainer.train()
    assert torch.equal(weight, before)
    assert checkpoint.found(trainer.folder.checkpoints) == []


def test_a_loss_that_is_not_finite_stops_with_the_ids(grid_root, tmp_path, monkeypatch):
    trainer = Trainer(tiny_recipe(grid_root), tmp_path / "nan")
    with torch.no_grad():
        trainer.parts.model.heads["joint"].logits.weight.fill_(float("nan"))
    with pytest.raises(MmkpError, match=r"training step 1: expected a finite loss, got nan for the items s1/.*/0"):
        trainer.train()


def test_training_learns(grid_root, tmp_path):
    """Sixty steps on six clips: the loss falls to well under half, and the validation error below the untrained one."""
    run = train(
        tiny_recipe(grid_root, steps=60, batch_size=8, evaluate_every=30, learning_rate=3e-3), tmp_path / "learns"
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in rows if "loss" in r]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    errors = [r["validation"]["cells"]["clear"]["image+text+audio"]["nme"] for r in rows if "validation" in r]
    assert errors[-1] < errors[0]


def test_accumulation_is_a_larger_batch_read_in_parts(grid_root, tmp_path):
    """Two half batches see the same items, in the same order, as one whole batch."""
    whole = list(StepSampler(50, 8, 6, seed=3))
    halves = list(StepSampler(50, 4, 12, seed=3))
    assert [k for b in whole for k in b] == [k for b in halves for k in b]


def test_every_item_is_seen_once_an_epoch_and_no_step_depends_on_the_start():
    keys = [k for b in StepSampler(10, 4, 10, seed=1) for k in b]
    for epoch in range(4):
        assert sorted(i for e, i in keys if e == epoch) == list(range(10))
    assert [k for b in StepSampler(10, 4, 10, seed=1, first_step=7) for k in b] == keys[28:]
    assert [i for e, i in keys if e == 0] != [i for e, i in keys if e == 1]


def test_two_processes_share_one_global_batch():
    one = [k for b in StepSampler(30, 8, 5, seed=2) for k in b]
    shares = [list(StepSampler(30, 4, 5, seed=2, rank=r, world=2)) for r in range(2)]
    assert [k for a, b in zip(*shares, strict=True) for k in a + b] == one


def test_learning_rate_warms_up_and_falls():
    settings = tiny_recipe("x", steps=100, warmup_steps=10, final_lr_share=0.1).training
    shares = [learning_rate_share(s, settings) for s in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == pytest.approx(1.0)
    assert shares[55] == pytest.approx(0.55)
    assert shares[100] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoders.image.backbone.conv_stem.weight", "image_backbone"),
        ("encoders.image.neck.lateral.0.weight", "image"),
        ("lifts.text.place.weight", "text"),
        ("encoders.audio.first.conv.weight", "audio"),
        ("heads.joint.logits.weight", "head"),
        ("heads.text.logits.weight", "head"),
        ("heads.image.logits.weight", "image_head"),
        ("fusion.logits", "fusion"),
    ],
)
def test_parts_of_the_model(name, part):
    assert part_of(name) == part


def test_a_frozen_part_does_not_move(grid_root, tmp_path):
    trainer = Trainer(tiny_recipe(grid_root, freeze=["text"], ema_decay=0.0), tmp_path / "frozen")
    before = {n: p.detach().clone() for n, p in trainer.parts.model.named_parameters()}
    trainer.train()
    moved = {part_of(n) for n, p in trainer.parts.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"image_backbone", "image", "audio", "head"}


def test_the_images_own_head_is_frozen_alone_or_with_all_heads(grid_root, tmp_path):
    for freeze, still in ((["image_head"], {"heads.image"}), (["head"], {"heads.image", "heads.text", "heads.audio"})):
        recipe = tiny_recipe(grid_root, freeze=freeze, ema_decay=0.0)
        fusion = recipe.model.fusion.model_copy(update={"name": "product", "level": "model"})
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"fusion": fusion})})
        trainer = Trainer(recipe, tmp_path / freeze[0])
        before = {n: p.detach().clone() for n, p in trainer.parts.model.named_parameters()}
        trainer.train()
        kept = {n.rpartition(".")[0] for n, p in trainer.parts.model.named_parameters() if torch.equal(p, before[n])}
        assert {".".join(n.split(".")[:2]) for n in kept if n.startswith("heads")} == still


def test_norms_of_a_frozen_backbone_keep_their_statistics(grid_root, tmp_path):
    trainer = Trainer(tiny_recipe(grid_root, freeze=["image_backbone"], ema_decay=0.0), tmp_path / "frozen")
    backbone = trainer.parts.model.encoders["image"].backbone
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    trainer.train()
    assert [k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])] == []


def test_nothing_left_to_train(grid_root, tmp_path):
    everything = ["image", "text", "audio", "fusion", "head"]
    with pytest.raises(InputError, match=r"training\.freeze"):
        Trainer(tiny_recipe(grid_root, freeze=everything), tmp_path / "all")


def test_fp16_without_gpu_is_refused(grid_root, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, on which fp16 works")
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        Trainer(tiny_recipe(grid_root, precision="fp16"), tmp_path / "half")


def test_precision_auto_is_what_accelerate_launch_was_told(grid_root, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert Trainer(tiny_recipe(grid_root), tmp_path / "told").accelerator.mixed_precision == "bf16"
    assert Trainer(tiny_recipe(grid_root, precision="no"), tmp_path / "own").accelerator.mixed_precision == "no"


def test_bf16_trains(grid_root, tmp_path):
    run = train(tiny_recipe(grid_root, precision="bf16", steps=2), tmp_path / "bf16")
    assert all(torch.isfinite(v).all() for v in weights(run).values() if v.is_floating_point())


class TestOutOfMemory:
    """Memory that holds two items of a batch of four."""

    @pytest.fixture
    def small_memory(self, monkeypatch):
        from mmkp.modeling_mmkp import MmkpForKeypointDetection

        real, sizes = MmkpForKeypointDetection.forward, []

        def forward(self, *args, labels=None, **kwargs):
            if labels is not None:
                sizes.append(len(labels))
                if len(labels) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(self, *args, labels=labels, **kwargs)

        monkeypatch.setattr(MmkpForKeypointDetection, "forward", forward)
        return sizes

    def test_the_batch_is_halved_and_the_accumulation_doubled(self, small_memory, grid_root, tmp_path, capsys):
        trainer = run(tiny_recipe(grid_root), tmp_path / "run")
        assert "out of memory with 4 items: now 2 items, 2 times a step" in capsys.readouterr().err
        assert [n for n in small_memory if n > 1] == [4] + [2] * 8  # one item is the trial of the model's parts
        assert (trainer.batch_size, trainer.accumulate, trainer.state.step) == (2, 2, 4)

    def test_not_even_one_item_fits(self, small_memory, grid_root, tmp_path):
        small_memory.append(0)
        with pytest.raises(MmkpError, match="memory for at least one part"):
            run(tiny_recipe(grid_root, batch_size=3), tmp_path / "run")


def test_half_batches_twice_give_the_gradient_of_the_whole(grid_root, tmp_path):
    """What makes halving harmless: the same items, and without dropout and batch statistics the same step."""
    plain = tiny_recipe(grid_root, steps=3, ema_decay=0.0).model_dump(mode="json")
    plain["model"]["image"]["frozen_norm"] = True
    plain["model"]["text"]["dropout"] = plain["model"]["audio"]["dropout"] = 0.0
    recipe = parse_recipe(plain)
    made = []
    for split in (1, 2):
        trainer = Trainer(recipe, tmp_path / str(split), split=split)
        trainer.train()
        made.append(trainer.parts.model.state_dict())
    worst = max(float((made[0][k].float() - made[1][k].float()).abs().max()) for k in made[0])
    assert worst < 1e-5


def test_one_folder_has_one_trainer(grid_root, tmp_path):
    """While another process holds the folder's lock, nobody else trains there."""
    out = tmp_path / "run"
    out.mkdir()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=1); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process at work"):
        Trainer(tiny_recipe(grid_root), out)
    other.communicate("\n")
    assert (Trainer(tiny_recipe(grid_root), out).train() / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_trackers(grid_root, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'tensorboard'"):
        Trainer(tiny_recipe(grid_root, trackers=["tensorbord"]), tmp_path / "typo")
    monkeypatch.setattr("mmkp.training.loop.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mmkp\[wandb\]'"):
        Trainer(tiny_recipe(grid_root, trackers=["wandb"]), tmp_path / "missing")


@pytest.mark.parametrize("launcher", ["torch.distributed.run"])
def test_two_processes_do_what_one_does(launcher, grid_root, tmp_path):
    """The same global batch on one process and on two (gloo): the same weights to 1e-5, and a resume on two."""
    plain = tiny_recipe(grid_root, steps=6, batch_size=4, evaluate_every=3).model_dump(mode="json")
    plain["model"]["image"]["frozen_norm"] = True
    plain["model"]["text"]["dropout"] = plain["model"]["audio"]["dropout"] = 0.0
    one = train(parse_recipe(plain), tmp_path / "one")
    plain["training"]["batch_size"] = 2
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", launcher, "--nproc_per_node", "2", "--master_port", str(free_port()), "-m"]
    command += ["mmkp", "train", str(recipe), "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = weights(one), weights(tmp_path / "two")
    trained = [k for k in first if k.startswith("model/") and first[k].is_floating_point()]
    assert max(float((first[k] - second[k]).abs().max()) for k in trained) < 1e-5
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    newest = checkpoint.found(tmp_path / "two" / "checkpoints")
    assert (newest[0] / "rng-1.safetensors").exists()
    shutil.rmtree(newest[0])
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 3" in done.stderr
    assert same(second, weights(tmp_path / "two")) == []
    again = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(r)["step"] for r in again] == [json.loads(r)["step"] for r in rows]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_kill_minus_nine_at_any_moment(grid_root, tmp_path):
    """Killed twice at random moments and resumed, a run ends with the weights of one that was left alone."""
    recipe = tiny_recipe(grid_root, steps=12, evaluate_every=2)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    whole = train(recipe, tmp_path / "whole")
    out, log = tmp_path / "killed", tmp_path / "killed" / "metrics.jsonl"
    command = [sys.executable, "-m", "mmkp", "train", str(file), "--out", str(out), "--resume"]
    chance = np.random.default_rng(0)
    for kill_after_rows in (3, 9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not log.exists() or log.read_text().count("\n") < kill_after_rows):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
    train(recipe, out, resume=True)
    assert same(weights(whole), weights(out)) == []
    assert not list(out.glob(".model-*"))
