"""Own data from folders to weights in other hands: one command each for training, translation, evaluation and export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import mixgan
from mixgan.cli import dispatch
from mixgan.data.images import save_picture
from mixgan.engine.run_folder import save_weights
from mixgan.gan.__main__ import dcgan, main
from mixgan.gan.config import GanSettings
from mixgan.gan.export import push
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from mixgan.gan.translate import main as translate
from mixgan.gan.weights import init_networks, local

TINY = "--image-size 32 --width 4 --epochs 1 --max-steps 2 --batch-size 1 --threads 1 --features bundled"


def write(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        width, height = random.integers(36, 70, 2)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    write(root / "horse", 20)
    write(root / "zebra", 20, seed=1)
    return root


@pytest.fixture(scope="module")
def run(root: Path, run_command) -> Path:
    words = f"--domain-a {root / 'horse'} --domain-b {root / 'zebra'} --blocks 1 --clip-grad 1"
    return run_command(main, TINY, root / "run", words)


@pytest.mark.usefixtures("own_process_state")
class TestOwnData:
    def test_two_folders_translate_and_are_evaluated_by_one_command_each(self, run, root, tmp_path, capsys):
        translate([str(run), str(root / "horse"), str(tmp_path / "out"), "--threads", "1"])
        assert "(horse to zebra)" in capsys.readouterr().out
        sizes = {path.stem: Image.open(path).size for path in (root / "horse").iterdir()}
        assert {path.stem: Image.open(path).size for path in (tmp_path / "out").iterdir()} == sizes
        words = f"fid {root / 'zebra'} {tmp_path / 'out'} --features bundled --json {tmp_path / 'out.json'}"
        dispatch(words.split())
        assert json.loads((tmp_path / "out.json").read_text())["n_fake"] == 20

    def test_the_hubs_folders_are_read_by_mixgan_and_by_the_hubs_own_loader(self, run, capsys):
        dispatch(["export", str(run)])
        folders = {name: run / "export" / "hub" / name for name in ("horse2zebra", "zebra2horse")}
        assert set(capsys.readouterr().out.split()) == set(map(str, folders.values()))
        images = torch.rand(1, 3, 16, 16) * 2 - 1
        for direction, folder in zip(("AtoB", "BtoA"), folders.values(), strict=True):
            assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
            expected = mixgan.load(run, direction=direction)(images)
            assert torch.equal(mixgan.load(folder)(images), expected)
            with torch.no_grad():
                assert torch.equal(ResnetGenerator.from_pretrained(folder)(images), expected)
            header = ModelCard.load(folder / "README.md").data
            assert (header.library_name, header.pipeline_tag, header.datasets) == (
                "mixgan",
                "image-to-image",
                ["horse2zebra"],
            )
            record = json.loads((run / "summary.json").read_text())
            (distance,) = [result for result in header.eval_results if result.metric_type == "frechet-distance"]
            assert distance.metric_value == round(record[f"fd_{direction}"], 4)
        with pytest.raises(ValueError, match=r"hub contains files already; add --overwrite"):
            dispatch(["export", str(run)])
        dispatch(["export", str(run), "--overwrite", "--direction", "BtoA"])

    def test_pth_files_are_those_that_a_training_there_continues(self, run, tmp_path):
        dispatch(["export", str(run), "--format", "pth", "--output", str(tmp_path)])
        folder = tmp_path / "horse2zebra"
        names = ("G_A", "G_B", "D_A", "D_B")
        assert {path.name for path in folder.iterdir()} == {f"latest_net_{name}.pth" for name in names}
        images = torch.rand(1, 3, 16, 16) * 2 - 1
        for direction in ("AtoB", "BtoA"):
            expected = mixgan.load(run, direction=direction)(images)
            assert torch.equal(mixgan.load(folder, direction=direction)(images), expected)

    def test_16_bits_and_arrays_stay_what_they_are(self, run, tmp_path):
        values = np.random.default_rng(0).integers(0, 65536, (40, 36, 3), dtype=np.uint16)
        (tmp_path / "in").mkdir()
        save_picture(tmp_path / "in" / "deep.png", values)
        np.save(tmp_path / "in" / "array.npy", values / 65535 * 4000 - 1000)
        words = [str(run), str(tmp_path / "in"), str(tmp_path / "out"), "--threads", "1"]
        with pytest.raises(ValueError, match=r"array\.npy' has values of an unknown range: --value-range LOW HIGH"):
            translate(words)
        translate([*words, "--value-range", "-1000", "3000"])
        signed = torch.from_numpy(values / 65535 * 2 - 1).float().permute(2, 0, 1)[None]
        expected = mixgan.load(run)(signed)[0].permute(1, 2, 0).double().numpy()
        array = np.load(tmp_path / "out" / "array.npy")
        np.testing.assert_allclose(array, (expected + 1) * 2000 - 1000, atol=0.1)
        from mixgan.data.images import Pixels, read_header, to_array

        assert read_header(tmp_path / "out" / "deep.png").deep  # with the range that was declared for it
        again = to_array(Pixels(deep=True).read(tmp_path / "out" / "deep.png"))
        assert len(np.unique(again)) > 1000

    def test_a_training_begins_with_trained_weights(self, run, root, tmp_path, run_command, capsys):
        words = f"--domain-a {root / 'horse'} --domain-b {root / 'zebra'} --init-from {run} --lr 1e-30"
        again = run_command(main, TINY, tmp_path / "again", f"{words} --blocks 1")
        assert f"G_A, G_B, D_A, D_B begin with the weights of {run}" in capsys.readouterr().out
        before, after = (mixgan.load(folder).state_dict() for folder in (run, again))
        for key, tensor in before.items():
            torch.testing.assert_close(after[key], tensor)
        with pytest.raises(ValueError, match=r"G_A has another shape \(its weights are of --width 4 --blocks 1"):
            run_command(main, TINY, tmp_path / "other", f"{words} --blocks 2")

    @pytest.mark.parametrize(
        "words", ["--generator unet", "--generator unet --norm batch --batch-size 2", "--norm none"]
    )
    def test_other_networks_train_and_translate(self, root, tmp_path, run_command, words):
        words = f"--domain-a {root / 'horse'} --domain-b {root / 'zebra'} --blocks 1 {words}"
        run = run_command(main, TINY, tmp_path / "run", words)
        network = mixgan.load(run)
        assert isinstance(network, UnetGenerator) == ("unet" in words)
        assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules()) == ("batch " in words)
        translate([str(run), str(root / "horse"), str(tmp_path / "out"), "--threads", "1", "--tile", "32"])
        assert len(list((tmp_path / "out").iterdir())) == 20

    def test_dcgan_begins_with_trained_weights_too(self, tmp_path, run_command):
        tiny = "--dataset tiles --train-count 8 --eval-count 4 --width 4 --batch-size 4 --epochs 1 --max-steps 1 --threads 1"
        first = run_command(dcgan, tiny, tmp_path / "first", "")
        again = run_command(dcgan, tiny, tmp_path / "again", f"--init-from {first} --lr 1e-30 --seed 5")
        from safetensors.torch import load_file

        before, after = (load_file(folder / "weights" / "last" / "G.safetensors") for folder in (first, again))
        assert all(
            torch.allclose(after[key], before[key]) for key in before if "running" not in key and "num" not in key
        )


def test_what_a_source_lacks_stays_new_and_nothing_at_all_is_an_error(tmp_path):
    networks = {name: ResnetGenerator(width=4, blocks=1) for name in ("G_A", "G_B")}
    save_weights(
        tmp_path / "one.safetensors", ResnetGenerator(width=4, blocks=1), {"role": "generator", "direction": "BtoA"}
    )
    before = networks["G_A"].layers[0].weight.clone()
    assert init_networks(networks, str(tmp_path / "one.safetensors")) == ["G_B"]
    assert torch.equal(networks["G_A"].layers[0].weight, before)
    with pytest.raises(ValueError, match="contains no weights of D_A"):
        init_networks({"D_A": PatchDiscriminator(width=4)}, str(tmp_path / "one.safetensors"))
    with pytest.raises(ValueError, match="nowhere does not exist"):
        init_networks(networks, str(tmp_path / "nowhere"))


def test_the_hub_is_asked_once_and_without_it_there_is_one_sentence(tmp_path, monkeypatch):
    asked = []

    def snapshot(repo: str, *, allow_patterns: list[str]) -> str:
        asked.append(repo)
        if repo == "nobody/nothing":
            raise ConnectionError("no route to the hub\nand more")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    network = ResnetGenerator(width=4, blocks=0).eval()
    save_weights(tmp_path / "model.safetensors", network, {"role": "generator", "direction": "BtoA"})
    for source in ("hf://user/repo", Path("hf://user/repo"), "hf://user/repo/model.safetensors"):
        assert torch.equal(mixgan.load(source).layers[0].weight, network.layers[0].weight)
    assert asked == ["user/repo"] * 3
    with pytest.raises(
        ValueError, match=r"^hf://nobody/nothing cannot be fetched from .* \(no route to the hub\); without"
    ):
        local("hf://nobody/nothing")


def test_push_uploads_an_exported_folder(tmp_path, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            calls.append((repo, private, exist_ok))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            calls.append((repo_id, folder_path))
            return "https://hub/user/repo"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ValueError, match=r"has no model\.safetensors: mixgan export RUN --format hub"):
        push([str(tmp_path), "user/repo"])
    (tmp_path / "model.safetensors").write_bytes(b"")
    push([str(tmp_path), "user/repo", "--private"])
    assert calls == [("user/repo", True, True), ("user/repo", tmp_path)]
    assert capsys.readouterr().out == "https://hub/user/repo\n"


def test_checkpointing_is_of_residual_blocks():
    with pytest.raises(ValueError, match="residual blocks, which --generator unet does not have"):
        GanSettings(dataset="tiles", generator="unet", gradient_checkpointing=True)
