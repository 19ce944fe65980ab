"""A page in the browser that translates pictures with a trained generator.

pip install 'mixgan[demo]'
python examples/translate_app.py RUN_OR_WEIGHTS [--direction BtoA]
"""

import argparse
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from mixgan.gan.translate import translate_images
from mixgan.gan.weights import find_generator


def page(source: str, direction: Literal["AtoB", "BtoA"] | None = None) -> Any:
    """The page, a ``gradio.Interface``: a picture goes in, its translation comes out.

    Args:
        source: what ``mixgan.load`` takes: a run folder, a file of weights, ``hf://user/repo``, ...
        direction: of a run or checkpoint: AtoB where it is None.
    """
    import gradio

    found = find_generator(source, direction=direction)
    generator = found.build()
    mode = "L" if found.shape["in_channels"] == 1 else "RGB"
    names = found.metadata.get("names", ["A", "B"])
    a, b = names if found.direction != "BtoA" else names[::-1]

    def translate(picture: Image.Image) -> Image.Image:
        pixels = torch.from_numpy(np.array(picture.convert(mode))).reshape(picture.height, picture.width, -1)
        translated = translate_images(generator, pixels.permute(2, 0, 1)[None])[0]
        return Image.fromarray(translated.permute(1, 2, 0).numpy().squeeze())

    ends = gradio.Image(type="pil", label=a), gradio.Image(label=b, format="png")  # by default lossy
    return gradio.Interface(translate, *ends, title=f"{a} to {b}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--direction", choices=("AtoB", "BtoA"))
    page(**vars(parser.parse_args())).launch()
