import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch._utils import ExceptionWrapper

from mixgan.data.images import BadImageError, image_size, list_images, open_image, read_image, read_images, stream_views


def pixels(seed: int, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_png(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def bad_files(folder: Path) -> dict[str, Path]:
    """One file of each kind of damage; the truncated ones are good files cut in the middle of their pixels."""
    files = {kind: folder / name for kind, name in BAD_NAMES.items()}
    files["zero bytes"].touch()
    files["not an image"].write_text("<html>404 not found</html>")
    for kind in ("truncated jpg", "truncated png"):
        Image.fromarray(pixels(1, 64, 64)).save(files[kind])
        files[kind].write_bytes(files[kind].read_bytes()[: files[kind].stat().st_size // 2])
    return files


BAD_NAMES = {"zero bytes": "a.jpg", "not an image": "b.png", "truncated jpg": "c.jpg", "truncated png": "d.png"}
BAD_REASONS = {
    "zero bytes": "empty",
    "not an image": "not an image",
    "truncated jpg": "truncated",
    "truncated png": "truncated",
}


def test_list_images_in_natural_order_any_case_without_hidden_files(tmp_path):
    for name in ("10.JPG", "2.jpg", "01.jpg", "1.jpg", "b/3.PNG", "a20/x.tiff", "a3/x.webp", "notes.txt", "1.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for hidden in ("._1.jpg", ".cache/5.jpg"):  # as macOS archives and notebooks leave them
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["01.jpg", "1.jpg", "2.jpg", "10.JPG", "a3/x.webp", "a20/x.tiff", "b/3.PNG"]
    assert [path.name for path in list_images(tmp_path, recursive=False)] == ["01.jpg", "1.jpg", "2.jpg", "10.JPG"]


def test_list_images_follows_linked_folders_and_survives_a_circle_of_links(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.jpg").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "cats").symlink_to(elsewhere)
    (root / "circle").symlink_to(root)
    assert list_images(root) == [root / "cats" / "1.jpg"]


def test_list_images_of_nothing_quotes_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"missing' does not exist"):
        list_images(tmp_path / "missing")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=rf"{tmp_path.name}' contains no image"):
        list_images(tmp_path)
    with pytest.raises(ValueError, match=r"notes.txt' is a file"):
        list_images(tmp_path / "notes.txt")


def test_rgb_comes_back_as_written(tmp_path):
    image = read_image(save_png(tmp_path / "rgb.png", pixels(0)))
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert torch.equal(image, as_tensor(pixels(0)))


@pytest.mark.filterwarnings("error")
def test_gray_palette_alpha_and_bilevel_files_become_rgb(tmp_path):
    rgb = Image.fromarray(pixels(0))
    gray, palette = rgb.convert("L"), rgb.quantize(16)
    rgba = rgb.copy()
    rgba.putalpha(gray)
    bilevel = rgb.convert("1")
    palette.save(tmp_path / "p.png", transparency=bytes(range(16)))  # Pillow alone would warn here
    for name, image in {"l.png": gray, "rgba.png": rgba, "1.png": bilevel, "la.png": gray.convert("LA")}.items():
        image.save(tmp_path / name)
    as_rgb = np.repeat(np.asarray(gray)[..., None], 3, axis=2)
    assert torch.equal(read_image(tmp_path / "l.png"), as_tensor(as_rgb))
    assert torch.equal(read_image(tmp_path / "la.png"), as_tensor(as_rgb))
    assert torch.equal(read_image(tmp_path / "rgba.png"), as_tensor(pixels(0)))  # alpha is dropped, not composed
    colours = np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)].astype(np.uint8)
    assert torch.equal(read_image(tmp_path / "p.png"), as_tensor(colours))
    black_white = np.repeat(np.asarray(bilevel)[..., None], 3, axis=2).astype(np.uint8) * 255
    assert torch.equal(read_image(tmp_path / "1.png"), as_tensor(black_white))


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm"])
def test_sixteen_bit_gray_is_scaled_and_rounded(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    values[0, :5] = (0, 128, 129, 255, 65535)
    Image.fromarray(values).save(tmp_path / name)
    expected = np.rint(values / 257).astype(np.uint8)
    assert expected[0, :5].tolist() == [0, 0, 1, 1, 255]
    assert torch.equal(read_image(tmp_path / name)[1], torch.from_numpy(expected))
    dark = np.array([[0, 255]], dtype=np.uint16)  # declared as 16 bits, whatever the values
    Image.fromarray(dark).save(tmp_path / name)
    assert read_image(tmp_path / name)[1].tolist() == [[0, 1]]


def test_32_bit_integers_are_taken_by_their_largest_value(tmp_path):
    for highest, expected in ((255, [0, 7, 255]), (65535, [0, 0, 255])):
        Image.fromarray(np.array([[0, 7, highest]], dtype=np.int32)).save(tmp_path / "i.tif")
        assert read_image(tmp_path / "i.tif")[2].tolist() == [expected]
    for wrong in (65536, -1):
        Image.fromarray(np.array([[0, 7, wrong]], dtype=np.int32)).save(tmp_path / "i.tif")
        with pytest.raises(BadImageError, match=r"i\.tif' has 32-bit integer pixels outside 0..65535"):
            read_image(tmp_path / "i.tif")


def test_cmyk_jpeg_shows_its_colour(tmp_path):
    # By the definition of the ink model: no cyan, full magenta and yellow, no black = red.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    error = read_image(tmp_path / "red.jpg").float() - torch.tensor([255.0, 0, 0])[:, None, None]
    assert error.abs().max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    flat = np.kron(pixels(0, 3, 2) // 2 + 64, np.ones((8, 8, 1), dtype=np.uint8))  # JPEG keeps even blocks
    Image.fromarray(flat).save(path, exif=exif, **lossless.get(suffix, {}))
    turns = {1: flat, 2: flat[:, ::-1], 3: flat[::-1, ::-1], 4: flat[::-1]}
    turns |= {5: np.swapaxes(flat, 0, 1), 6: np.rot90(flat, -1), 7: np.rot90(flat, 2).swapaxes(0, 1), 8: np.rot90(flat)}
    expected = as_tensor(turns[orientation])
    image = read_image(path)
    assert image.shape == expected.shape
    assert (image.int() - expected.int()).abs().max() <= (4 if suffix == ".jpg" else 0)
    assert image_size(path) == tuple(expected.shape[:0:-1])


def test_damaged_exif_does_not_make_a_picture_unusable(tmp_path):
    Image.fromarray(pixels(0)).save(tmp_path / "1.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert torch.equal(read_image(tmp_path / "1.png"), as_tensor(pixels(0)))
    assert image_size(tmp_path / "1.png") == (9, 6)


def test_limits_of_pillow_are_not_called_damage(tmp_path, monkeypatch):
    text = PngInfo()
    text.add_text("comment", "x" * 1_500_000, zip=True)
    Image.fromarray(pixels(0)).save(tmp_path / "text.png", pnginfo=text)
    save_png(tmp_path / "large.png", pixels(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for name, reason in (("text.png", "contains more text"), ("large.png", "has more than 40 pixels")):
        with pytest.raises(BadImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert "damaged" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_named_as_an_image_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(BadImageError, match=r"1\.png' is not a regular file"):
        read_image(tmp_path / "1.png")
    good = save_png(tmp_path / "2.png", pixels(0))
    with pytest.warns(UserWarning, match="skipped 1 of 2"):
        assert read_images(list_images(tmp_path), on_bad_image="skip")[1] == [good]


def test_pixels_of_unknown_range_are_an_error(tmp_path):
    Image.fromarray(np.full((4, 4), 1e6, dtype=np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 10**6, dtype=np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(BadImageError, match=r"f\.tif' has floating-point pixels"):
        open_image(tmp_path / "f.tif")
    with pytest.raises(BadImageError, match=r"i\.tif' has 32-bit integer pixels"):
        open_image(tmp_path / "i.tif")


@pytest.mark.parametrize("kind", list(BAD_NAMES))
def test_a_bad_file_is_one_error_that_names_it(tmp_path, kind):
    path = bad_files(tmp_path)[kind]
    with pytest.raises(BadImageError, match=BAD_REASONS[kind]) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.path == path


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(BadImageError, match=r"none\.png' does not exist"):
        read_image(tmp_path / "none.png")


def test_the_error_keeps_its_type_out_of_a_loader_worker_and_a_pickle(tmp_path):
    path = bad_files(tmp_path)["zero bytes"]
    try:
        read_image(path)
    except BadImageError as error:
        copy = pickle.loads(pickle.dumps(error))
        from_worker = ExceptionWrapper(where="in DataLoader worker 0")  # how a DataLoader carries errors over
    assert (str(copy), copy.path) == (f"{str(path)!r} is empty (zero bytes)", path)
    with pytest.raises(BadImageError, match=r"a\.jpg' is empty"):
        pickle.loads(pickle.dumps(from_worker)).reraise()


def test_read_images_keeps_the_order_given(tmp_path):
    paths = [save_png(tmp_path / f"{i}.png", pixels(i)) for i in range(40)]
    paths = [paths[i] for i in torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    images, kept = read_images(iter(paths), description="shown on terminals only")
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.stack([as_tensor(pixels(int(path.stem))) for path in paths]))
    assert kept == paths


def test_bad_files_are_skipped_counted_and_named(tmp_path):
    bad = sorted(bad_files(tmp_path).values())
    good = [save_png(tmp_path / f"{i}.png", pixels(i)) for i in range(3)]
    paths = [bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3]]
    with pytest.warns(UserWarning, match="skipped 4 of 7 image files") as caught:
        images, kept = read_images(paths, on_bad_image="skip")
    assert all(path.name in str(caught[0].message) for path in bad)
    assert kept == good
    assert torch.equal(images, torch.stack([as_tensor(pixels(i)) for i in range(3)]))


def test_read_images_stops_at_the_first_bad_file_in_the_order_given(tmp_path):
    bad = bad_files(tmp_path)
    good = save_png(tmp_path / "good.png", pixels(0))
    with pytest.raises(BadImageError, match=r"d\.png"):
        read_images([good, bad["truncated png"], bad["zero bytes"]])


def test_a_cut_may_refuse_a_picture(tmp_path):
    paths = [save_png(tmp_path / "wide.png", pixels(0, 6, 9)), save_png(tmp_path / "high.png", pixels(0, 9, 6))]

    def only_wide(image: Image.Image) -> list[Image.Image]:
        if image.height > image.width:
            raise ValueError("is higher than wide")
        return [image]

    with pytest.raises(BadImageError, match=r"high\.png' is higher than wide"):
        list(stream_views(paths, only_wide))
    (wide,), refused = stream_views(paths, only_wide, on_bad_image="skip")
    assert wide.shape == (6, 9, 3)
    assert isinstance(refused, BadImageError)


def test_several_views_of_one_file(tmp_path):
    paths = [save_png(tmp_path / f"{i}.png", pixels(i, 4, 8)) for i in range(3)]
    halves = list(stream_views(paths, lambda image: (image.crop((0, 0, 4, 4)), image.crop((4, 0, 8, 4)))))
    for i, (left, right) in enumerate(halves):
        assert (np.concatenate([left, right], 1) == pixels(i, 4, 8)).all()


def test_different_sizes_cannot_share_a_tensor(tmp_path):
    paths = [save_png(tmp_path / "1.png", pixels(0, 6, 9)), save_png(tmp_path / "2.png", pixels(0, 5, 9))]
    with pytest.raises(ValueError, match=r"2\.png' is 9x5, .* 9x6"):
        read_images(paths)


def test_settings_that_cannot_work_are_errors(tmp_path):
    path = save_png(tmp_path / "1.png", pixels(0))
    with pytest.raises(ValueError, match="on_bad_image must be 'error' or 'skip', got 'ignore'"):
        read_images([path], on_bad_image="ignore")
    with pytest.raises(ValueError, match="no image files"):
        read_images([])
    empty = bad_files(tmp_path)["zero bytes"]
    with pytest.raises(ValueError, match=r"none of the 1 image files could be read.*a\.jpg' is empty"):
        read_images([empty], on_bad_image="skip")
