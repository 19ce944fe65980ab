"""Two folders of one's own, from flags to results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.data.domains import Domains
from mixgan.data.images import save_picture
from mixgan.gan.__main__ import main
from mixgan.gan.config import GanSettings, domain_names, settings_from
from mixgan.gan.data import DomainLoader, crop_size, training_domains

TINY = (
    "--image-size 32 --width 4 --blocks 1 --epochs 1 --max-steps 2 --batch-size 1 --threads 1 --features bundled"
    " --preset paper"
)


def write(folder: Path, count: int, *, channels: int = 3, seed: int = 0, deep: bool = False) -> Path:
    """Noise of sizes from 36 to 70 px."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        width, height = random.integers(36, 70, 2)
        most, kind = (65536, np.uint16) if deep else (256, np.uint8)
        save_picture(folder / f"{number}.png", random.integers(0, most, (height, width, channels), dtype=kind))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> str:
    a, b = write(tmp_path / "horse", 20), write(tmp_path / "zebra", 7, seed=1)
    return f"--domain-a {a} --domain-b {b}"


class TestSettings:
    def test_two_folders_need_no_other_flag_and_give_the_names(self, folders):
        settings = settings_from(folders.split())
        assert (settings.dataset, settings.names, settings.domain_names) == (
            "folders",
            "horse,zebra",
            ("horse", "zebra"),
        )
        assert (settings.image_size, settings.width, settings.blocks) == (256, 64, 9)  # the paper's
        assert settings_from([*folders.split(), "--names", "Pferd,Zebra"]).domain_names == ("Pferd", "Zebra")

    def test_a_root_in_cyclegans_layout_is_found_and_named(self, tmp_path, capsys):
        for name in ("trainA", "trainB"):
            write(tmp_path / "apple2orange" / name, 1)
        settings = settings_from(["--data-root", str(tmp_path / "apple2orange")])
        assert (settings.dataset, settings.domain_names) == ("folders", ("apple", "orange"))
        assert domain_names({"dataset": "folders", "data_root": "images"}) == ("A", "B")
        assert domain_names({"dataset": "maps"}) == ("photo", "map")  # config.json of older runs has no names

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            ("--domain-a horse", "--domain-a and --domain-b go together"),
            ("--dataset tiles --domain-a h --domain-b z", "are for --dataset folders, got --dataset tiles"),
            ("--names horse", "--names takes two different names, as in horse,zebra; got 'horse'"),
            ("--names zebra,zebra", "--names takes two different names"),
            ("--dataset folders --range-a 5 1", "--range-a takes the lower value first, got 5 1"),
            ("--dataset folders --load-size 100", "--load-size 100 is smaller than --image-size 256"),
            ("--dataset folders --load-size 300 --preprocess crop", "--load-size 300 does not go with --preprocess crop"),
            ("--dataset tiles --channels-a 1", "the synthetic tiles are RGB"),
            ("--dataset folders --channels-a 1 --identity-weight 0.5", "--identity-weight 0.5 needs domains of equally many"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_quoted(self, words, error):
        with pytest.raises(ValueError, match=error):
            settings_from(words.split())

    def test_unequal_channels_have_no_identity_loss(self, folders, capsys):
        settings = settings_from([*folders.split(), "--channels-a", "1"])
        assert settings.identity_weight == 0
        assert capsys.readouterr().out == "Domains of 1 and 3 channels: --identity-weight is 0.\n"


class TestLoader:
    def crops(self, images: list[torch.Tensor], **how: object) -> list[torch.Tensor]:
        domains = Domains(images, images[:1], paired=False)
        loader = DomainLoader(domains, size=8, batch_size=2, seed=0, device=torch.device("cpu"), **how)
        assert loader.steps_per_epoch == len(images) // 2  # the smaller domain is repeated
        return [crop for batch in loader.epoch(0) for crop in batch.a]

    def test_crops_of_images_of_different_sizes_are_parts_of_them_from_everywhere(self):
        sizes = ((8, 8), (20, 9), (9, 20), (31, 17)) * 20
        images = [torch.rand(3, *size) * 2 - 1 for size in sizes]  # floats pass unchanged
        corners = []
        for crop in self.crops(images, flip=False):
            (index,) = [
                i for i, image in enumerate(images) if (image == crop[0, 0, 0]).any() and (image == crop[2, 7, 7]).any()
            ]
            _, top, left = (images[index] == crop[0, 0, 0]).nonzero()[0].tolist()
            assert torch.equal(images[index][:, top : top + 8, left : left + 8], crop)
            corners.append((index % 4, top, left))
        largest = [corner[1:] for corner in corners if corner[0] == 3]
        assert max(top for top, _ in largest) > 15
        assert max(left for _, left in largest) > 6
        assert {corner for corner in corners if corner[0] == 0} == {(0, 0, 0)}

    def test_half_are_mirrored_unless_that_is_off(self):
        images = [torch.arange(8.0).expand(3, 8, 8).clone() for _ in range(40)]
        images[0] = images[0].new_zeros(3, 9, 9)
        rising = {
            flip: [bool(crop[0, 0, 0] < crop[0, 0, 7]) for crop in self.crops(images, flip=flip)]
            for flip in (True, False)
        }
        assert 10 <= sum(rising[True]) <= 30
        assert sum(rising[False]) == 39

    def test_whole_images_keep_their_shape_and_odd_sides_are_refused(self, tmp_path):
        for side, size in (("a", (48, 32)), ("b", (48, 32))):
            (tmp_path / side).mkdir()
            Image.new("RGB", size).save(tmp_path / side / "1.png")
        how = {"dataset": "folders", "domain_a": tmp_path / "a", "domain_b": tmp_path / "b", "preprocess": "none"}
        settings = GanSettings(**how)
        assert crop_size(settings, training_domains(settings)) == (32, 48)
        for side in "ab":
            Image.new("RGB", (50, 32)).save(tmp_path / side / "1.png")
        with pytest.raises(ValueError, match="sides that are multiples of 4, at least 32, got 50x32"):
            crop_size(settings, training_domains(settings))


@pytest.mark.usefixtures("own_process_state")
class TestTraining:
    def test_two_folders_train_under_their_own_names(self, folders, tmp_path, run_command, capsys):
        run = run_command(main, TINY, tmp_path / "run", f"{folders} --preprocess scale-crop")
        printed = capsys.readouterr().out
        assert "horse: 18 training and 2 test images; zebra: 5 training and 2 test images" in printed
        assert "FD (bundled) horse to zebra" in printed
        texts = [(run / "report.html").read_text(), (run / "weights" / "last" / "README.md").read_text(), printed]
        assert f"<code>mixgan translate {run} INPUT_DIR OUTPUT_DIR</code>" in texts[0]
        assert 'href="weights/last/README.md"' in texts[0]
        for text in texts:
            assert "horse to zebra" in text
            assert not any(word in text.lower() for word in ("photo", " map", "aerial"))

    def test_splits_inside_a_domain_are_pointed_out(self, tmp_path, run_command, capsys):
        a, b = tmp_path / "horse", write(tmp_path / "zebra", 3)
        for split in ("train", "test"):
            write(a / split, 3)
        (b / "train").mkdir()  # alone it is any folder
        run_command(main, TINY, tmp_path / "run", f"--domain-a {a} --domain-b {b}")
        printed = capsys.readouterr().out
        assert f"warning: {a} has splits of its own (train, test), whose images are mixed" in printed
        assert "zebra has splits" not in printed

    @pytest.mark.parametrize("words", ["--channels-a 1", "--channels-a 1 --channels-b 1 --preprocess crop"])
    def test_grey_and_16_bits_and_a_single_image(self, tmp_path, run_command, words):
        a, b = write(tmp_path / "ct", 4, channels=1, deep=True), write(tmp_path / "mr", 1)
        run = run_command(main, TINY, tmp_path / "run", f"--domain-a {a} --domain-b {b} {words}")
        summary = json.loads((run / "summary.json").read_text())
        assert summary["fd_AtoB"] > 0
        assert summary["fd_BtoA"] > 0
