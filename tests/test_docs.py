"""The commands and snippets of README and docs work as they stand; what is long runs with --dry-run on tiny data."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

from classify.__main__ import main as classify
from classify.analysis import options_of
from classify.analysis.command import AnalyzeOptions, named_figures
from classify.analysis.command import main as analyze
from classify.config import settings_from as classify_settings
from mixgan.engine.config import read_options
from mixgan.engine.run_folder import save_weights
from mixgan.evaluate import features
from mixgan.evaluate.command import main as fid
from mixgan.gan.__main__ import dcgan
from mixgan.gan.__main__ import main as mixcyclegan_maps
from mixgan.gan.config import settings_from as gan_settings
from mixgan.gan.export import main as export
from mixgan.gan.networks import ResnetGenerator
from mixgan.gan.toy import main as toy_gan
from mixgan.gan.translate import main as translate
from mixgan.report.compare import main as compare
from mixgan.report.compare import options_from, planned_runs
from mixgan.report.gallery import main as gallery

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The commands in the tables of reproducing.md, some 380, are not run here: tests/classify/test_reproducing.py resolves
# all of them and runs a few.
NEEDS_OTHERS = "integrations.md"  # its snippets are run by test_integrations.py
MAINS = {
    "analyze.py": analyze,
    "classify.py": classify,
    "compare.py": compare,
    "dcgan.py": dcgan,
    "export.py": export,
    "fid.py": fid,
    "gallery.py": gallery,
    "mixcyclegan_maps.py": mixcyclegan_maps,
    "toy_gan.py": toy_gan,
    "translate.py": translate,
}
#: Sizes that a dry run takes in place of a command's own: its one step at 256 px, or of ResNet-18, takes ten seconds.
SMALL = {"--image-size": "32", "--batch-size": "2", "--train-count": "4", "--eval-count": "2"}
#: What the commands that are short enough to run leave behind.
MADE = {
    "analyze.py": {"analysis"},
    "export.py": set(),  # beside the weights
    "gallery.py": {"gallery.png"},
    "fid.py": {"out.json", "out.html"},
    "toy_gan.py": {"toy"},
    "translate.py": {"translated-maps", "translated-zebra"},
}


def code(language):
    """The fenced code of a language, page by page."""
    for page in PAGES:
        if language == "python" and page.name == NEEDS_OTHERS:
            continue
        yield from re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


#: A command line up to the recipe that it starts, or the subcommand of mixgan that is the same.
STARTS = re.compile(
    r"(?:accelerate launch|torchrun|python) (?:--\S+ (?:\w+ )?)*recipes/(\w+)\.py|mixgan ([a-z][a-z-]*)"
)
SUBCOMMANDS = {"train-gan": "mixcyclegan_maps"}


def commands():
    """Every command line that starts one recipe, without comments."""
    lines = {line.split("#")[0].strip() for block in code("sh") for line in block.splitlines()}
    return sorted(line for line in lines if (start := STARTS.match(line)) and start[2] != "push")


def picture(path, size, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    Image.fromarray(torch.randint(256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()).save(path)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Google Maps and CIFAR-10 in miniature, where real ones would lie."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        for k in range(4):
            picture(root / "maps" / split / f"{k}.jpg", (64, 128), k)
    for split, count in (("train", 64), ("test", 2)):
        for label in ("cat", "dog"):
            for k in range(count):
                picture(root / "cifar10" / split / label / f"{k}.jpg", (32, 32), k)
                picture(root / "imagefolder" / split / label / f"{k}.jpg", (70, 64), k)
    return root


@pytest.fixture(autouse=True)
def own_process_state():
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    torch.set_num_threads(threads)


def test_there_are_commands():
    assert len(commands()) >= 5


@pytest.fixture(scope="module")
def trained(data_root, tmp_path_factory):
    """Two short runs of the classify command, by the names that the commands give them."""
    words = (
        f"--dataset cifar10 --data-root {data_root} --network bundled --epochs 1 --threads 1 --batch-size 16".split()
    )
    runs = {f"runs/{method}": tmp_path_factory.mktemp("runs") / method for method in ("erm", "cutmix")}
    for run in runs.values():
        AcceleratorState._reset_state(True)
        classify(["--method", run.name, *words, "--output-dir", str(run)])
    return runs


@pytest.fixture
def stand_ins(data_root, trained, tmp_path):
    """What the words REAL, FAKE, RUN, photos, runs/... and data/ of the commands stand for."""
    places = {"data": data_root, "RUN": tmp_path.parent / "run" / "G_A.safetensors"}
    folders = ("REAL", "FAKE", "OTHER", "TRAIN", "photos", "horse", "zebra")
    places |= {name: tmp_path.parent / name for name in folders}
    for name in folders:
        for k in range(4):
            picture(places[name] / f"{k}.png", (32, 32), k)
    places["RUN"].parent.mkdir(exist_ok=True)
    save_weights(places["RUN"], ResnetGenerator(width=4, blocks=1), {})
    return places | trained


def smaller(flags):
    """The words of a command with the sizes of SMALL."""
    names = [at for at, word in enumerate(flags) if word in SMALL]
    kept = [word for at, word in enumerate(flags) if at not in names and at - 1 not in names]
    return kept + [word for pair in SMALL.items() for word in pair]


@pytest.mark.parametrize("command", commands())
def test_command(command, data_root, stand_ins, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})  # one thread: two are slow on a busy machine
    if "dinov2" in command:  # no weights here: the bundled network under the names that are asked for
        network = features.load_bundled()
        stand_in = lambda name, **_: features.module_features(name, network)  # noqa: E731
        monkeypatch.setattr(features, "choose_features", stand_in)
    start = STARTS.match(command)
    recipe = f"{start[1] or SUBCOMMANDS.get(start[2], start[2].replace('-', '_'))}.py"
    flags = [str(stand_ins.get(word, word)) for word in shlex.split(command[start.end() :])]
    flags = [re.sub("^data/", f"{data_root}/", word) for word in flags]
    if "--export" in flags:  # what the extra installs
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    listing = not {"--list-methods", "--list-presets", "--list-figures", "--list-networks"}.isdisjoint(flags)
    trains = recipe not in MADE and not listing
    if trains:
        flags = [*smaller(flags), "--dry-run", "--data-root", str(data_root)]
    if recipe == "compare.py":
        flags += ["--threads", "1"]  # of its runs, as below
    MAINS[recipe](flags)
    printed = capsys.readouterr().out
    assert ("Dry run: settings resolve" in printed) == trains
    made = {path.name for path in tmp_path.iterdir()}
    assert not listing or not made
    assert made <= MADE.get(recipe, set())
    assert all(name in made for name in MADE.get(recipe, set()) if name in command)


def plain(recipe):
    """The commands of a recipe that stand as plain text, since they take long or need runs; continued lines are joined."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", "")
        yield from re.findall(rf"^    python recipes/{recipe}\.py (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", list(plain("compare")))
