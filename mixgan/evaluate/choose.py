"""Which features a distance is computed from, by name, and a sentence that says what was taken and why."""

from pathlib import Path

from mixgan.evaluate.features import FeatureExtractor, embedded_features
from mixgan.evaluate.inception import find_inception_weights, inception_features, inception_weight_paths

#: The names of `choose_features`; a command that takes other things too (a checkpoint) asks here first.
FEATURE_NAMES = ("auto", "inception", "embedded")


def choose_features(
    name: str, *, inception_weights: Path | None = None, dims: int = 2048, fast: bool = False
) -> FeatureExtractor:
    """The features called ``name``; their ``note`` says what was taken and why.

    Args:
        name: "inception", which downloads its weights if it must; "embedded", which is always there; or "auto":
            inception if its weights are on this machine, else embedded, and never a download.
        inception_weights: where the weights of Inception are, if not in torch's hub cache.
        dims, fast: of the Inception features, see `inception_features`; the embedded ones are of one kind.

    Raises:
        ValueError: for another name, or Inception weights that are needed and missing or wrong.
    """
    if name not in FEATURE_NAMES:
        raise ValueError(f"features are called {', '.join(FEATURE_NAMES)}, got {name!r}")
    weights = inception_weights or find_inception_weights()
    if name == "inception" or (name == "auto" and weights):
        features = inception_features(weights, dims=dims, download=name == "inception", fast=fast)
        reason = "as asked for" if name == "inception" else f"because the weights are on this machine ({weights})"
    else:
        features = embedded_features()
        place = inception_weight_paths()[0]
        reason = (
            "as asked for"
            if name == "embedded"
            else f"because the Inception weights are not on this machine (expected at {place})"
        )
    features.note = f"features: {features.name}, {reason}"
    return features
