"""The inputs of the evaluation command: what is done to both sides, and what is said of traps before any work."""

import pytest
import torch
from PIL import Image
from torch import nn

from mixgan.evaluate.comparison import preprocessing_text
from mixgan.evaluate.feature_set import FeatureStatistics, MadeWith, known_set, write_statistics
from mixgan.evaluate.features import FeatureExtractor, bundled_features, module_features
from mixgan.evaluate.sources import Preprocessing, input_warnings, open_sides

DIMS = 3


@pytest.fixture
def folders(tmp_path):
    """Side-by-side pairs of 120 x 60 px in ``maps``, pictures of 24 px in ``made``, of mixed sizes in ``mixed``."""
    for name, sizes in {"maps": [(120, 60)] * 3, "made": [(24, 24)] * 3, "mixed": [(24, 24), (30, 20)]}.items():
        (tmp_path / name).mkdir()
        for number, size in enumerate(sizes):
            Image.new("RGB", size, (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def statistics(tmp_path):
    """Writes a statistics file of 20 samples that tells this about itself."""

    def write(name: str = "known.npz", **about):
        known = FeatureStatistics(DIMS)
        known.update(torch.randn(20, DIMS, generator=torch.Generator().manual_seed(0)))
        write_statistics(tmp_path / name, known, MadeWith(**about))
        return tmp_path / name

    return write


def mine() -> FeatureExtractor:
    return module_features("mine", nn.Flatten(), dims=DIMS)


def test_both_sides_get_one_size(folders):
    def sizes(real, resize="auto", **flags) -> list[int | None]:
        return [side.preprocessing.size for side in open_sides(real, folders / "made", resize=resize, **flags)]

    assert sizes(folders / "mixed") == [None, None]
    assert sizes(folders / "mixed", resize=16) == [16, 16]
    assert sizes(folders / "maps", domain="B") == [24, 24]
    assert sizes(folders / "maps", domain="B", resize=None) == [None, None]
    assert sizes(folders / "maps", domain="B", resize=30) == [30, 30]
    real, fake = open_sides(folders / "maps", folders / "made", domain="A")
    assert (real.preprocessing.domain, fake.preprocessing.domain) == ("A", None)


def test_text_of_what_was_done(folders, statistics):
    def text(real, **flags) -> str:
        return preprocessing_text(*open_sides(real, folders / "made", **{"resize": "auto", **flags}))

    own_size = "left at their own size before the feature network"
    to_24 = "resized to 24 x 24 px (bicubic, antialiased) and rounded to 8 bit before the feature network"
    assert text(folders / "mixed") == f"images {own_size}"
    assert text(folders / "maps", domain="B") == (
        f"real images cut to the right half (B, map) of side-by-side pairs, then {to_24}; generated images {to_24}"
    )
    assert text(statistics(preprocessing=own_size)) == f"images {own_size}"
    foreign = statistics("foreign.npz")
    assert text(foreign, resize=24) == (
        f"real images preprocessed in a way that {foreign} does not say; generated images {to_24}"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"real": "nowhere"}, "does not exist"),
        ({"real": "empty"}, "contains no image"),
        ({"real": "one"}, r"at least 2 images of each set, .*one contains 1"),
        ({"fake": "one"}, r"at least 2 images of each set, .*one contains 1"),
        ({"real": "maps", "fake": "mixed", "domain": "A"}, r"images of 24 x 24, 30 x 20, not of one square size: give --r"),
        ({"real": "maps", "fake": "known.npz", "domain": "A"}, r"known\.npz does not give the size .* give --resize N or"),
        ({"real": "known.npz", "domain": "A"}, r"--domain A needs the images of REAL, but .*known\.npz is not a folder"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_sentence(flags, message, folders, statistics):
    flags = {**flags}
    statistics()
    (folders / "empty").mkdir()
    (folders / "one").mkdir()
    Image.new("RGB", (24, 24)).save(folders / "one" / "1.png")
    paths = [folders / flags.pop(key, default) for key, default in (("real", "mixed"), ("fake", "made"))]
    with pytest.raises(ValueError, match=message):
        open_sides(*paths, resize="auto", **flags)


def test_known_sets_and_what_their_files_do_not_tell(statistics):
    extractor = mine()
    own = known_set(statistics(features="mine", weights_sha256=extractor.weights_sha256), extractor)
    assert (own.n, own.features, own.warnings) == (20, None, ())
    foreign = statistics("foreign.npz")
    assert known_set(foreign, extractor).warnings == (f"{foreign} does not say with which features it was made",)
    other = statistics("other.npz", features="mine", weights_sha256="0" * 64)
    assert known_set(other, extractor).warnings == (f"{other} was made with other weights of the mine network",)


def test_statistics_of_other_features_or_dimensions_are_refused(statistics):
    with pytest.raises(
        ValueError, match=r"known\.npz has statistics of inception features, but these are mine features"
    ):
        known_set(statistics(features="inception"), mine())
    with pytest.raises(ValueError, match=r"of 3 dimensions, but the features to compare with have 64"):
        known_set(statistics("foreign.npz"), bundled_features())


def warnings_of(*, real, fake, **flags) -> list[str]:
    return input_warnings(*open_sides(real, fake, **{"resize": "auto", **flags}))


def test_real_images_larger_than_generated_ones_are_warned_of(folders):
    (warning,) = warnings_of(real=folders / "maps", fake=folders / "made")
    assert warning.startswith("real images of 120 x 60 px against generated ones of 24 x 24 px")
    assert "--resize 24" in warning
    assert warnings_of(real=folders / "made", fake=folders / "maps") == []
    assert warnings_of(real=folders / "maps", fake=folders / "made", resize=24) == []
    assert warnings_of(real=folders / "maps", fake=folders / "made", domain="A") == []


def test_a_broken_header_shows_before_the_work(folders):
    (folders / "made" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png' is not an image"):
        warnings_of(real=folders / "made", fake=folders / "made")
    assert warnings_of(real=folders / "made", fake=folders / "made", on_bad_image="skip") == []


def test_sets_prepared_differently_are_warned_of(folders, statistics):
    cut = statistics("cut.npz", preprocessing=Preprocessing(24, "B").text())
    assert warnings_of(real=cut, fake=folders / "made", resize=24) == []
    (warning,) = warnings_of(real=cut, fake=folders / "made")
    assert warning == "the sets were preprocessed differently, which changes the distance, too"
    assert warnings_of(real=statistics("foreign.npz"), fake=folders / "made") == []