def test_every_run_of_a_long_comparison_resolves(command):
    options, shared = options_from(shlex.split(command))
    resolve = {"classify": classify_settings, "mixcyclegan_maps": gan_settings}[options.recipe]
    for run in planned_runs(options, shared, Path("runs")):
        assert resolve(run.words).seed == run.seed


@pytest.mark.parametrize("command", list(plain("analyze")))
def test_flags_of_a_long_analysis_are_read(command):
    words = shlex.split(command)
    options = {name: own for name in named_figures(words) if (own := options_of(name))}
    read, of_figures = read_options(AnalyzeOptions, words, prog="mixgan analyze", options=options)
    assert len(read.runs) >= 1
    assert any(of_figures.values()) == any("." in word for word in words if word.startswith("--"))


def test_there_are_long_commands():
    assert len(list(plain("compare"))) >= 5
    assert len(list(plain("analyze"))) >= 2


@pytest.mark.parametrize("snippet", list(code("python")))
def test_python_snippet(snippet):
    names = {}
    exec(compile(snippet, "snippet", "exec"), names)
    if "mixed" in names:
        assert names["mixed"].shape == names["images"].shape
        torch.testing.assert_close(names["targets"].sum(1), torch.ones(len(names["images"])))
    elif "losses" in names:
        assert all(loss.isfinite() for loss in names["losses"].values())
    elif "metrics" in names:
        assert names["metrics"].fd >= 0
    elif "DiagonalMix" in names:
        images, lam = torch.rand(4, 3, 8, 8), torch.tensor([0.0, 0.3, 0.7, 1.0])
        mixed = names["DiagonalMix"](num_classes=2).mix(images, torch.tensor([0, 1, 0, 1]), lam=lam)
        assert mixed.lam.diff().min() > 0
        torch.testing.assert_close(mixed.lam, mixed.mask.mean((1, 2, 3)))
    elif "LogitPenalty" in names:
        method = names["LogitPenalty"](torch.nn.Linear(3, 2), num_classes=2, weight=0.5)
        output = method(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))
        expected = F.cross_entropy(output.logits, torch.tensor([0, 1, 0, 1])) + 0.5 * output.logits.square().mean()
        assert output.loss.item() == pytest.approx(expected.item())
    elif "MEAN_DIFFERENCE" in names:
        assert names["mean_difference"](torch.zeros(3, 4), torch.ones(5, 4), None, 0) == (2.0,)
    elif "from kornia" in snippet:
        assert "assert" in snippet  # docs/ops.md: each has its own
    elif "mixed_images" in names or "mixed_by_content" in names or "result" in names:
        check_beyond_classification(names)
    else:
        assert names["distance"].real.n == 96


