"""Two domains of one's own: layouts, numbers, sizes, channels, 16 bits and arrays."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.data.domains import Geometry, find_folders, find_two_folders, load_domains, one_size
from mixgan.data.images import BadImageError, Pixels, read_header, save_picture, to_array

RGB = (Pixels(), Pixels())


def noise(seed: int, *shape: int, most: int = 256) -> np.ndarray:
    kind = np.uint8 if most == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, most, shape, dtype=kind)


def write(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        Image.fromarray(noise(number, height, width, 3)).save(folder / f"{number}.png")
    return folder


class TestLayouts:
    def test_without_a_test_split_a_share_is_held_out_and_both_splits_are_all(self, tmp_path):
        write(tmp_path / "trainA", [(8, 8)] * 30)
        write(tmp_path / "trainB", [(8, 8)] * 5)
        train, test = (find_folders(tmp_path, split, test_share=0.1) for split in ("train", "val"))
        assert (len(train.a), len(test.a), len(train.b), len(test.b)) == (27, 3, 3, 2)  # at least two
        assert sorted(train.a + test.a) == sorted((tmp_path / "trainA").iterdir())
        assert not train.paired  # equal names alone are no pairs

    def test_what_is_held_out_stays_when_files_come_in(self, tmp_path):
        folders = write(tmp_path / "horse", [(8, 8)] * 30), write(tmp_path / "zebra", [(8, 8)] * 30)
        before = find_two_folders(*folders, "val", test_share=0.1)
        (folders[0] / "new.png").write_bytes((folders[0] / "0.png").read_bytes())
        after = find_two_folders(*folders, "val", test_share=0.1)
        assert len(set(before.a) & set(after.a)) >= 2
        assert after.b == before.b

    def test_pairs_go_together(self, tmp_path):
        folders = write(tmp_path / "horse", [(8, 8)] * 30), write(tmp_path / "zebra", [(8, 8)] * 30)
        for split in ("train", "val"):
            files = find_two_folders(*folders, split, test_share=0.2, paired=True)
            assert files.paired
            assert [path.name for path in files.a] == [path.name for path in files.b]
        (folders[1] / "0.png").unlink()
        with pytest.raises(
            ValueError, match=r"--pairs needs files of the same names .*horse' has 30,.*zebra' 29, 29 of them"
        ):
            find_two_folders(*folders, "train", test_share=0.2, paired=True)

    def test_pairs_in_subfolders_have_the_same_subfolder(self, tmp_path):
        """The partner's path below its folder, by hand: names alone repeat."""
        folders = tmp_path / "horse", tmp_path / "zebra"
        for folder in folders:
            for part in ("basel", "bern"):
                write(folder / part, [(8, 8)] * 5)
        for split in ("train", "val"):
            files = find_two_folders(*folders, split, test_share=0.3, paired=True)
            assert files.b is not None
            below = [
                [path.relative_to(folder) for path in side]
                for side, folder in zip((files.a, files.b), folders, strict=True)
            ]
            assert below[0] == below[1]
        # Other subfolders: names that are there once are enough, names that repeat are an error.
        (folders[1] / "basel").rename(folders[1] / "basle")
        with pytest.raises(ValueError, match=r"has 10, .* 10, 5 of them in common$"):
            find_two_folders(*folders, "train", test_share=0.3, paired=True)
        for folder in folders:
            for path in sorted(folder.glob("be*/*")):
                path.rename(path.with_name(f"bern-{path.name}"))
        files = find_two_folders(*folders, "train", test_share=0.3, paired=True)
        assert [path.name for path in files.a] == [path.name for path in files.b or ()]

    def test_a_name_of_two_files_is_no_pair(self, tmp_path):
        folders = write(tmp_path / "horse", [(8, 8)] * 9), write(tmp_path / "zebra", [(8, 8)] * 9)
        for folder in folders:
            (folder / "0_A.png").write_bytes((folder / "0.png").read_bytes())
        with pytest.raises(ValueError, match=r"has 10, .* 10, 9 of them in common; '0' is there twice"):
            find_two_folders(*folders, "train", test_share=0.3, paired=True)

    def test_a_domain_of_one_image_is_tested_on_it(self, tmp_path):
        folders = write(tmp_path / "horse", [(8, 8)] * 9), write(tmp_path / "zebra", [(8, 8)])
        train, test = (find_two_folders(*folders, split, test_share=0.1) for split in ("train", "val"))
        assert (len(train.a), len(test.a)) == (7, 2)
        assert train.b == test.b == [folders[1] / "0.png"]

    def test_a_test_split_is_taken_and_missing_data_say_what_was_searched(self, tmp_path):
        for name, count in (("trainA", 3), ("trainB", 2), ("testA", 4), ("testB", 1)):
            write(tmp_path / "both" / name, [(8, 8)] * count)
        train, test = (find_folders(tmp_path / "both", split, test_share=0.1) for split in ("train", "val"))
        assert [len(files) for files in (train.a, train.b, test.a, test.b)] == [3, 2, 4, 1]
        with pytest.raises(ValueError, match=r"searched for train/ or trainA/ \+ trainB/ in .*--domain-a"):
            find_folders(tmp_path, "train", test_share=0.1)


