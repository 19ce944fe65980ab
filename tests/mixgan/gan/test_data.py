"""Training batches, read back from images whose pixels say which image, row and column they are."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mixgan.data.domains import Domains
from mixgan.gan import data
from mixgan.gan.config import GanSettings
from mixgan.gan.data import DomainBatch, DomainLoader, fetch, test_domains, training_domains
from mixgan.ops.transforms import to_bytes, to_signed

test_domains.__test__ = False  # not a test, whatever pytest thinks of the name

SIDE, CROP = 12, 8
STREAMS = ("a", "b", "a_second", "b_second")


def telling_images(count: int, first: int = 0) -> Tensor:
    """(count,3,SIDE,SIDE) uint8; the channels are image number, row and column."""
    number = torch.arange(first, first + count).view(-1, 1, 1).expand(-1, SIDE, SIDE)
    row = torch.arange(SIDE).view(1, -1, 1).expand_as(number)
    return torch.stack((number, row, row.transpose(1, 2)), 1).to(torch.uint8)


def loader(count_a: int = 7, count_b: int = 3, *, batch_size: int = 2, seed: int = 0, **process: int) -> DomainLoader:
    domains = Domains(telling_images(count_a), telling_images(count_b, 100), paired=False)
    return DomainLoader(
        domains, size=CROP, batch_size=batch_size, seed=seed, device=torch.device("cpu"), **process
    )  # fmt: skip


def numbers(batches: list[DomainBatch], stream: str) -> list[int]:
    return [int(n) for batch in batches for n in to_bytes(getattr(batch, stream))[:, 0, 0, 0]]


def assert_same(batches: list[DomainBatch], expected: list[DomainBatch]) -> None:
    assert len(batches) == len(expected)
    for batch, wanted in zip(batches, expected, strict=True):
        assert all(torch.equal(getattr(batch, name), getattr(wanted, name)) for name in STREAMS)


def test_bytes_survive_the_way_to_the_networks_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    signed = to_signed(values)
    assert (signed.min(), signed.max()) == (-1, 1)
    assert torch.equal(to_bytes(signed), values)


def test_to_bytes_rounds_and_clamps():
    outputs = (torch.tensor([-7.0, -0.4, 0.4, 0.6, 254.6, 300.0]) / 127.5) - 1
    assert to_bytes(outputs).tolist() == [0, 0, 0, 1, 255, 255]
    assert to_bytes(torch.tensor([-1.0, 1.0], dtype=torch.bfloat16)).tolist() == [0, 255]


def test_every_crop_is_a_window_of_one_image_and_some_are_mirrored():
    batches = [batch for epoch in range(40) for batch in loader(batch_size=7).epoch(epoch)]
    cuts = {stream: [] for stream in STREAMS}
    for stream in STREAMS:
        for number, rows, columns in to_bytes(torch.cat([getattr(batch, stream) for batch in batches])).int():
            mirrored = bool(columns[0, 0] > columns[0, -1])
            unmirrored = columns.flip(-1) if mirrored else columns
            top, left = int(rows[0, 0]), int(unmirrored[0, 0])
            assert (number == number[0, 0]).all()
            assert torch.equal(rows, torch.arange(top, top + CROP).view(-1, 1).expand(-1, CROP).int())
            assert torch.equal(unmirrored, torch.arange(left, left + CROP).expand(CROP, -1).int())
            cuts[stream].append((top, left, mirrored))
    corners = range(SIDE - CROP + 1)
    for stream in STREAMS:
        assert {cut[:2] for cut in cuts[stream]} == {(top, left) for top in corners for left in corners}
        mirrored = sum(cut[2] for cut in cuts[stream])
        assert mirrored == pytest.approx(140, abs=4 * 70**0.5)  # half of 40 * 7, four standard deviations
    assert len(set(map(tuple, cuts.values()))) == 4  # every stream is cut in its own way


def test_an_epoch_shows_the_larger_domain_once_and_the_smaller_again_and_again():
    batches = list(loader(16, 6, batch_size=1).epoch(0))
    for stream in ("a", "a_second"):
        assert sorted(numbers(batches, stream)) == list(range(16))
    for stream in ("b", "b_second"):
        shown = numbers(batches, stream)
        assert sorted(shown[:6]) == sorted(shown[6:12]) == list(range(100, 106))
        assert shown[:6] != shown[6:12]
    assert loader(6, 16).steps_per_epoch == loader(16, 6).steps_per_epoch == 8


def test_orders_differ_between_streams_epochs_and_seeds():
    def order(stream: str, *, epoch: int = 0, seed: int = 0) -> tuple[int, ...]:
        return tuple(n % 100 for n in numbers(list(loader(20, 20, seed=seed).epoch(epoch)), stream))

    orders = [order(stream) for stream in STREAMS]
    assert len({*orders, order("a", epoch=1), order("a", seed=1)}) == 6


def test_an_epoch_can_be_entered_at_any_step():
    whole = list(loader().epoch(3))
    for first_step in range(4):
        assert_same(list(loader().epoch(3, first_step=first_step)), whole[first_step:])


def test_ranks_share_out_the_batches_of_one_process():
    ranks = [list(loader(13, 5, batch_size=2, rank=rank, world=3).epoch(1)) for rank in range(3)]
    together = [
        DomainBatch(*(torch.cat([getattr(b, s) for b in step]) for s in STREAMS)) for step in zip(*ranks, strict=True)
    ]
    assert_same(together, list(loader(13, 5, batch_size=6).epoch(1)))


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="7 training images make no batch of 4 on each of 2 processes"):
        loader(batch_size=4, world=2)


class TestDomains:
    """Where the images come from."""

    def test_training_tiles_are_larger_than_their_crops_and_none_is_a_test_tile(self):
        settings = GanSettings(dataset="tiles", image_size=32, train_count=3, eval_count=2)
        train, test = training_domains(settings), test_domains(settings)
        assert train.a.shape == train.b.shape == (3, 3, 36, 36)  # 286/256 of 32
        assert test.a.shape == test.b.shape == (2, 3, 32, 32)
        assert train.paired
        assert test.paired
        assert not any(
            torch.equal(*pair) for pair in zip(training_domains(settings).a[:2, :, :32, :32], test.a, strict=True)
        )

    def test_tiles_serve_crops_up_to_their_largest_size(self):
        assert training_domains(GanSettings(dataset="tiles", image_size=256, train_count=1)).a.shape[-1] == 256
        with pytest.raises(ValueError, match="32 to 256 pixels a side, got size=260"):
            training_domains(GanSettings(dataset="tiles", image_size=260, train_count=1))

    def test_maps_are_read_at_the_sizes_of_the_paper(self, tmp_path: Path):
        for split in ("train", "val"):
            (tmp_path / "maps" / split).mkdir(parents=True)
            Image.new("RGB", (600, 300), "green").save(tmp_path / "maps" / split / "1.png")
        settings = GanSettings(dataset="maps", data_root=tmp_path, image_size=256)
        assert training_domains(settings).b.shape == (1, 3, 286, 286)
        assert test_domains(settings).b.shape == (1, 3, 256, 256)

    def test_a_dry_run_evaluates_on_a_few_images_only(self):
        settings = GanSettings(dataset="tiles", image_size=32, eval_count=100, dry_run=True)
        assert len(test_domains(settings).a) == 4

    @pytest.mark.parametrize(
        ("changes", "there", "fetched"),
        [
            ({"download": True, "dataset": "maps"}, False, True),
            ({"download": True, "dataset": "maps"}, True, False),
            ({"download": True, "dataset": "tiles"}, False, False),
            ({"dataset": "maps"}, False, False),
        ],
    )
    def test_fetches_only_what_is_asked_for_and_missing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict, there: bool, fetched: bool
    ):
        if there:
            (tmp_path / "maps" / "train").mkdir(parents=True)
            Image.new("RGB", (16, 8)).save(tmp_path / "maps" / "train" / "1.png")
        calls: list[Path] = []
        monkeypatch.setattr(data, "download_maps", calls.append)
        fetch(GanSettings(data_root=tmp_path, **changes))
        assert calls == [tmp_path] * fetched
