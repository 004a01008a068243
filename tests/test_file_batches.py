"""Batches of image files: the images that reading one by one gives, whoever reads them, and what nobody can read."""

import pytest
import torch
from photos import odd_files, photo
from PIL import Image

from aft_lens.data import UNCOUNTED, EpochOrder, FileBatches, ImageError, batches_of, load_data, read_image
from aft_lens.data.files.jpeg import Head, read_head


def classes_of(folder, count=12):
    """A folder of photos in two classes."""
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            photo(18 + i, 24, 100 * label + i).save(folder / name / f"{i:02d}.jpg")
    return f"folder:{folder}"


def train_of(name, augment="deit", **options):
    train = load_data(name, img_size=8, augment=augment).train
    order = EpochOrder(train, lambda: 3, processes=1, rank=0)
    return FileBatches(train, 5, order=order, **options)


@pytest.mark.parametrize("augment", ["none", "flip-crop", "resized-crop", "deit"])
def test_workers_change_nothing(tmp_path, augment):
    name = classes_of(tmp_path)
    here, there = (list(train_of(name, augment, workers=workers)) for workers in (0, 2))
    assert len(here) == len(train_of(name)) == 3
    for (images, labels), (others, same) in zip(here, there, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)


def test_images_in_order_are_those_of_the_split(tmp_path):
    data = load_data(classes_of(tmp_path), img_size=8)
    images, labels = (torch.cat(parts) for parts in zip(*batches_of(data.train, 5), strict=True))
    one = [data.train[i] for i in range(len(data.train))]
    assert torch.equal(images, torch.stack([image for image, _ in one]))
    assert labels.tolist() == [label for _, label in one]
    some = data.train.some([4, 2])
    assert torch.equal(next(iter(batches_of(some, 5)))[0], images[[4, 2]])


def test_shares_are_one_process_s_batches(tmp_path):
    data = load_data(classes_of(tmp_path), img_size=8)
    parts = [list(FileBatches(data.train, 2, share=(rank, 3))) for rank in range(3)]
    labels = [torch.cat([label for _, label in part]) for part in parts]
    assert [len(each) for each in labels] == [6, 6, 6]
    dealt = torch.stack(labels, 1).flatten()
    assert dealt[: len(data.train)].tolist() == data.train.labels.tolist()
    assert (dealt[len(data.train) :] == UNCOUNTED).all()
    orders = [EpochOrder(data.train, lambda: 3, processes=2, rank=rank) for rank in range(2)]
    shares = [list(FileBatches(data.train, 3, order=order)) for order in orders]
    whole = FileBatches(data.train, 6, order=EpochOrder(data.train, lambda: 3, processes=1, rank=0))
    for (images, _), *own in zip(whole, *shares, strict=True):
        assert torch.equal(images, torch.stack([image for image, _ in own], 1).flatten(0, 1))


def test_a_pass_goes_on_where_it_was_broken_off(tmp_path):
    name = classes_of(tmp_path)
    whole, broken = list(train_of(name)), train_of(name)
    next(iter(broken))
    state = broken.state_dict()
    assert state == {"images": 5}
    other = train_of(name, workers=1)
    other.load_state_dict(state)
    rest = list(other)
    assert len(rest) == len(other) - 1
    assert all(torch.equal(one, same) for (one, _), (same, _) in zip(whole[1:], rest, strict=True))
    assert len(list(other)) == len(other), "the pass after it is whole"


def test_files_that_cannot_be_read_are_skipped_or_end_it(tmp_path):
    name = classes_of(tmp_path)
    data = load_data(name, img_size=8)
    path = data.train.path(2)
    with open(path, "wb") as file:
        file.write(b"no image")
    loader = FileBatches(data.train, 4, bad_files="skip")
    images, labels = next(iter(loader))
    assert list(loader.bad) == [path]
    assert "cannot be read" in loader.bad[path]
    assert labels.tolist() == [0, 0, UNCOUNTED, 0]
    assert torch.equal(images[2], images[3]), "the next image takes its place"
    order = EpochOrder(data.train, lambda: 3, processes=1, rank=0)
    drawn = FileBatches(data.train, 8, order=order, bad_files="skip", workers=1)
    assert all(bool((labels >= 0).all()) for _, labels in drawn)
    assert list(drawn.bad) == [path]
    with pytest.raises(ImageError, match="cannot be read"):
        list(FileBatches(data.train, 4))
    with pytest.raises(ValueError, match="bad_files must be one of"):
        FileBatches(data.train, 4, bad_files="ignore")


