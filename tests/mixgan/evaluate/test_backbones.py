"""DINOv2 and CLIP: small timm networks with random weights stand in; preprocessing against the published transforms."""

import dataclasses
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from mixgan.data import images as images_module
from mixgan.evaluate import backbones
from mixgan.evaluate.backbones import BACKBONES, backbone_features, timm_features
from mixgan.evaluate.command import main
from mixgan.evaluate.comparison import compare
from mixgan.evaluate.distances import cmmd
from mixgan.evaluate.features import choose_features, find_extractors

IMAGENET = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
CLIP = (
    torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1),
    torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1),
)


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def random_state(model: str, **options) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(model, **options)
    return {name: tensor + 0.02 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
            for name, tensor in network.state_dict().items()}  # fmt: skip


@pytest.fixture
def dinov2(tmp_path, monkeypatch):
    """The smallest DINOv2 of two blocks with random weights in the published file's form: 518 px, with a mask token."""
    create = timm.create_model

    def shallow(model, **options):
        return create(model, **({"depth": 2} if model == "vit_small_patch14_dinov2" else {}), **options)

    monkeypatch.setattr(timm, "create_model", shallow)
    state = random_state("vit_small_patch14_dinov2", img_size=518, num_classes=0)
    path = tmp_path / "hub" / "dinov2_vitl14_pretrain.pth"
    path.parent.mkdir()
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, path)
    stand_in = dataclasses.replace(BACKBONES["dinov2"], model="vit_small_patch14_dinov2", dims=384)
    monkeypatch.setitem(BACKBONES, "dinov2", stand_in)
    return path


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A two-block CLIP tower with random weights, in timm's names."""
    options = {"img_size": 64, "patch_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
    create = timm.create_model

    def shallow(model, **given):
        return create(model, **({**options, **given} if "clip" in model else given))

    monkeypatch.setattr(timm, "create_model", shallow)
    path = tmp_path / "clip.pth"
    torch.save(random_state("vit_base_patch32_clip_quickgelu_224", num_classes=24), path)
    stand_in = dataclasses.replace(BACKBONES["clip"], model="vit_base_patch32_clip_quickgelu_224", dims=24, size=64)
    monkeypatch.setitem(BACKBONES, "clip", stand_in)
    return path


class Seen(nn.Module):
    """Keeps what a network gets."""

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return images.mean(dim=(2, 3))


def seen_by(extractor, images: Tensor) -> Tensor:
    extractor.network.network = seen = Seen()
    extractor.dims = 3
    extractor(images)
    return seen.images


@pytest.mark.parametrize("size", [(64, 64), (300, 250)])
def test_dinov2_sees_what_edm2_shows_it(dinov2, size):
    """EDM2's calculate_metrics.py: float32 0..255, antialiased bicubic to 224, / 255, ImageNet's statistics."""
    images = random_images(2, 3, *size)
    x = torch.nn.functional.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True)
    expected = (x / 255 - IMAGENET[0]) / IMAGENET[1]
    assert (seen_by(backbone_features("dinov2", dinov2), images) - expected).abs().max() < 3e-6


@pytest.mark.parametrize("size", [(64, 64), (90, 130), (40, 31)])
def test_clip_sees_what_cmmd_shows_it(clip, size):
    """CMMD's io_util.py: the central square, Pillow's bicubic in 8 bit, / 255, CLIP's statistics."""
    images = random_images(2, 3, *size, seed=1)
    pictures = []
    for image in images:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize((64, 64), resample=Image.BICUBIC)
        pictures.append(torch.from_numpy(np.asarray(picture).astype(np.float32) / 255).permute(2, 0, 1))
    expected = (torch.stack(pictures) - CLIP[0]) / CLIP[1]
    assert (seen_by(backbone_features("clip", clip), images) - expected).abs().max() < 1e-6


def test_dinov2_is_its_class_token_with_the_position_embedding_of_its_own_code(dinov2):
    """Meta's interpolate_pos_encoding: scale factors (16 + 0.1) / 37, bicubic, not antialiased; then the blocks one by one."""
    extractor, images = backbone_features("dinov2", dinov2), random_images(2, 3, 50, 60)
    state = torch.load(dinov2)
    network = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    network.load_state_dict({k: v for k, v in state.items() if k not in ("pos_embed", "mask_token")}, strict=False)
    x = torch.nn.functional.interpolate(images / 255, size=(224, 224), mode="bicubic", antialias=True)
    grid = state["pos_embed"][0, 1:].view(37, 37, 384).permute(2, 0, 1)[None]
    scale = float(16 + 0.1) / 37
    grid = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    with torch.no_grad():
        patches = network.patch_embed((x - IMAGENET[0]) / IMAGENET[1]) + grid[0].permute(1, 2, 0).reshape(256, 384)
        first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(2, -1, -1)
        expected = network.norm(network.blocks(torch.cat((first, patches), dim=1)))[:, 0]
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-4)
    assert extractor(images).shape == (2, 384)


