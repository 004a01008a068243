"""Resume files one by one: which is gone on from, which are refused or passed over, what is kept and what removed."""

import shutil
import warnings
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from test_resuming import tiny

from aft_lens.errors import InputError
from aft_lens.training import DataRecipe, OptimRecipe, TrainerRecipe, train
from aft_lens.training.gumbel_health import GumbelHealth
from aft_lens.training.resuming import (
    ResumeFiles,
    began_only,
    get_random,
    part_files,
    resume_file,
    resume_files,
    set_random,
)
from aft_lens.training.run import state_folder

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]
STEPS = 3
"""Of an epoch of the run."""


class Killed(Exception):
    """A run was broken off."""


def recipe_of(**changes):
    trainer = TrainerRecipe(epochs=3, accelerator="cpu", limit_batches=STEPS, save_steps=1)
    return replace(tiny(trainer=trainer), **changes)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run that was killed in its third epoch, behind the second of three steps."""

    def killed(self, trainer, module, batch, number):
        if (trainer.current_epoch, number) == (2, 2):
            raise Killed

    path = tmp_path_factory.mktemp("broken") / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(GumbelHealth, "on_train_batch_start", killed)
        for line in LIGHTNING_ADVICE:
            warnings.filterwarnings("ignore", line.removeprefix("ignore:"))
        with pytest.raises(Killed):
            train(recipe_of(), path, progress=False)
    return path


@pytest.fixture
def run(broken, tmp_path):
    """A copy of that run: its checkpoint's folder and its state's."""
    for folder in (broken, state_folder(broken)):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / "run", tmp_path / "run.state"


def without_part(state):
    for file in part_files(state):
        file.unlink()


def edited(file, **changes):
    """Write a resume file again with other parts; None leaves a part out."""
    parts = torch.load(file, weights_only=True) | changes
    torch.save({name: part for name, part in parts.items() if part is not None}, file)


def test_a_run_goes_on_from_its_newest_file(run):
    path, state = run
    assert sorted(file.name for file in state.glob("*.ckpt")) == [
        "epoch=0.ckpt", "epoch=1.ckpt", "epoch=2-batch=2.ckpt",
    ]  # fmt: skip
    assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=2-batch=2.ckpt"
    without_part(state)
    assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=1.ckpt"


def test_files_are_ordered_by_their_numbers(tmp_path):
    names = ["epoch=9-batch=8", "epoch=10-batch=2", "epoch=9-batch=10", "epoch=2-batch=30", "epoch=9", "epoch=10"]
    for name in (*names, "epoch=last", "epoch=3-v1"):
        (tmp_path / f"{name}.ckpt").touch()
    assert [file.stem for file in part_files(tmp_path)] == [names[number] for number in (1, 2, 0, 3)]
    assert {epochs: file.name for epochs, file in resume_files(tmp_path).items()} == {
        10: "epoch=9.ckpt", 11: "epoch=10.ckpt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (["epoch=2-batch=2"], r"going on after epoch 2 from .*epoch=1\.ckpt"),
        (["epoch=2-batch=2", "epoch=1"], r"going on after epoch 1 from .*epoch=0\.ckpt"),
        (["epoch=3-batch=1"], r"going on after epoch 2 from .*epoch=2-batch=2\.ckpt"),
    ],
    ids=["the part", "the part and the epoch before", "a later part"],
)
def test_every_file_that_is_passed_over_is_named_with_the_epoch_that_is_gone_on_after(run, damaged, words):
    path, state = run
    for name in damaged:
        (state / f"{name}.ckpt").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read") as told:
        resume_file(path, state, recipe_of(), STEPS)
    assert len(told) == len(damaged)
    for name, warning in zip(damaged, told, strict=True):
        assert warning.message.args[0].startswith(f"resume file {state / name}.ckpt cannot be read (")
        with pytest.raises(UserWarning, match=f"{words}$"):
            raise warning.message


def test_where_no_file_can_be_read_all_are_named_with_the_next_step(run):
    path, state = run
    without_part(state)
    for file in state.glob("*.ckpt"):
        file.write_bytes(b"")
    with pytest.raises(InputError) as told:
        resume_file(path, state, recipe_of(), STEPS)
    newest, before, *_ = str(told.value).split("; ")
    assert newest.startswith(f"resume file {state / 'epoch=1.ckpt'} cannot be read (")
    assert before.startswith(f"resume file {state / 'epoch=0.ckpt'} cannot be read (")
    assert str(told.value).endswith(
        f"; copy it again from where the run was, remove {path} and {state} to start again, or train on from the "
        f"weights with --start {path} and another --name"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": None}, r"is not of this program: it has no epoch$"),
        ({"loops": None, "callbacks": None}, r"is not of this program: it has no loops, callbacks$"),
        ({"epoch": "1"}, "does not count its epochs and steps"),
        ({"global_step": 1.5}, "does not count its epochs and steps"),
        ({"state_dict": {}}, r"is of another model \(missing: .*; \d+ differences\)$"),
        ({"state_dict": 3}, "is not of this program: its states have no names"),
        ({"callbacks": [3]}, "is not of this program: its states have no names"),
    ],
    ids=str,
)
def test_a_file_of_something_else_is_passed_over_with_what_is_wrong(run, change, words):
    path, state = run
    edited(part_files(state)[0], **change)
    with pytest.warns(UserWarning, match=rf"^resume file .*batch=2\.ckpt {words.removesuffix('$')}; going on"):
        assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=1.ckpt"


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": None}, {"recipe": "{"}, {"recipe": "[]"}, {"recipe": 3}, {"accumulate": None}, {"steps": "3"},
        {"random": None}, {"random": [{}]}, {"random": [{"cpu": 1}]}, {"random": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_part_that_does_not_say_where_it_was_is_passed_over(run, change):
    path, state = run
    file = part_files(state)[0]
    callbacks = torch.load(file, weights_only=True)["callbacks"]
    own = {key: value for key, value in (callbacks["ResumeFiles"] | change).items() if value is not None}
    edited(file, callbacks=callbacks | {"ResumeFiles": own})
    with pytest.warns(UserWarning, match=r"batch=2\.ckpt does not say what its run was to do .*; going on"):
        assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=1.ckpt"


def test_of_a_whole_epoch_what_its_run_says_must_be_named_values(run):
    path, state = run
    without_part(state)
    edited(state / "epoch=1.ckpt", callbacks={"ResumeFiles": [3]})
    with pytest.warns(
        UserWarning, match=r"epoch=1\.ckpt does not say what its run was to do .*; going on after epoch 1"
    ):
        assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=0.ckpt"


def test_a_list_is_no_resume_file(run):
    path, state = run
    torch.save(["epoch", 1], part_files(state)[0])
    with pytest.warns(UserWarning, match="it has no epoch, global_step, state_dict, optimizer_states, lr_schedulers, "):
        resume_file(path, state, recipe_of(), STEPS)


def test_what_a_module_keeps_beside_its_model_is_no_difference(run):
    path, state = run
    file = part_files(state)[0]
    kept = torch.load(file, weights_only=True)["state_dict"]
    edited(file, state_dict=kept | {"criterion.weight": torch.zeros(2), "model.note": "words"})
    assert resume_file(path, state, recipe_of(), STEPS) == file


def test_what_is_said_of_a_damaged_file_is_its_first_line_and_short(run):
    path, state = run
    (state / "epoch=2-batch=2.ckpt").write_bytes((state / "epoch=1.ckpt").read_bytes()[:-2000])
    with pytest.warns(UserWarning, match=r"cannot be read \(PytorchStreamReader failed .{133}\); going on"):
        resume_file(path, state, recipe_of(), STEPS)


def test_a_run_of_a_gpu_goes_on_where_there_is_none(run):
    path, state = run
    without_part(state)
    file = state / "epoch=1.ckpt"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"))
    assert resume_file(path, state, recipe_of(), STEPS) == file


def test_the_steps_of_an_epoch_must_stay_in_files_that_do_not_say_them_too(run):
    path, state = run
    without_part(state)
    with pytest.raises(InputError) as told:
        resume_file(path, state, recipe_of(), 4)
    assert str(told.value) == (
        "the run took 3 steps an epoch and would go on with 4; keep data.batch_size x devices x optim.accumulate as "
        "it was"
    )
    edited(state / "epoch=1.ckpt", callbacks={})
    assert resume_file(path, state, recipe_of(), STEPS).name == "epoch=1.ckpt"
    with pytest.raises(InputError, match="the run took 3 steps an epoch and would go on with 4"):
        resume_file(path, state, recipe_of(), 4)


def test_within_an_epoch_accumulation_stays_and_after_a_whole_one_it_may_change(run):
    path, state = run
    other = recipe_of(optim=OptimRecipe(lr=0.005, warmup_epochs=1, accumulate=2))
    with pytest.raises(
        InputError, match=r"batch=2\.ckpt is within an epoch of optim\.accumulate 1; keep it, or remove"
    ):
        resume_file(path, state, other, STEPS)
    without_part(state)
    assert resume_file(path, state, other, STEPS).name == "epoch=1.ckpt"


@pytest.mark.parametrize("there", ["all", "the part alone", "the checkpoint and a damaged part"])
def test_a_run_of_another_recipe_is_refused_whichever_of_its_files_are_there(run, there):
    path, state = run
    if there != "all":
        for file in resume_files(state).values():
            file.unlink()
    if there == "the part alone":
        shutil.rmtree(path)
    if there == "the checkpoint and a damaged part":
        part_files(state)[0].write_bytes(b"")
    with pytest.raises(
        InputError, match=f"^{path} was trained with other values of seed; resume with the same recipe$"
    ):
        resume_file(path, state, recipe_of(seed=5), STEPS)


def test_resume_files_of_whole_epochs_do_not_stand_for_a_checkpoint_that_is_gone(run):
    path, state = run
    shutil.rmtree(path)
    with pytest.raises(FileNotFoundError, match=r"run/config\.yaml"):
        resume_file(path, state, recipe_of(), STEPS)


def test_where_and_how_a_run_is_placed_may_change_and_what_it_learns_from_may_not(run):
    path, state = run
    base = recipe_of()
    placed = replace(
        base,
        model=replace(base.model, name="other"),
        data=replace(base.data, batch_size=7, workers=3, root="elsewhere", bad_files="stop"),
        trainer=replace(base.trainer, accelerator="gpu", devices=2, strategy="ddp", save_steps=5),
    )
    assert resume_file(path, state, placed, STEPS).name == "epoch=2-batch=2.ckpt"
    for other, words in (
        (replace(base, data=DataRecipe(augment="none")), r"data\.augment"),
        (replace(base, optim=OptimRecipe(lr=0.1)), r"optim\.lr, .*"),
        (replace(base, trainer=replace(base.trainer, limit_batches=2)), r"trainer\.limit_batches"),
    ):
        with pytest.raises(InputError, match=f"other values of (?:{words}); resume"):
            resume_file(path, state, other, STEPS)


def test_a_longer_run_is_warned_of_and_must_have_the_same_recipe_otherwise(run):
    path, state = run
    without_part(state)
    longer = replace(recipe_of().trainer, epochs=5)
    with pytest.warns(UserWarning, match="goes on to") as told:
        resume_file(path, state, recipe_of(trainer=longer), STEPS)
    assert [str(warning.message) for warning in told] == [
        f"{path} goes on to 5 epochs in place of 3: its schedules are from here on those of the longer run, whose "
        "weights a run without a break would not have"
    ]
    with (
        pytest.warns(UserWarning, match="goes on to 5 epochs"),
        pytest.raises(InputError, match="with other values of seed; resume"),
    ):
        resume_file(path, state, recipe_of(trainer=longer, seed=5), STEPS)
    with pytest.raises(
        InputError, match=rf"^{path} was to have 3 epochs, trainer\.epochs asks for 2; ask for as many or more$"
    ):
        resume_file(path, state, recipe_of(trainer=replace(longer, epochs=2)), STEPS)


def test_a_run_without_resume_files_is_told_what_to_do(run):
    path, state = run
    shutil.rmtree(state)
    for words in (
        f"{path} has 2 whole epochs, but its resume files are not in {state}, where a run keeps them: move that folder "
        f"back, train on from its weights with --start {path} and another --name, or remove {path} and start without "
        "--resume",
        f"{path} has no run to resume: no epoch was whole; remove {state} where it exists, and start without --resume",
    ):
        with pytest.raises(FileNotFoundError) as told:
            resume_file(path, state, recipe_of(), STEPS)
        assert str(told.value) == words
        shutil.rmtree(path, ignore_errors=True)


def test_a_run_begins_again_only_if_its_first_epoch_alone_was_written(run):
    path, state = run
    (part,), files = part_files(state), resume_files(state).values()
    rows = (path / "metrics.csv").read_text().splitlines(keepends=True)
    (path / "metrics.csv").write_text("".join(rows[:2]))
    aside = part.rename(path.with_name("aside"))
    assert not began_only(path, state, recipe_of()), "it has resume files"
    for file in files:
        file.unlink()
    aside.rename(part)
    assert not began_only(path, state, recipe_of()), "it has one of a part of an epoch"
    part.unlink()
    (path / "metrics.csv").write_text("".join(rows))
    assert not began_only(path, state, recipe_of()), "it has two epochs"
    (path / "metrics.csv").write_text("".join(rows[:2]))
    assert began_only(path, state, recipe_of())
    assert not began_only(path, path / "none", recipe_of()), "its state is elsewhere"
    assert not began_only(path.with_name("other"), state, recipe_of()), "it has no checkpoint"
    with pytest.raises(InputError, match=f"^{path} was trained with other values of seed;"):
        began_only(path, state, recipe_of(seed=5))
    with (path / "config.yaml").open("a") as config:
        config.write("start: elsewhere\n")
    assert not began_only(path, state, recipe_of()), "its first weights are not here"


def kept(state, **fields):
    """The callback of a run in that folder, and a Trainer that writes down what it is asked to save."""
    saved = {}

    def save(path):
        path.touch()
        saved[path.name] = files.state_dict()["random"]

    recipe = recipe_of(
        optim=OptimRecipe(lr=0.005, accumulate=fields.pop("accumulate", 1)),
        trainer=TrainerRecipe(3, "cpu", save_steps=fields.pop("save_steps", 1)),
    )
    files = ResumeFiles(state, recipe)
    given = {"world_size": 1, "global_rank": 0, "is_global_zero": True, "current_epoch": 0, "num_training_batches": 6}
    return files, SimpleNamespace(save_checkpoint=save, saved=saved, **(given | fields))


@pytest.mark.parametrize(
    ("save_steps", "accumulate", "batches"),
    [(1, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4]), (1, 3, [3]), (0, 1, []), (4, 1, [4])],
)
def test_within_an_epoch_a_file_is_written_each_so_many_steps_and_replaces_the_one_before(
    tmp_path, save_steps, accumulate, batches
):
    files, trainer = kept(tmp_path, save_steps=save_steps, accumulate=accumulate, current_epoch=4)
    for number in range(6):
        files.on_train_batch_end(trainer, SimpleNamespace(device=torch.device("cpu")), None, None, number)
    assert list(trainer.saved) == [f"epoch=4-batch={batch}.ckpt" for batch in batches]
    assert [file.name for file in part_files(tmp_path)] == list(trainer.saved)[-1:]
    assert all(len(random) == 1 and list(random[0]) == ["cpu"] for random in trainer.saved.values())
    assert files.state_dict()["random"] == [], "what is of a whole epoch has none"


def test_of_several_processes_each_gives_its_random_state_and_the_first_removes(tmp_path, monkeypatch):
    def gather(into, own):
        into[:] = [own, {"cpu": "the other's"}]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    for first in (False, True):
        (tmp_path / "epoch=0-batch=1.ckpt").touch()
        files, trainer = kept(tmp_path, world_size=2, is_global_zero=first)
        files.on_train_batch_end(trainer, SimpleNamespace(device=torch.device("cpu")), None, None, 1)
        own, other = trainer.saved["epoch=0-batch=2.ckpt"]
        assert torch.equal(own["cpu"], torch.get_rng_state())
        assert other == {"cpu": "the other's"}
        assert len(part_files(tmp_path)) == 2 - first


def test_after_an_epoch_the_last_two_stay_and_what_was_unfinished_goes(tmp_path):
    names = {
        "epoch=6.ckpt",
        "epoch=7.ckpt",
        "epoch=8.ckpt",
        "epoch=9.ckpt",
        "epoch=10-batch=2.ckpt",
        ".epoch=9.ckpt.1.writing",
    }
    for name in names | {"events.log"}:
        (tmp_path / name).touch()
    for first in (False, True):
        files, trainer = kept(tmp_path, current_epoch=10, is_global_zero=first)
        files.on_train_epoch_end(trainer, None)
        assert list(trainer.saved) == ["epoch=10.ckpt"]
        left = {"epoch=9.ckpt"} if first else names
        assert {file.name for file in tmp_path.iterdir()} == left | {"epoch=10.ckpt", "events.log"}


def test_random_states_are_taken_up_once_by_as_many_processes_as_left_them(tmp_path):
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (1, 2)]
    before = torch.get_rng_state()
    try:
        files, trainer = kept(tmp_path, world_size=2, global_rank=1)
        files.load_state_dict({"random": [{"cpu": state} for state in states]})
        files.on_train_start(trainer, None)
        assert torch.equal(torch.get_rng_state(), states[1])
        torch.set_rng_state(before)
        files.on_train_start(trainer, None)
        files.load_state_dict({"random": [{"cpu": states[0]}]})
        files.on_train_start(trainer, None)
        files.load_state_dict({})
        files.on_train_start(trainer, None)
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        torch.set_rng_state(before)


def test_a_gpu_has_a_random_state_of_its_own_which_is_set_where_there_is_one(monkeypatch):
    present, found = [True], []
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: torch.tensor([device.index], dtype=torch.uint8))
    monkeypatch.setattr("torch.cuda.set_rng_state", found.append)
    monkeypatch.setattr("torch.cuda.is_available", lambda: present[0])
    states = get_random(torch.device("cuda", 1))
    assert torch.equal(states["cpu"], torch.get_rng_state())
    assert list(get_random(torch.device("cpu"))) == ["cpu"]
    set_random(get_random(torch.device("cpu")))
    assert found == []
    set_random(states)
    assert [state.tolist() for state in found] == [[1]]
    present[0] = False
    set_random(states)
    assert len(found) == 1