class TestSizes:
    SIZES = ((40, 20), (20, 40), (30, 30))

    def loaded(self, tmp_path, geometry, sizes=SIZES):
        a, b = write(tmp_path / "a", list(sizes)), write(tmp_path / "b", list(sizes[:1]))
        return load_domains(find_two_folders(a, b, "train", test_share=0), geometry, pixels=RGB)

    def test_scale_crop_keeps_the_aspect_and_test_images_are_middles(self, tmp_path):
        whole = self.loaded(tmp_path, Geometry("scale-crop", 10))
        assert [tuple(image.shape) for image in whole.a] == [(3, 10, 20), (3, 20, 10), (3, 10, 10)]
        wide = Image.fromarray(noise(0, 20, 40, 3)).resize(
            (20, 10), Image.Resampling.BICUBIC
        )  # Pillow itself is the oracle
        assert torch.equal(whole.a[0], torch.from_numpy(np.array(wide)).permute(2, 0, 1))
        files = find_two_folders(tmp_path / "a", tmp_path / "b", "train", test_share=0)
        middle = load_domains(files, Geometry("scale-crop", 10, centre=True), pixels=RGB)
        assert torch.equal(middle.a[0], whole.a[0][:, :, 5:15])
        assert middle.a.shape == (3, 3, 10, 10)

    def test_crop_leaves_pixels_alone_and_names_what_is_too_small(self, tmp_path):
        whole = self.loaded(tmp_path, Geometry("crop", 20))
        assert torch.equal(whole.a[1], torch.from_numpy(noise(1, 40, 20, 3)).permute(2, 0, 1))
        files = find_two_folders(tmp_path / "a", tmp_path / "b", "train", test_share=0)
        with pytest.raises(BadImageError, match=r"0\.png' is 40x20, smaller than 24 px: --preprocess scale-crop"):
            load_domains(files, Geometry("crop", 24), pixels=RGB)

    def test_none_needs_one_size(self, tmp_path):
        whole = self.loaded(tmp_path, Geometry("none", 8))
        with pytest.raises(ValueError, match="--preprocess none needs images of one size in both domains, got"):
            one_size(whole.a, whole.b)
        same = self.loaded(tmp_path / "same", Geometry("none", 8), ((12, 8), (12, 8)))
        assert one_size(same.a, same.b) == (8, 12)


