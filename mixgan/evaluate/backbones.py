"""Features of vision transformers: DINOv2 and CLIP by the protocols of published distances, and any network of timm.

The networks are timm's (extra ``features``); weights come from a file, a cache on this machine, or a download.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mixgan.engine.run_folder import file_sha256
from mixgan.evaluate.features import FeatureExtractor, WeightFile
from mixgan.ops.transforms import Normalization, resize, to_float, to_levels

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_META = "https://dl.fbaipublicfiles.com/dinov2"


@dataclass(frozen=True)
class Backbone:
    """A published feature network: its name in timm, the length of its feature vectors, the side of the images that it sees
    in px, mean and deviation of their channels in 0..1, its weights, and the published name of its distance if there is one.
    """

    model: str
    dims: int
    size: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    file: WeightFile
    distance: str = ""


BACKBONES = {
    "dinov2": Backbone(
        "vit_large_patch14_dinov2", 1024, 224, _IMAGENET,
        WeightFile(
            "DINOv2 ViT-L/14", ("dinov2_vitl14_pretrain.pth",), f"{_META}/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        ),
        distance="FD-DINOv2",
    ),
    "dinov2-b": Backbone(
        "vit_base_patch14_dinov2", 768, 224, _IMAGENET,
        WeightFile(
            "DINOv2 ViT-B/14", ("dinov2_vitb14_pretrain.pth",), f"{_META}/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        ),
    ),
    "clip": Backbone(
        "vit_large_patch14_clip_quickgelu_336", 768, 336, _CLIP,
        WeightFile(
            "CLIP ViT-L/14-336", ("ViT-L-14-336px.pt",),
            "https://openaipublic.azureedge.net/clip/models/"
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        ),
    ),
}  # fmt: skip


def backbone_features(name: str, weights: Path | None = None, *, download: bool = False) -> FeatureExtractor:
    """The features of ``BACKBONES[name]``, as the published distances have them.

    - ``dinov2``, ``dinov2-b``: the class token; images are resized to 224 px by antialiased bicubic in float32, as EDM2 does
      (dgm-eval rounds to 8 bit), and the position embedding to 16 x 16 as DINOv2's own code does.
    - ``clip``: the normalised image embedding (768); the central square is resized by Pillow's bicubic in 8 bit, as CMMD does.

    ``weights`` is the published file, a file of a state of the same network, or a folder with the published file; ``download``
    fetches it into torch's hub cache if it is missing. With other weights ``distance`` is not the published name, and
    ``warnings`` say so. ValueError where timm or the weights are missing, or they are of another network.
    """
    timm = _timm(name)
    backbone = BACKBONES[name]
    path = backbone.file.fetch(weights, download=download)
    is_clip = name == "clip"
    with torch.random.fork_rng(devices=[]):  # initial weights, soon replaced
        network = timm.create_model(
            backbone.model, img_size=backbone.size, num_classes=backbone.dims if is_clip else 0, pretrained=False
        )
    try:
        state = _read(path)
        if is_clip:
            state = timm.models.vision_transformer.checkpoint_filter_fn(state, network)
        else:
            state.pop("mask_token", None)
            state["pos_embed"] = _resampled(state["pos_embed"], backbone.size // network.patch_embed.patch_size[0])
        network.load_state_dict(state)
    except Exception as error:  # torch.load raises almost anything on files that are not its own
        raise ValueError(f"{path} does not contain weights of {backbone.file.network} ({backbone.model})") from error
    prepare = _square_8bit if is_clip else _resized
    digest = file_sha256(path)
    warnings = backbone.file.warnings(path, digest, backbone.distance or "values")
    return FeatureExtractor(
        name,
        Embedding(network, lambda x: prepare(x, backbone.size), backbone.statistics, unit=is_clip),
        dims=backbone.dims,
        weights_sha256=digest,
        distance="" if warnings else backbone.distance,
        warnings=warnings,
    )


def timm_features(model: str, weights: Path | None = None) -> FeatureExtractor:
    """``timm:MODEL``: the pooled features before the classifier of a timm model, on images resized to its size, not cropped.

    ``model`` is named as ``timm.list_models()`` does, with a tag for one of several weights; ``weights`` is a file of its state,
    or a folder with MODEL.safetensors or MODEL.pth, by default timm's own from the Hugging Face cache or downloaded into it.
    ValueError where timm is not installed or knows no such model, or weights are missing or of another model.
    """
    timm = _timm(f"timm:{model}")
    if not timm.is_model(model.split(".")[0]):
        raise ValueError(f"timm has no model {model!r}; timm.list_models() names those it has")
    if weights is not None and weights.is_dir():  # other networks' files are in it; perhaps one of this model
        files = [weights / f"{model}{end}" for end in (".safetensors", ".pth")]
        weights = next((path for path in files if path.is_file()), None)
    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(model, pretrained=weights is None, num_classes=0)
    except (OSError, HTTPException, RuntimeError) as error:  # offline, or timm has no weights of it
        place = timm.get_pretrained_cfg(model).hf_hub_id
        raise ValueError(
            f"the weights of timm:{model} are not on this machine and could not be downloaded: put those of {place} into the "
            "Hugging Face cache, or name a file of its state with --feature-weights"
        ) from error
    if weights is not None:
        if not weights.is_file():
            raise ValueError(f"the weights of timm:{model} are missing: no file {weights}")
        state, own = _read(weights), network.state_dict()
        try:
            network.load_state_dict({key: value for key, value in state.items() if key in own})
        except RuntimeError as error:
            raise ValueError(f"{weights} does not contain weights of timm:{model}") from error
    config = timm.data.resolve_model_data_config(network)
    size = config["input_size"][1:]
    mode = config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic"
    embedding = Embedding(network, lambda x: _resized(x, size, mode), (config["mean"], config["std"]))
    digest = None if weights is None else file_sha256(weights)
    return FeatureExtractor(f"timm:{model}", embedding, dims=network.num_features, weights_sha256=digest)


class Embedding(nn.Module):
    """Images (B,3,H,W) in 0..1 of any size -> features (B,dims): brought to the network's size by ``prepare``, normalised by
    mean and deviation, and seen by a network; ``unit`` scales every feature vector to length 1.
    """

    def __init__(
        self,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        *,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.prepare, self.unit = network, prepare, unit
        self.normalization = Normalization(*statistics)

    def embedding(self, images: Tensor) -> Tensor:
        """(B,dims)."""
        features = self.network(self.normalization(self.prepare(images)))
        return F.normalize(features, dim=1) if self.unit else features


def _timm(features: str) -> Any:
    if find_spec("timm") is None:
        raise ValueError(f"--features {features} needs timm: pip install 'mixgan[features]'")
    import timm

    return timm


def _read(path: Path) -> dict[str, Tensor]:
    """A state: of a safetensors file, a checkpoint of torch, or a TorchScript archive, as OpenAI publishes CLIP."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        state = torch.jit.load(path, map_location="cpu").state_dict()
    if not isinstance(state, Mapping):
        raise TypeError(f"a {type(state).__name__} is not a state dict")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _resampled(embedding: Tensor, side: int) -> Tensor:
    """DINOv2's position embedding (1,1+S*S,D) for side x side patches: bicubic by a scale factor, with its offset of 0.1.

    timm's own resampling is antialiased, which gives other features.
    """
    old = round((embedding.shape[1] - 1) ** 0.5)
    if old == side:
        return embedding
    patches = embedding[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, scale_factor=(side + 0.1) / old, mode="bicubic")
    return torch.cat((embedding[:, :1], patches.permute(0, 2, 3, 1).reshape(1, side * side, -1)), dim=1)


def _resized(images: Tensor, size: int | tuple[int, int], mode: str = "bicubic") -> Tensor:
    return resize(images, size, mode=mode, antialias=True)


def _square_8bit(images: Tensor, size: int) -> Tensor:
    """The central squares, resized by Pillow's antialiased bicubic and rounded to 8 bit: (B,3,size,size) in 0..1."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = images[..., top : top + side, left : left + side]
    pictures = to_levels(cut).permute(0, 2, 3, 1).cpu().numpy()

    def scaled(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor() as pool:  # Pillow resizes without the GIL
        squares = np.stack([*pool.map(scaled, pictures)])
    return to_float(torch.from_numpy(squares).permute(0, 3, 1, 2).to(images.device))