def test_a_batch_without_one_readable_image_is_an_error(tmp_path):
    data = load_data(classes_of(tmp_path), img_size=8)
    for index in range(4):
        with open(data.train.path(index), "wb") as file:
            file.write(b"")
    with pytest.raises(ImageError, match="none of 4 images of a batch can be read"):
        list(FileBatches(data.train, 4, bad_files="skip"))


def test_odd_files_are_read_right_or_named(tmp_path):
    names = odd_files(tmp_path)
    data = load_data(f"images:{tmp_path}", img_size=8, labelled=False)
    loader = FileBatches(data.test, len(names), bad_files="skip")
    ((images, _),) = list(loader)
    assert sorted(loader.bad) == [str(tmp_path / name) for name in names if name.startswith("bad")]
    upright = images[names.index("baseline.jpg")]
    for name in ("progressive.jpg", "web.webp", "clear.png", "rgb.jpg", "padded.jpg"):
        assert (images[names.index(name)] - upright).abs().mean() < 0.05, name
    for place, name in enumerate(names):
        if not name.startswith("bad"):
            assert torch.equal(images[place], data.test.transform(read_image(tmp_path / name))), name


def test_heads_tell_what_a_gpu_reads_as_the_cpu_does(tmp_path):
    names = odd_files(tmp_path)
    heads = {name: read_head((tmp_path / name).read_bytes()) for name in names}
    assert heads["baseline.jpg"] == heads["progressive.jpg"] == heads["padded.jpg"] == Head(20, 30)
    assert heads["dot.jpg"] == Head(1, 1)
    assert [heads[f"turned-{turn}.jpg"] for turn in range(2, 9)] == [Head(20, 30, turn) for turn in range(2, 9)]
    left = {name for name, head in heads.items() if head is None}
    assert left == {"bad-empty.jpg", "bad-short.jpg", "bad-text.jpg", "clear.png", "cmyk.jpg", "deep.png", "grey.jpg",
                    "moving.gif", "palette.gif", "rgb.jpg", "web.webp"}  # fmt: skip


def test_what_would_keep_a_decoder_without_a_clock_goes_to_the_one_with(tmp_path):
    photo(20, 30).save(tmp_path / "one.jpg", progressive=True)
    data = (tmp_path / "one.jpg").read_bytes()
    assert read_head(data) == Head(20, 30)
    frame = data.index(b"\xff\xc2") + 5

    def sized(rows, columns):
        return data[:frame] + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + data[frame + 4 :]

    assert read_head(sized(5000, 5000)) == Head(5000, 5000)
    assert read_head(sized(5000, 5001)) is None
    scans = data.count(b"\xff\xda")
    visited = sized(5000, 5000)[:-2] + b"\xff\xda" * (2**29 // 25_000_000 - scans)
    assert read_head(visited + b"\xff\xd9") == Head(5000, 5000)
    assert read_head(visited + b"\xff\xda\xff\xd9") is None


def test_heads_survive_any_bytes(tmp_path):
    photo(12, 10).save(tmp_path / "one.jpg")
    whole = bytearray((tmp_path / "one.jpg").read_bytes())
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        data = bytearray(whole)
        for place in torch.randint(len(data), (3,), generator=generator).tolist():
            data[place] = int(torch.randint(256, (), generator=generator))
        head = read_head(bytes(data[: int(torch.randint(len(data), (), generator=generator))] + b"\xff\xd9"))
        assert head is None or (head.rows > 0 and head.columns > 0)


def test_one_channel_comes_of_colour_files(tmp_path):
    classes_of(tmp_path)
    data = load_data(f"images:{tmp_path}", img_size=8, labelled=False)
    assert next(iter(batches_of(data.test, 3)))[0].shape == (3, 3, 8, 8)
    assert isinstance(read_image(data.test.path(0)), Image.Image)