def check_beyond_classification(names):
    """What the snippets of beyond-classification.md made."""
    if "mixed_images" in names:
        assert (
            names["mixed_images"].shape[1:]
            == (names["images"] if "images" in names else torch.zeros(1, 3, 32, 32)).shape[1:]
        )
    if "mixed_maps" in names:
        shape = names["label_maps"].shape
        assert names["mixed_maps"].shape in (shape, (shape[0], 5, *shape[1:]))
        if names["mixed_maps"].is_floating_point():
            torch.testing.assert_close(names["mixed_maps"].sum(1), torch.ones(shape))
    if "found" in names:
        assert len(names["found"].boxes) == len(names["found"].weights) == len(names["images"])
    if "union" in names:
        assert set(names["union"].unique().tolist()) <= {0.0, 1.0}
    if "result" in names:
        plan, ages = names["result"].plan, names["ages"]
        torch.testing.assert_close(names["result"].targets, plan.lam * ages + (1 - plan.lam) * ages[plan.partner])
    if "mixed_by_content" in names:
        torch.testing.assert_close(names["mixed_by_content"].targets.sum(1), torch.ones(8))
    if "mixed_labels" in names:
        assert names["mixed_labels"].shape == (8, 14)


def test_files_that_the_pages_name_are_there():
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if "/." not in path.as_posix()]
    names = {(page.name, name) for page in PAGES for name in re.findall(r"(?<![\w/*.])[\w/]+\.py\b", page.read_text())}
    missing = [(page, name) for page, name in names if not any(f"/{path}".endswith(f"/{name}") for path in files)]
    assert sorted(missing) == []


def test_every_picture_is_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    assert [path.name for path in (ROOT / "docs" / "images").iterdir() if f"images/{path.name}" not in text] == []


def anchors(page):
    """What links may name in a page: its headings as GitHub spells them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_them(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text())
    lost = [
        f"{target}#{heading}"
        for target, heading in links
        if "://" not in target and heading not in anchors(page.parent / target if target else page)
    ]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_stated_floors_are_those_of_pyproject():
    project = (ROOT / "pyproject.toml").read_text()
    page = (ROOT / "docs" / "commands.md").read_text()
    for package in ("torch", "torchvision"):
        (floor,) = re.findall(rf'"{package}>=([\d.]+)"', project)
        assert f"{package} {floor} and newer" in page
    (python,) = re.findall(r'requires-python = ">=([\d.]+)"', project)
    assert f"Python {python} and newer" in page
    assert f"Python >= {python} (with torch >= " in (ROOT / "README.md").read_text()
