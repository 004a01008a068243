"""Every registered model at tiny size, exact parameter counts, and the position biases."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torchvision import ops

from aft_lens.checkpoint import SHIPPED, list_checkpoints, load_checkpoint, save_checkpoint
from aft_lens.layers.block import StochasticDepth
from aft_lens.layers.position_bias import Factorized, Indexed, Reparameterized, SinglePosition
from aft_lens.models import VisionModel, create_model, list_models, model_config

TABLE_7 = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "aft_full_tiny_patch16_224": 6_322_600,
    "aft_full_small_patch16_224": 22_655_848,
    "aft_conv_tiny_11_32": 5_356_072,
    "aft_conv_small_11_16": 20_298_088,
    "aft_conv_small_11_384": 22_541_416,
    "aft_conv_small_15_384": 23_020_648,
}
PRINTED_DIFFERENTLY = {"aft_conv_tiny_11_192": 5_962_792, "aft_conv_base_25_32": 79_864_552}
"""The paper prints 5.9M and 79.7M, which no choice of biases makes."""


@pytest.mark.parametrize(("name", "count"), [*TABLE_7.items(), *PRINTED_DIFFERENTLY.items()])
def test_parameter_count(name, count):
    with torch.device("meta"):
        model = VisionModel(model_config(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def tiny(name):
    config = model_config(name)
    patch = config.patch_size
    heads = 1 if config.mixer.startswith("aft_full") else 2
    return replace(
        config,
        img_size=4 * patch,
        embed_dim=16,
        depth=2,
        num_heads=heads,
        num_classes=3,
        window_size=3,
        bias_rank=4,
    )


@pytest.mark.parametrize("name", list_models())
def test_registered_model_works_at_tiny_size(name, tmp_path):
    torch.manual_seed(0)
    config = tiny(name)
    model = VisionModel(config)
    image = torch.randn(6, config.in_chans, config.img_size, config.img_size)
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0)
    for step in range(300):
        loss = torch.nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
            assert not missing
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05, "one batch is not overfitted"
    model.eval()
    save_checkpoint(tmp_path / "model", model, data={"name": "none"}, recipe={}, seed=0, metrics=[{"loss": 1.0}])
    again = load_checkpoint(list_checkpoints(tmp_path)[0]).model
    assert torch.equal(model(image), again(image))


def test_conv_model_takes_any_grid_and_others_say_what_they_take():
    model = create_model("aft_conv_digits").eval()
    assert model(torch.randn(1, 1, 5, 9)).shape == (1, 10)
    with pytest.raises(ValueError, match="image must be 8 x 8"):
        create_model("aft_full_digits")(torch.randn(1, 1, 5, 9))
    with pytest.raises(ValueError, match="choose one of"):
        create_model("vit_enormous")


def test_what_is_prepared_changes_nothing_and_goes_with_what_it_was_made_of():
    model = create_model("aft_conv_digits", depth=2)
    with pytest.raises(ValueError, match="prepare\\(\\) is for evaluation, the layer is in training mode"):
        model.prepare()
    for block in model.eval().blocks:
        block.mixer.position_bias.gamma.data.normal_()
    image = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        before = model(image)
        assert torch.equal(model.prepare()(image), before)
        handle = model.blocks[0].mixer.position_bias.register_forward_hook(lambda *_: torch.zeros(_[2].shape))
        assert not torch.equal(model(image), before), "who changes w on its way is heard"
        handle.remove()
        other = {name: 2 * tensor for name, tensor in model.state_dict().items()}
        model.load_state_dict(other)
        fresh = create_model("aft_conv_digits", depth=2).eval()
        fresh.load_state_dict(other)
        assert torch.equal(model(image), fresh(image))
        assert torch.equal(copy.deepcopy(model.prepare())(image), fresh(image))
    model.prepare()(image).sum().backward()
    assert all(block.mixer.position_bias.gamma.grad.abs().max() > 0 for block in model.blocks)
    assert create_model("vit_digits", depth=1).eval().prepare().state_dict().keys()


def test_reparameterized_has_zero_mean_and_unit_population_std():
    bias = Reparameterized(3, (5, 5))
    assert torch.equal(bias(), torch.zeros(3, 5, 5))
    with torch.no_grad():
        bias.gamma.fill_(2.0)
        bias.beta.fill_(1.0)
    flat = bias().flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.ones(3))
    std = torch.full((3,), 2.0)
    torch.testing.assert_close(flat.std(1, correction=0), std, rtol=3e-5, atol=0)  # 1e-6 added to that of w', 0.05


def test_factorized_is_a_product():
    bias = Factorized(5, 2)
    torch.testing.assert_close(bias()[1, 3], (bias.target[1] * bias.source[3]).sum())


def test_single_position_samples_in_training_and_is_one_hot_in_evaluation():
    torch.manual_seed(0)
    bias = SinglePosition(4, (3, 3), temperature=0.5)
    with torch.no_grad():
        bias.inner.gamma.fill_(1.0)
        bias.inner.beta.fill_(3.0)
    bias.train()
    assert not torch.equal(bias(), bias())
    bias.eval()
    w = bias().flatten(1)
    assert ((w != 0).sum(1) == 1).all()
    assert torch.equal(w.argmax(1), bias.inner().flatten(1).argmax(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_temperature_samples_as_a_float_does_and_is_no_weight(dtype):
    bias = SinglePosition(4, (3, 3), temperature=0.5).to(dtype)
    torch.nn.init.ones_(bias.inner.gamma)
    w = bias.inner().flatten(1)
    for temperature in (0.5, 0.3, 2.0):
        bias.temperature = temperature
        torch.manual_seed(0)
        found = bias().flatten(1)
        torch.manual_seed(0)
        expected = w * torch.nn.functional.gumbel_softmax(w, tau=temperature, dim=1)
        # float64 alone tells a float from its float32.
        torch.testing.assert_close(found, expected, rtol=1e-6 if dtype == torch.float64 else 0, atol=0)
    assert bias.temperature == 2.0
    assert not list(bias.buffers())
    assert {name.split(".")[0] for name in bias.state_dict()} == {"inner"}
    other = copy.deepcopy(bias)
    other.temperature = 0.1
    assert bias.temperature == 2.0
    torch.manual_seed(0)
    assert torch.equal(bias().flatten(1), found)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        bias.temperature = 0.0


def test_a_temperature_moves_with_its_module():
    with torch.device("meta"):
        bias = SinglePosition(2, (3, 3), temperature=0.25)
    assert bias.to("meta")().device.type == "meta"
    bias.to_empty(device="cpu").load_state_dict(SinglePosition(2, (3, 3)).state_dict())
    bias.inner.gamma.data.fill_(1.0)
    torch.manual_seed(0)
    found = bias()
    other = SinglePosition(2, (3, 3), temperature=0.25)
    other.load_state_dict(bias.state_dict())
    torch.manual_seed(0)
    assert torch.equal(other(), found)


def test_indexed_lays_out_its_window():
    bias = Indexed(torch.tensor([[2.0, 3.0]]), torch.tensor([[[0, 1], [-1, -1]]]))
    assert bias.dense((3, 3)).tolist() == [[[3.0, 0, 0], [0, 0, 2.0], [0, 0, 0]]]


def test_loading_names_what_differs(tmp_path):
    model = create_model("aft_conv_digits", depth=1)
    path = save_checkpoint(tmp_path / "a", model, data={}, recipe={}, seed=0, metrics=[])
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("window_size: 7", "window_size: 5"))
    with pytest.raises(ValueError, match=r"position_bias.weight: expected \(8, 5, 5\), found \(8, 7, 7\)"):
        load_checkpoint(path)
    (path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '.*absent'\. .*digits-vit.*aft-lens list"):
        load_checkpoint(tmp_path / "absent")


def test_trained_models_are_found_by_name_and_a_wrong_name_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model("aft_conv_digits", depth=1)
    save_checkpoint(tmp_path / "runs" / "mine", model, data={}, recipe={}, seed=0, metrics=[])
    assert load_checkpoint("mine").model.config.depth == 1
    assert load_checkpoint("digits-conv").path.parent == SHIPPED
    for wrong, near in (("digits-entropi", "digits-entropy"), ("mien", "mine")):
        with pytest.raises(FileNotFoundError, match=f"there is no checkpoint '{wrong}'; did you mean {near}[?]"):
            load_checkpoint(wrong)
    with pytest.raises(FileNotFoundError, match=r"here: .*digits-conv, .*mine.* are given by their folder"):
        load_checkpoint("nope")


def test_a_killed_save_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    model = create_model("aft_conv_digits", depth=1)
    arguments = {"data": {}, "recipe": {}, "seed": 0, "metrics": []}
    path = save_checkpoint(tmp_path / "a", model, **arguments)
    before = (path / "model.safetensors").read_bytes()

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    for place in ("aft_lens.checkpoint.write_tensors", "aft_lens.checkpoint._card", "pathlib.Path.rename"):
        with monkeypatch.context() as patch:
            patch.setattr(place, killed)
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(path, model, **arguments)
        assert (load_checkpoint(path).path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_stochastic_depth_is_torchvisions(rate):
    x = torch.randn(64, 3, 2)
    for own in (StochasticDepth(rate), StochasticDepth(rate).eval()):
        theirs = ops.StochasticDepth(rate, "row").train(own.training)
        torch.manual_seed(0)
        found = own(x)
        torch.manual_seed(0)
        assert torch.equal(found, theirs(x))


def test_opening_a_checkpoint_imports_neither_torchvision_nor_the_compiler():
    code = "import sys, aft_lens; aft_lens.load('digits-conv')\n"
    code += "print(*{'torchvision', 'torch._dynamo'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
