"""recipes/translate.py from its words to its files, with generators that have learned nothing but tell themselves apart."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.data.images import Pixels, to_array
from mixgan.engine.command import run_command
from mixgan.engine.run_folder import RunFolder, save_weights
from mixgan.gan import translate as command
from mixgan.gan.networks import ResnetGenerator
from mixgan.gan.translate import main

GENERATORS = {"G_A": "AtoB", "G_B": "BtoA", "G_A_ema": "AtoB"}
SIZES = {"1.png": (32, 40), "2.PNG": (47, 33), "10.png": (32, 40), "tiny.png": (3, 1), "sub/wide.png": (150, 20)}


@pytest.fixture(scope="module")
def networks() -> dict[str, ResnetGenerator]:
    torch.manual_seed(0)
    return {name: ResnetGenerator(width=8, blocks=1).eval() for name in GENERATORS}


@pytest.fixture
def run(tmp_path: Path, networks: dict[str, ResnetGenerator]) -> Path:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    for name, direction in GENERATORS.items():
        about = {"role": "generator", "direction": direction}
        save_weights(folder.weights / f"{name}.safetensors", networks[name], about)
    return folder.path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    random = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, format="PNG")
    return folder


def translate(*words: object) -> None:
    main([*map(str, words), "--threads", "1"])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@torch.no_grad()
def by_hand(network: ResnetGenerator, image: np.ndarray) -> np.ndarray:
    """What a generator makes of (H,W,3) uint8 whose sides are multiples of 4."""
    signed = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    return ((network(signed)[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def close(a: np.ndarray, b: np.ndarray, levels: int = 1) -> bool:
    return np.abs(a.astype(int) - b.astype(int)).max() <= levels


def test_a_folder_of_any_sizes(run: Path, photos: Path, tmp_path: Path, networks, capsys):
    out = tmp_path / "out"
    translate(run, photos, out, "--tile", 64, "--batch-size", 2)
    expected = {Path(name).with_suffix(".png"): size for name, size in SIZES.items()}
    written = {path.relative_to(out): Image.open(path) for path in out.rglob("*") if path.is_file()}
    assert {path: image.size for path, image in written.items()} == expected
    assert {(image.format, image.mode) for image in written.values()} == {("PNG", "RGB")}
    for name in ("1.png", "10.png"):  # moving averages are preferred
        assert close(pixels(out / name), by_hand(networks["G_A_ema"], pixels(photos / name)))
    first, last = capsys.readouterr().out.splitlines()
    assert "G_A_ema.safetensors: AtoB, ResNet-1, width 8; on " in first
    assert last.startswith(f"5 images translated: {out} (")
    assert last.endswith(" images/s)")


def test_the_flags_choose_the_generator(run: Path, photos: Path, tmp_path: Path, networks):
    given = pixels(photos / "1.png")
    back, plain = tmp_path / "back", tmp_path / "plain"
    translate(run, photos, back, "--direction", "BtoA")
    translate(run, photos, plain, "--no-ema", "--mixed-precision", "bf16")
    assert close(pixels(back / "1.png"), by_hand(networks["G_B"], given))
    exact = by_hand(networks["G_A"], given)
    assert not np.array_equal(pixels(plain / "1.png"), exact)
    assert close(pixels(plain / "1.png"), exact, levels=8)  # bf16 has 8 bits too, and rounds in every layer


@pytest.mark.parametrize(("generator", "half"), [("G_A", slice(0, 32)), ("G_B", slice(32, 64))])
def test_pairs_give_the_half_that_the_generator_reads(run: Path, tmp_path: Path, networks, generator: str, half: slice):
    pair = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    (tmp_path / "pairs").mkdir()
    Image.fromarray(pair).save(tmp_path / "pairs" / "1.png")
    out = tmp_path / "out"
    translate(
        run / "weights" / f"{generator}.safetensors", tmp_path / "pairs", out, "--pairs"
    )  # direction from the file
    assert close(pixels(out / "1.png"), by_hand(networks[generator], pair[:, half]))


def test_image_size_is_that_of_the_shorter_side(run: Path, photos: Path, tmp_path: Path, networks):
    out = tmp_path / "out"
    translate(run, photos, out, "--image-size", 16)
    assert Image.open(out / "sub" / "wide.png").size == (120, 16)
    assert Image.open(out / "2.png").size == (22, 16)
    with Image.open(photos / "1.png") as image:
        smaller = np.asarray(image.resize((16, 20), Image.Resampling.BICUBIC))
    assert close(pixels(out / "1.png"), by_hand(networks["G_A_ema"], smaller))


def test_only_a_batch_of_one_size_or_one_tiled_image_is_held_at_once(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def record(generator, images, **options):
        seen.append(tuple(images.shape))
        return images

    monkeypatch.setattr(command, "translate_images", record)
    for name in ("3.png", "sub/wider.png"):
        width, height = SIZES["sub/wide.png" if "wide" in name else "1.png"]
        Image.new("RGB", (width, height)).save(photos / name)
    translate(run, photos, tmp_path / "out", "--tile", 64, "--batch-size", 2)
    assert sorted(seen) == sorted(
        [(2, 3, 40, 32), (1, 3, 40, 32), (1, 3, 33, 47), (1, 3, 1, 3), (1, 3, 20, 150), (1, 3, 20, 150)]
    )


def test_images_of_8_and_16_bits_of_one_size_are_translated_as_if_alone(tmp_path: Path):
    """The oracle translates each file in a folder of its own; without a norm the scale of the input is not lost."""
    torch.manual_seed(0)
    weights = tmp_path / "G_A.safetensors"
    network = ResnetGenerator(width=8, blocks=1, norm="none")
    save_weights(weights, network, {"role": "generator", "direction": "AtoB"})
    random, together = np.random.default_rng(0), tmp_path / "together"
    for number in range(4):
        deep = number % 2 == 1
        values = random.integers(0, 65536 if deep else 256, (16, 16), dtype=np.uint16 if deep else np.uint8)
        for folder in (together, tmp_path / f"alone-{number}"):
            folder.mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / f"{number}.png")
    translate(weights, together, tmp_path / "out")
    for number in range(4):
        translate(weights, tmp_path / f"alone-{number}", tmp_path / "out-alone")
        name = f"{number}.png"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "out-alone" / name).read_bytes()
        (tmp_path / "out-alone" / name).unlink()


@pytest.mark.parametrize(
    ("declared", "as_arrays", "as_pictures"),
    [
        ({"range_in": [0, 1000], "range_out": [100, 4095]}, (100, 4095), (100, 4095)),
        (
            {"range_in": [0, 1000], "range_out": [-1000, 3000]},
            (-1000, 3000),
            (0, 65535),
        ),  # pictures have no such values
        ({"range_in": [0, 1000], "range_out": [0, 1]}, (0, 1), (0, 65535)),  # whole numbers would be black and white
        ({"range_in": [0, 1000]}, (0, 255), (0, 65535)),
        ({"range_in": [0, 1000], "bits_out": 16}, (0, 65535), (0, 65535)),
    ],
)
def test_translations_have_the_values_that_training_reads_in_the_other_domain(
    tmp_path: Path, declared, as_arrays, as_pictures
):
    """What a training on the other domain reads from a translation, by ``Pixels``, is what the generator made."""
    torch.manual_seed(0)
    network, weights, folder = ResnetGenerator(width=8, blocks=1).eval(), tmp_path / "G_A.safetensors", tmp_path / "in"
    save_weights(weights, network, {"role": "generator", "direction": "AtoB", **declared})
    values = np.random.default_rng(0).integers(0, 1000, (16, 16), dtype=np.uint16)
    folder.mkdir()
    Image.fromarray(values).save(folder / "picture.png")
    np.save(folder / "array.npy", values)
    translate(weights, folder, tmp_path / "out")
    signed = torch.from_numpy(values / 500 - 1).float().expand(1, 3, 16, 16)
    with torch.no_grad():
        expected = network(signed)[0].permute(1, 2, 0).numpy()
    for name, limits in (("array.npy", as_arrays), ("picture.png", as_pictures)):
        found = to_array(Pixels(deep=True, value_range=limits).read(tmp_path / "out" / name))
        np.testing.assert_allclose(found, expected, atol=1 / 3000)


def test_nothing_is_overwritten_unasked(run: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_text("mine")
    (out / "notes.txt").write_text("mine too")
    with pytest.raises(ValueError, match=r"out/1.png exists already; add --overwrite"):
        translate(run, photos, out)
    assert {path.name for path in out.iterdir()} == {"1.png", "notes.txt"}
    translate(run, photos, out, "--overwrite")
    assert Image.open(out / "1.png").size == SIZES["1.png"]
    with pytest.raises(ValueError, match="and 4 more exist already"):
        translate(run, photos, out)


def test_an_output_folder_inside_the_input_folder_is_no_input(run: Path, photos: Path):
    for words in ((), ("--overwrite",)):
        translate(run, photos, photos / "maps", *words)
    assert len([path for path in (photos / "maps").rglob("*") if path.is_file()]) == len(SIZES)


def test_bad_images_stop_or_are_named_and_left_out(run: Path, photos: Path, tmp_path: Path, capsys):
    whole = (photos / "1.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty.jpg' is empty.*; --on-bad-image skip leaves such files out"):
        translate(run, photos, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()  # files that are no images are found before the work begins
    translate(run, photos, tmp_path / "out", "--on-bad-image", "skip")
    printed = capsys.readouterr()
    assert "skipped: " in printed.err
    assert "cut.png' is truncated" in printed.err
    assert f"5 images translated (2 skipped): {tmp_path / 'out'} (" in printed.out
    assert not (tmp_path / "out" / "cut.png").exists()
    for path in photos.rglob("*.[pP][nN][gG]"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 7 image files could be used; the first one: "):
        translate(run, photos, tmp_path / "none", "--on-bad-image", "skip")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.name)], ids=["pipe", "loop of links"])
def test_what_is_no_file_is_a_bad_image(run: Path, photos: Path, tmp_path: Path, make, capsys):
    make(photos / "odd.png")  # opening the pipe would wait for ever
    with pytest.raises(ValueError, match=r"odd.png' (is not a regular file|does not exist)"):
        translate(run, photos, tmp_path / "stopped")
    translate(run, photos, tmp_path / "out", "--on-bad-image", "skip")
    assert "(1 skipped)" in capsys.readouterr().out


def test_wrong_words_are_one_sentence(run: Path, photos: Path, tmp_path: Path):
    out, bare = tmp_path / "out", tmp_path / "bare"
    bare.mkdir()
    (tmp_path / "file").touch()
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (8, 8)).save(twice / name)
    cases = [
        ((tmp_path / "nowhere", photos, out), "no run folder and no weights at .*nowhere"),
        ((run, tmp_path / "nowhere", out), "nowhere' does not exist"),
        ((run, bare, out), "bare' contains no image"),
        ((run, photos, photos), "is the input folder; name another one"),
        ((run, photos, tmp_path / "file"), "output folder .*file is a file"),
        ((run, twice, out), r"a.jpg and .*a.png would both be translated to .*a.png"),
        ((run, photos, out, "--pairs"), r"tiny.png' is 3x1, but two images side by side"),
        ((run, photos, out, "--tile", 50), "tile must be a multiple of 4"),
        ((run, photos, out, "--image-size", 0), "--image-size must be at least 1, got 0"),
        ((run, photos, out, "--batch-size", 0), "--batch-size must be at least 1, got 0"),
    ]
    for words, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            translate(*words)


def test_a_user_error_ends_the_command_with_code_2(photos: Path, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(main, [str(tmp_path / "nowhere"), str(photos), str(tmp_path / "out")])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: no run folder and no weights at {tmp_path / 'nowhere'}\n"


def test_a_generator_of_nan_is_refused(run: Path, photos: Path, tmp_path: Path, networks):
    network = copy.deepcopy(networks["G_A"])
    torch.nn.init.constant_(network.layers[0].weight, float("nan"))
    save_weights(run / "weights" / "G_A_ema.safetensors", network, {"role": "generator", "direction": "AtoB"})
    with pytest.raises(ValueError, match="contains NaN or infinite weights"):
        translate(run, photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="images contain NaN or infinite values"):  # weights apart, at the last moment
        command.translate_images(network, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_old_names_of_weights_still_work(run: Path, photos: Path, tmp_path: Path, networks, capsys):
    translate(run, photos, tmp_path / "out", "--weights", "plain")
    assert close(pixels(tmp_path / "out" / "1.png"), by_hand(networks["G_A"], pixels(photos / "1.png")))
    assert "--weights plain is now called --no-ema." in capsys.readouterr().out