def test_clips_openai_file_gives_the_same_unit_vectors_as_timms(clip, tmp_path):
    """The published file has OpenAI's names, in half precision, with a text tower, which does not count."""
    images = random_images(3, 3, 70, 80)
    names = {
        "patch_embed.proj": "conv1", "pos_embed": "positional_embedding", "norm_pre": "ln_pre",
        "blocks.": "transformer.resblocks.",
        "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
        "norm1": "ln_1", "norm2": "ln_2", "cls_token": "class_embedding",
    }  # fmt: skip
    state = {"token_embedding.weight": torch.zeros(5, 5)}
    for name, tensor in torch.load(clip).items():
        if name == "head.bias":
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        name = "ln_post" + name.removeprefix("norm") if name.startswith("norm.") else name
        tensor = (
            tensor[0] if name == "positional_embedding" else tensor.flatten() if name == "class_embedding" else tensor
        )
        state["visual." + name.replace("head.weight", "proj")] = tensor.T if name == "head.weight" else tensor
    plain = torch.load(clip) | {"head.bias": torch.zeros(24)}
    torch.save(plain, clip)
    path = tmp_path / "openai.pt"
    torch.save(state, path)
    expected = backbone_features("clip", clip)
    found = backbone_features("clip", path)(images)
    torch.testing.assert_close(found, expected(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_only_published_weights_have_a_published_name(dinov2, monkeypatch):
    found = backbone_features("dinov2", dinov2)
    assert found.distance == "FD (dinov2)"
    (warning,) = found.warnings
    assert f"not the published ones (sha256 {found.weights_sha256[:8]}..., not d5383ea8...)" in warning
    file = dataclasses.replace(BACKBONES["dinov2"].file, sha256=found.weights_sha256)
    monkeypatch.setitem(BACKBONES, "dinov2", dataclasses.replace(BACKBONES["dinov2"], file=file))
    found = backbone_features("dinov2", dinov2.parent)  # a folder with the published name
    assert (found.distance, found.warnings) == ("FD-DINOv2", ())


def test_offline_one_sentence_says_which_file_belongs_where(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name, file in (("dinov2-b", "dinov2_vitb14_pretrain.pth"), ("clip", "ViT-L-14-336px.pt")):
        with pytest.raises(ValueError, match=r"could not be downloaded \(no network\)") as error:
            choose_features(name)
        place = tmp_path / "torch" / "hub" / "checkpoints"
        assert f"put {file} (from {BACKBONES[name].file.url}) into {place}, or name the file" in str(error.value)
    with pytest.raises(ValueError, match=r"weights are missing: no dinov2_vitl14_pretrain\.pth in "):
        choose_features("dinov2", weights=tmp_path)
    monkeypatch.setattr(backbones, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs timm: pip install 'mixgan\[features\]'"):
        choose_features("clip")


def test_any_timm_model_with_its_own_size_and_statistics(tmp_path):
    """Its pooled features, through timm's own forward; the classifier in the file does not count."""
    path = tmp_path / "weights.pth"
    state = random_state("test_vit")
    torch.save(state, path)
    extractor, images = choose_features("timm:test_vit", weights=path), random_images(2, 3, 40, 50)
    network = timm.create_model("test_vit", num_classes=0).eval()
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = torch.nn.functional.interpolate(images / 255, config["input_size"][1:], mode="bicubic", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(extractor(images), network((x - mean) / std), rtol=1e-4, atol=1e-5)
    assert (extractor.name, extractor.distance) == ("timm:test_vit", "FD (timm:test_vit)")
    with pytest.raises(ValueError, match="timm has no model 'vgq'"):
        timm_features("vgq")
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not contain weights of timm:test_vit"):
        timm_features("test_vit", path)


def test_one_file_is_not_for_two_networks(dinov2):

    with pytest.raises(ValueError, match="is one file, but dinov2 and clip have a file each"):
        find_extractors("bundled,dinov2,clip", dinov2)
    with pytest.raises(ValueError, match="each once, got bundled, bundled"):
        find_extractors("bundled, bundled", None)


@pytest.mark.usefixtures("fresh_process")
def test_several_features_from_one_decoding_side_by_side(dinov2, save, tiles, tmp_path, monkeypatch, capsys):
    decoded = []
    decode = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, *rest: decoded.append(path) or decode(path, *rest))
    real, fake = save("real", tiles.maps[:9]), save("fake", tiles.photos[:8])
    words = [str(real), str(fake), "--threads", "1", "--no-use-cache", "--json", str(tmp_path / "out.json")]
    together = ["--features", "bundled,dinov2", "--feature-weights", str(dinov2)]
    main([*words, *together])
    assert len(decoded) == 17
    main([*words, *together, "--html", str(tmp_path / "out.html")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["features"], [*found["others"]]) == ("bundled", ["dinov2"])
    assert found["others"]["dinov2"].keys() == found.keys() - {"others"}
    assert found["others"]["dinov2"]["distance"] == "FD (dinov2)"
    page = (tmp_path / "out.html").read_text()
    assert "Metrics in every feature space" in page
    for number in (found["kid"], found["others"]["dinov2"]["kid"]):
        assert f"{number:.3g}" in page
    assert "FD (dinov2)" in capsys.readouterr().out
    main([*words, "--features", "dinov2", "--feature-weights", str(dinov2)])
    alone = json.loads((tmp_path / "out.json").read_text())
    del alone["seconds"], found["others"]["dinov2"]["seconds"]
    assert alone == found["others"]["dinov2"]


@pytest.mark.usefixtures("fresh_process")
def test_cmmd_is_of_clips_embeddings_and_of_no_other_features(clip, tiles):
    found = compare(
        tiles.maps[:8], tiles.photos[:7], features="bundled,clip", feature_weights=clip, metrics=["cmmd", "fd"]
    )
    x, y = (backbone_features("clip", clip)(images) for images in (tiles.maps[:8], tiles.photos[:7]))
    assert found.others["clip"].to_dict()["cmmd"] == pytest.approx(cmmd(x, y), rel=1e-5)
    assert "cmmd" not in found.to_dict()
    assert found.others["clip"].distance == "FD (clip)"