class TestPixels:
    def test_grey_and_colour_become_the_channels_asked_for(self, tmp_path):
        grey, colour = noise(0, 4, 5), noise(1, 4, 5, 3)
        Image.fromarray(grey).save(tmp_path / "grey.png")
        Image.fromarray(colour).save(tmp_path / "colour.png")
        assert (to_array(Pixels(1).read(tmp_path / "grey.png"))[..., 0] == grey).all()
        assert (to_array(Pixels(3).read(tmp_path / "grey.png")) == grey[..., None]).all()
        luminance = colour @ np.array([0.299, 0.587, 0.114])
        assert np.abs(to_array(Pixels(1).read(tmp_path / "colour.png"))[..., 0] - luminance).max() <= 1

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_is_refused_by_the_flag_that_drops_it(self, tmp_path, mode):
        Image.new(mode, (4, 4)).save(tmp_path / "1.png")
        with pytest.raises(BadImageError, match=r"1\.png' has an alpha channel: --drop-alpha"):
            Pixels().read(tmp_path / "1.png")
        assert to_array(Pixels(drop_alpha=True).read(tmp_path / "1.png")).shape == (4, 4, 3)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_16_bits_survive_reading_and_writing(self, tmp_path, channels):
        values = noise(0, 6, 5, channels, most=65536)
        save_picture(tmp_path / "1.png", values)
        assert read_header(tmp_path / "1.png").deep
        signed = to_array(Pixels(channels, deep=True).read(tmp_path / "1.png"))
        assert signed.dtype == np.float32
        assert (np.round((signed.astype(np.float64) + 1) * 32767.5) == values).all()
        if channels == 1:  # Pillow is the oracle of the writer, torchvision of colours
            assert (np.array(Image.open(tmp_path / "1.png")) == values[..., 0]).all()
        else:
            from torchvision.io import decode_png, read_file

            assert (decode_png(read_file(str(tmp_path / "1.png"))).permute(1, 2, 0).numpy() == values).all()

    def test_tiff_of_16_bits_and_a_declared_range(self, tmp_path):
        values = noise(0, 4, 5, most=4096)
        Image.fromarray(values).save(tmp_path / "1.tif")
        signed = to_array(Pixels(1, deep=True, value_range=(0, 4095)).read(tmp_path / "1.tif"))
        np.testing.assert_allclose(signed[..., 0], values / 4095 * 2 - 1, atol=1e-6)

    def test_arrays_need_a_range_and_are_clipped_to_it(self, tmp_path):
        values = np.random.default_rng(0).normal(0, 1000, (6, 7)).astype(np.float32)
        np.save(tmp_path / "1.npy", values)
        with pytest.raises(BadImageError, match=r"1\.npy' has values of an unknown range: --range-a LOW HIGH"):
            Pixels(1, deep=True).read(tmp_path / "1.npy")
        how = Pixels(1, deep=True, value_range=(-1000, 3000))
        expected = np.clip((values.astype(np.float64) + 1000) / 4000, 0, 1) * 2 - 1
        np.testing.assert_allclose(to_array(how.read(tmp_path / "1.npy"))[..., 0], expected, atol=1e-6)
        np.save(tmp_path / "2.npy", values[None].repeat(3, 0))
        assert to_array(Pixels(3, deep=True, value_range=(0, 1)).read(tmp_path / "2.npy")).shape == (6, 7, 3)
        np.save(tmp_path / "3.npy", values[0])
        with pytest.raises(BadImageError, match=r"3\.npy' has an array of shape \(7,\)"):
            how.read(tmp_path / "3.npy")
        np.save(tmp_path / "4.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(BadImageError, match=r"4\.npy' is not an array of numbers"):
            how.read(tmp_path / "4.npy")

    def test_one_file_of_16_bits_makes_its_domain_floats(self, tmp_path):
        a, b = write(tmp_path / "a", [(8, 8)]), write(tmp_path / "b", [(8, 8)])
        save_picture(a / "deep.png", noise(5, 8, 8, 3, most=65536))
        found = load_domains(find_two_folders(a, b, "train", test_share=0), Geometry("resize-crop", 8), pixels=RGB)
        assert (found.a.dtype, found.b.dtype) == (torch.float32, torch.uint8)
        eight = torch.from_numpy(noise(0, 8, 8, 3)).permute(2, 0, 1)
        torch.testing.assert_close(found.a[0], eight / 127.5 - 1, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_a_pipe_is_a_bad_image(tmp_path: Path, name: str):
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / name)
    if name == "a.png":
        assert not read_header(tmp_path / name).deep
    with pytest.raises(BadImageError, match=f"{name}' is not a regular file$"):
        Pixels(3, deep=True).read(tmp_path / name)


def test_a_bad_image_is_named_once(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError) as found:
        Pixels(3, deep=True).read(tmp_path / "a.tif")
    assert str(found.value).count("a.tif") == 1
