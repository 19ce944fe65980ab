from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, Resize

from mixgan.data.domains import MAPS_URL, Domains, Geometry, count_pairs, find_maps, find_maps_files, load_domains
from mixgan.data.images import BadImageError, Pixels


def load_maps(root: Path, split: str, *, size: int, paired: bool | None = None, **how: object) -> Domains:
    pixels = (Pixels(drop_alpha=True),) * 2
    files = find_maps_files(root, split, paired=paired)
    return load_domains(files, Geometry("resize-crop", size), pixels=pixels, title="Google Maps", **how)


def picture(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_pix2pix(folder: Path, numbers: range, *, side: int = 20) -> None:
    """Photo i = picture(i), map i = picture(1000 + i), side by side, as PNG so that pixels can be compared."""
    folder.mkdir(parents=True)
    for number in numbers:
        both = Image.new("RGB", (2 * side, side))
        both.paste(picture(number, side, side), (0, 0))
        both.paste(picture(1000 + number, side, side), (side, 0))
        both.save(folder / f"{number}.png")


def write_cyclegan(root: Path, split: str, names_a: list[str], names_b: list[str], *, side: int = 20) -> None:
    for letter, names, offset in (("A", names_a, 0), ("B", names_b, 1000)):
        (root / f"{split}{letter}").mkdir(parents=True)
        for name in names:
            number = int("".join(filter(str.isdigit, name)))
            picture(offset + number, side, side).save(root / f"{split}{letter}" / name)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def expected(numbers: list[int], offset: int, size: int, side: int = 20) -> torch.Tensor:
    """The oracle: torchvision's bicubic resize of a PIL image, which CycleGAN's reference code calls."""
    resize = Resize([size, size], interpolation=InterpolationMode.BICUBIC)
    return torch.stack([tensor(resize(picture(offset + number, side, side))) for number in numbers])


@pytest.mark.parametrize("size", [13, 20, 32])
def test_pix2pix_pictures_are_split_in_the_middle_and_resized_as_in_cyclegan(tmp_path, size):
    write_pix2pix(tmp_path / "maps" / "train", range(1, 13))
    domains = load_maps(tmp_path, "train", size=size)
    numbers = list(range(1, 13))  # natural order: 2 before 10
    assert torch.equal(domains.a, expected(numbers, 0, size))
    assert torch.equal(domains.b, expected(numbers, 1000, size))
    assert domains.paired


@pytest.mark.parametrize("name", ["val", "test"])
def test_the_validation_folder_may_be_called_test_and_the_root_may_be_the_maps_folder(tmp_path, name):
    write_pix2pix(tmp_path / name, range(3))
    assert find_maps(tmp_path) == tmp_path
    assert count_pairs(tmp_path) == {"train": 0, "val": 3}
    assert len(load_maps(tmp_path, "val", size=8, limit=2).b) == 2


def test_odd_width_goes_by_the_reference_split(tmp_path):
    # aligned_dataset.py of CycleGAN and pix2pix: w2 = int(w / 2), A = crop(0, w2), B = crop(w2, w)
    (tmp_path / "maps" / "val").mkdir(parents=True)
    image = picture(0, 41, 20)
    image.save(tmp_path / "maps" / "val" / "1.png")
    domains = load_maps(tmp_path, "val", size=20)
    assert torch.equal(domains.a[0], tensor(image)[:, :, :20])
    assert torch.equal(domains.b[0], tensor(image.crop((20, 0, 41, 20)).resize((20, 20), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("split_folder", ["val", "test"])
def test_cyclegan_folders_with_equal_stems_are_paired(tmp_path, split_folder):
    names_a = [f"{i}_A.png" for i in (1, 2, 10)]
    names_b = ["1_B.png", "10_B.png", "2_B.png"]
    write_cyclegan(tmp_path / "maps", split_folder, names_a, names_b)
    domains = load_maps(tmp_path, "val", size=12)
    assert domains.paired
    assert torch.equal(domains.a, expected([1, 2, 10], 0, 12))
    assert torch.equal(domains.b, expected([1, 2, 10], 1000, 12))


def test_pairs_follow_the_stems_where_the_orders_of_the_files_differ(tmp_path):
    # "." < "=" < "_": A lists x1 before x1=0, B the other way round.
    (tmp_path / "trainA").mkdir()
    (tmp_path / "trainB").mkdir()
    for name, seed in (("x1.png", 1), ("x1=0_A.png", 2)):
        picture(seed, 8, 8).save(tmp_path / "trainA" / name)
    for name, seed in (("x1_B.png", 1001), ("x1=0_B.png", 1002)):
        picture(seed, 8, 8).save(tmp_path / "trainB" / name)
    assert not load_maps(tmp_path, "train", size=8).paired  # not all names are CycleGAN's
    whole = load_maps(tmp_path, "train", size=8, paired=True)
    assert whole.paired
    for domains in (whole, load_maps(tmp_path, "train", size=8, limit=1, paired=True)):
        for number, a, b in zip((1, 2), domains.a, domains.b, strict=False):
            assert torch.equal(a, tensor(picture(number, 8, 8)))
            assert torch.equal(b, tensor(picture(1000 + number, 8, 8)))


def test_equal_names_alone_are_no_pairs(tmp_path):
    write_cyclegan(tmp_path / "maps", "train", ["1.png", "2.png"], ["1.png", "2.png"])
    assert not load_maps(tmp_path, "train", size=12).paired
    assert load_maps(tmp_path, "train", size=12, paired=True).paired


def test_cyclegan_folders_with_other_stems_are_two_independent_sets(tmp_path):
    write_cyclegan(tmp_path / "maps", "train", ["1.png", "2.png"], ["1.png", "2.png", "3.png"])
    domains = load_maps(tmp_path, "train", size=12)
    assert not domains.paired
    assert (len(domains.a), len(domains.b)) == (2, 3)
    assert not load_maps(tmp_path, "train", size=12, limit=2).paired  # the first two match, the sets do not


def test_a_bad_file_takes_its_pair_along(tmp_path):
    names = [f"{i}_{{}}.png" for i in range(5)]
    write_cyclegan(tmp_path / "maps", "train", [n.format("A") for n in names], [n.format("B") for n in names])
    bad_a, bad_b = tmp_path / "maps" / "trainA" / "1_A.png", tmp_path / "maps" / "trainB" / "3_B.png"
    bad_a.write_bytes(b"")
    bad_b.write_bytes(bad_b.read_bytes()[:60])
    with pytest.raises(BadImageError, match=r"1_A\.png' is empty"):
        load_maps(tmp_path, "train", size=12)
    with pytest.warns(UserWarning, match="skipped 1 of 5"):
        domains = load_maps(tmp_path, "train", size=12, on_bad_image="skip")
    assert torch.equal(domains.a, expected([0, 2, 4], 0, 12))
    assert torch.equal(domains.b, expected([0, 2, 4], 1000, 12))


def test_no_pair_left_is_an_error(tmp_path):
    write_cyclegan(tmp_path, "train", ["1_A.png", "2_A.png"], ["1_B.png", "2_B.png"])
    (tmp_path / "trainA" / "1_A.png").write_bytes(b"")
    (tmp_path / "trainB" / "2_B.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="no pair of Google Maps is left"):
        load_maps(tmp_path, "train", size=8, on_bad_image="skip")


def test_an_oddly_shaped_pix2pix_picture_is_named_or_skipped(tmp_path):
    write_pix2pix(tmp_path / "maps" / "train", range(3))
    odd = tmp_path / "maps" / "train" / "1.png"
    picture(0, 20, 20).save(odd)
    with pytest.raises(BadImageError, match=r"1\.png' is 20x20, but two images side by side"):
        load_maps(tmp_path, "train", size=20)
    with pytest.warns(UserWarning, match=r"1\.png' is 20x20"):
        domains = load_maps(tmp_path, "train", size=20, on_bad_image="skip")
    assert torch.equal(domains.b, expected([0, 2], 1000, 20))


def test_missing_data_say_where_they_were_looked_for_and_how_to_get_them(tmp_path):
    assert find_maps(tmp_path) is None
    with pytest.raises(ValueError) as caught:
        load_maps(tmp_path, "val", size=8)
    for part in (str(tmp_path / "maps"), "val/", "testA/ + testB/", "--download", MAPS_URL):
        assert part in str(caught.value)
    write_pix2pix(tmp_path / "maps" / "train", range(1))
    with pytest.raises(ValueError, match="no Google Maps pictures of the val split"):
        load_maps(tmp_path, "val", size=8)


def test_one_domain_without_the_other_is_an_error(tmp_path):
    write_cyclegan(tmp_path / "maps", "train", ["1.png"], [])
    with pytest.raises(ValueError, match=r"trainA' contains images, but .*trainB' is missing or empty"):
        load_maps(tmp_path, "train", size=8)


def test_settings_are_checked(tmp_path):
    write_pix2pix(tmp_path / "train", range(1))
    with pytest.raises(ValueError, match="limit must be at least 1 or None, got 0"):
        load_maps(tmp_path, "train", size=8, limit=0)
